"""`host.py` and the CA for HTTPS: the exact commands for each system, and what is never trusted.

Real stores are in tests/tunnel/test_trust.py.
"""

import json
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import CertificateBuilder, DNSName, ExtensionType, Name, NameAttribute, NameConstraints
from cryptography.x509.oid import NameOID
from devkit.computer import bundle, databases, effects, macos, resolver, trust, windows
from devkit.computer.model import Command, Computer, Database, Kept, Root, Step, fingerprint
from devkit.errors import UserError
from devkit.keys import https, x509
from devkit.vpn.openvpn.profile import HTTPS_ROOT_HEADER

from tests.conftest import RunHere
from tests.schema import document
from tests.unit.test_host import FIRST_LINE, POWERSHELL, lines

NOW = datetime.now(UTC).replace(microsecond=0)
DOMAIN = "d4m.internal"
DOMAINS = (DOMAIN, "cluster.local", "16.172.in-addr.arpa")


def pem(project: str = "shop", domain: str = DOMAIN, days: int = 3650, now: datetime = NOW) -> str:
    return https.new(project, domain, "ecdsa-p256", days, now).root.certificate_pem.decode()


PEM, OLD_PEM = pem(), pem()
ROOT, OLD = trust.root(PEM, DOMAINS, NOW), trust.root(OLD_PEM, DOMAINS, NOW)
SHA1, OLD_SHA1 = fingerprint(PEM), fingerprint(OLD_PEM)
LINES = PEM.splitlines()

FIREFOX = Database("/home/alice/.mozilla/firefox/x.default", exists=True, has_others=True)
CHROMIUM = Database("/home/alice/.pki/nssdb", exists=False, new_folders=2)
MACOS = Computer("macOS", {}, frozenset())
WINDOWS = Computer("Windows", {}, frozenset())
DEBIAN, FEDORA = (
    Computer("Linux", {kind.bundle: "theirs\n"}, frozenset({kind.folder}), bundle=kind.folder, certutil=True)
    for kind in (bundle.DEBIAN, bundle.FEDORA)
)
KEYCHAIN = "/Library/Keychains/System.keychain"
WITH_FILE = """sh -c 'file=$(mktemp) && cat > "$file" && security {} "$file"; code=$?; rm -f "$file"; exit $code'"""
MADE = "d4m-devkit HTTPS (with its database and 2 of its folders)"
DESELECT = (
    """sh -c 'conf=$(mktemp) && { cat /etc/ca-certificates.conf; echo "!d4m-devkit.crt"; } > "$conf" && """
    """update-ca-certificates --certsconf "$conf"; code=$?; rm -f "$conf"; exit $code'"""
)
DEBIAN_REMOVAL = ["rm /usr/local/share/ca-certificates/d4m-devkit.crt", DESELECT]

TABLE = {
    "macOS": (
        MACOS,
        [WITH_FILE.format(f"add-trusted-cert -d -r trustRoot -p ssl -k {KEYCHAIN}"), *LINES],
        [WITH_FILE.format("remove-trusted-cert -d"), *LINES, f"security delete-certificate -Z {SHA1} {KEYCHAIN}"],
    ),
    "Windows": (
        WINDOWS,
        [
            f"{POWERSHELL} $file = New-TemporaryFile; Set-Content $file "
            + ",".join(f"'{line}'" for line in LINES)
            + "; certutil -f -addstore Root $file; $code = $LASTEXITCODE; Remove-Item $file; exit $code"
        ],
        [f"certutil -delstore Root {SHA1}"],
    ),
    "Debian": (
        DEBIAN,
        ["tee /usr/local/share/ca-certificates/d4m-devkit.crt", FIRST_LINE, *LINES, "update-ca-certificates"],
        DEBIAN_REMOVAL,
    ),
    "Fedora": (
        FEDORA,
        ["tee /etc/pki/ca-trust/source/anchors/d4m-devkit.crt", FIRST_LINE, *LINES, "update-ca-trust"],
        ["rm /etc/pki/ca-trust/source/anchors/d4m-devkit.crt", "update-ca-trust"],
    ),
    "Firefox, and a Chromium that was never started": (
        replace(DEBIAN, bundle=None, databases=(CHROMIUM, FIREFOX)),
        [
            f"mkdir -p -m 700 {CHROMIUM.folder}",
            f"certutil -d sql:{CHROMIUM.folder} -N --empty-password",
            f"certutil -d sql:{CHROMIUM.folder} -A -a -t C,, -n '{MADE}'",
            *LINES,
            f"certutil -d sql:{FIREFOX.folder} -A -a -t C,, -n 'd4m-devkit HTTPS'",
            *LINES,
        ],
        [
            f"rm {CHROMIUM.folder}/cert9.db {CHROMIUM.folder}/key4.db {CHROMIUM.folder}/pkcs11.txt",
            "rmdir --ignore-fail-on-non-empty /home/alice/.pki/nssdb /home/alice/.pki",
            f"certutil -d sql:{FIREFOX.folder} -D -n 'd4m-devkit HTTPS'",
        ],
    ),
}


def done(computer: Computer, step: Step) -> Computer:
    """The computer after the commands of a step."""
    files, kept = dict(computer.files), {database.folder: database for database in computer.databases}
    roots = {} if step.title == trust.REMOVE else {PEM: True}
    for command in step.commands:
        match command.words:
            case ("tee", path):
                files[path] = command.text
            case ("rm", path):
                del files[path]
            case ("update-ca-certificates" | "update-ca-trust",) | ("sh", "-c", bundle.DESELECT):
                kind = bundle.KINDS[computer.bundle or ""]
                files[kind.bundle] = "theirs\n" + files.get(kind.file, "")
            case ("certutil", "-d", folder, "-A", "-a", "-t", flags, "-n", nickname):
                ours = (*kept[folder[4:]].ours, Kept(nickname, command.text, flags))
                kept[folder[4:]] = replace(kept[folder[4:]], exists=True, ours=ours)
            case ("certutil", "-d", folder, "-D", "-n", nickname):
                ours = tuple(one for one in kept[folder[4:]].ours if one.nickname != nickname)
                kept[folder[4:]] = replace(kept[folder[4:]], ours=ours)
    single = computer.system != "Linux"
    return replace(computer, files=files, roots=roots if single else {}, databases=tuple(kept.values()))


@pytest.mark.parametrize(("computer", "commands", "undo"), TABLE.values(), ids=TABLE)
def test_each_store_gets_these_commands_and_is_undone_by_those(
    computer: Computer, commands: list[str], undo: list[str]
) -> None:
    step = trust.install(computer, ROOT)
    assert lines(step.commands) == commands
    assert lines(step.undo) == undo
    assert {setting.state for setting in step.settings} == {"missing"}
    assert step.title.endswith(f"{ROOT.name} for HTTPS servers in d4m.internal, and for nothing else")


@pytest.mark.parametrize("computer", [case[0] for case in TABLE.values()], ids=TABLE)
def test_what_is_right_is_left_alone_and_removal_is_the_undo(computer: Computer) -> None:
    step = trust.install(computer, ROOT)
    after = done(computer, step)
    again = trust.install(after, ROOT)
    assert again.commands == ()
    assert {setting.state for setting in again.settings if setting.what != trust.NO_BUNDLE} == {"right"}
    assert trust.remove(after).commands == step.undo
    assert trust.remove(computer).commands == ()


@pytest.mark.parametrize(
    ("computer", "removal"),
    [
        (MACOS, [WITH_FILE.format("remove-trusted-cert -d"), *OLD_PEM.splitlines(),
                 f"security delete-certificate -Z {OLD_SHA1} {KEYCHAIN}"]),
        (WINDOWS, [f"certutil -delstore Root {OLD_SHA1}"]),
        (DEBIAN, DEBIAN_REMOVAL),
        (replace(DEBIAN, bundle=None, databases=(FIREFOX,)),
         [f"certutil -d sql:{FIREFOX.folder} -D -n 'd4m-devkit HTTPS'"]),
    ],
    ids=["macOS", "Windows", "Debian", "Firefox"],
)  # fmt: skip
def test_root_that_was_replaced_is_stale_and_goes(computer: Computer, removal: list[str]) -> None:
    before = done(computer, trust.install(computer, OLD))
    before = replace(before, roots={OLD_PEM: True} if before.roots else {})
    step = trust.install(before, ROOT)
    assert "stale" in {setting.state for setting in step.settings}
    assert lines(step.commands)[: len(removal)] == removal
    assert PEM in "".join(command.text for command in step.commands) or "Set-Content" in lines(step.commands)[-1]
    if computer.system == "Linux":
        assert {setting.state for setting in trust.install(done(before, step), ROOT).settings} <= {"right", "missing"}
        assert OLD_PEM not in str(done(before, step))


def test_database_of_ours_stays_ours_when_the_root_is_replaced_and_stays_with_what_others_put_in() -> None:
    first = replace(DEBIAN, bundle=None, databases=(CHROMIUM,))
    old = done(first, trust.install(first, OLD))
    new = done(old, trust.install(old, ROOT))
    assert [one.nickname for one in new.databases[0].ours] == [MADE]
    assert lines(trust.remove(new).commands)[0].startswith("rm ")
    shared = replace(new, databases=(replace(new.databases[0], has_others=True),))
    assert lines(trust.remove(shared).commands) == [f"certutil -d sql:{CHROMIUM.folder} -D -n '{MADE}'"]
    assert trust.install(shared, ROOT).undo == trust.remove(shared).commands


def test_ours_without_its_trust_is_stale() -> None:
    firefox = replace(FIREFOX, ours=(Kept("d4m-devkit HTTPS", PEM, ",,"),))
    keychain = replace(MACOS, roots={PEM: False})
    for computer in (replace(DEBIAN, bundle=None, databases=(firefox,)), keychain):
        step = trust.install(computer, ROOT)
        assert step.settings[-1].state == "stale"
        assert PEM in [command.text for command in step.commands]


def test_bundle_that_was_not_made_anew_is_made_anew() -> None:
    kind = bundle.DEBIAN
    written = done(DEBIAN, trust.install(DEBIAN, ROOT))
    forgotten = replace(written, files={**written.files, kind.bundle: "theirs\n"})
    step = trust.install(forgotten, ROOT)
    assert lines(step.commands) == ["update-ca-certificates"]
    assert [setting.state for setting in step.settings] == ["right", "missing"]
    left_over = replace(DEBIAN, files={kind.bundle: written.files[kind.bundle]})
    assert lines(trust.remove(left_over).commands) == [DESELECT]


def test_file_of_somebody_else_is_refused_and_never_removed() -> None:
    theirs = replace(DEBIAN, files={bundle.DEBIAN.file: PEM, bundle.DEBIAN.bundle: f"# d4m-devkit\n{PEM}"})
    with pytest.raises(UserError, match="is not ours"):
        trust.install(theirs, ROOT)
    assert trust.remove(theirs).commands == ()


# ------------------------------------------------------------------------------------------------ what is not trusted


RIGHT = (NameConstraints([DNSName(DOMAIN)], https.NO_ADDRESSES), https.PURPOSE)


def made_by_somebody(constraints: Sequence[ExtensionType] = RIGHT, name: str = "d4m-devkit HTTPS shop") -> str:
    return x509.new_ca(name, "ecdsa-p256", 10, NOW, constraints, 1).certificate_pem.decode()


def signed_anew(subject: Name | None = None, patch: tuple[bytes, bytes] = (b"", b"")) -> str:
    """A root of ours with more in its subject, or with other bytes in it than any library would write."""
    made = https.new("shop", DOMAIN, "ecdsa-p256", 10, NOW).root
    assert isinstance(made.key, EllipticCurvePrivateKey)
    before, subject = made.certificate, subject or made.certificate.subject
    builder = CertificateBuilder(
        subject, subject, before.public_key(), before.serial_number, before.not_valid_before_utc,
        before.not_valid_after_utc, [*before.extensions],
    )  # fmt: skip
    body = builder.sign(made.key, SHA256()).tbs_certificate_bytes.replace(*patch, 1)
    signature = b"\0" + made.key.sign(body, ECDSA(SHA256()))
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
    content = body + algorithm + bytes([3, len(signature)]) + signature
    return ssl.DER_cert_to_PEM_cert(b"\x30\x82" + len(content).to_bytes(2) + content)


COMMON_NAME = NameAttribute(NameOID.COMMON_NAME, "d4m-devkit HTTPS shop CA 1")
SUBJECT_KEY_IDENTIFIER, BASIC_CONSTRAINTS = bytes.fromhex("0603551d0e"), bytes.fromhex("0603551d13")

HOSTILE = {
    "not constrained": made_by_somebody([https.PURPOSE]),
    "constrained by nothing": made_by_somebody([]),
    "for more than TLS servers": made_by_somebody([NameConstraints([DNSName(DOMAIN)], https.NO_ADDRESSES)]),
    "for addresses": made_by_somebody([NameConstraints([DNSName(DOMAIN)], None), https.PURPOSE]),
    "two domains": made_by_somebody(
        [NameConstraints([DNSName(DOMAIN), DNSName("example.com")], https.NO_ADDRESSES), https.PURPOSE]
    ),
    "another domain": pem(domain="example.com"),
    "all of com": pem(domain="com"),
    "everything": pem(domain=""),
    "several": PEM + made_by_somebody([https.PURPOSE]),
    "two times the same": PEM + PEM,
    "more in its subject": signed_anew(
        Name([COMMON_NAME, NameAttribute(NameOID.ORGANIZATION_NAME, "Example Trust Services")])
    ),
    "an extension twice": signed_anew(patch=(SUBJECT_KEY_IDENTIFIER, BASIC_CONSTRAINTS)),
    "no certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "cut off": "\n".join([*LINES[:4], LINES[-1]]),
    "signed by somebody else": https.new("x", DOMAIN, "ecdsa-p256", 9, NOW).intermediate.certificate_pem.decode(),  # type: ignore[union-attr]  # it is new
    "named like no root of ours": made_by_somebody(name="Example Trust Services"),
    "a name that writes on the terminal": made_by_somebody(name="d4m-devkit HTTPS \x1b[2J"),
    "it has ended": pem(days=1, now=NOW - timedelta(days=2)),
}


@pytest.mark.parametrize("root", HOSTILE.values(), ids=HOSTILE)
def test_anything_but_one_root_for_the_domain_of_the_profile_is_refused(root: str) -> None:
    with pytest.raises(
        UserError, match=r"^the profile's CA for HTTPS .*: (ask who|get a new profile from who) made it\.$"
    ):
        trust.root(root, DOMAINS, NOW)


def test_domain_alone_of_all_that_the_profile_sends_there_is_not_enough() -> None:
    with pytest.raises(UserError, match="'com', which the profile does not send"):
        trust.root(pem(domain="com"), ("com",), NOW)
    for right in (made_by_somebody(), signed_anew(Name([COMMON_NAME]))):
        assert trust.root(right, DOMAINS, NOW).domain == DOMAIN


def test_only_ours_are_found_in_a_store() -> None:
    others = made_by_somebody(name="Example Trust Services")
    assert [found for _, found in trust.ours(f"x\n{others}{PEM}y\n{OLD_PEM}")] == [PEM, OLD_PEM]


def test_stores_are_asked_so() -> None:
    assert " ".join(macos.CERTIFICATES) == f"security find-certificate -a -c d4m-devkit HTTPS -p {KEYCHAIN}"
    assert " ".join(macos.TRUST_SETTINGS) == "security dump-trust-settings -d"
    assert windows.CERTIFICATES == (
        "Get-ChildItem Cert:\\LocalMachine\\Root | Where-Object Subject -like 'CN=d4m-devkit HTTPS *' | "
        "ForEach-Object { '-----BEGIN CERTIFICATE-----'; [Convert]::ToBase64String($_.RawData, 'InsertLineBreaks'); "
        "'-----END CERTIFICATE-----' }"
    )
    listing = f"""
Certificate Nickname                                         Trust Attributes
                                                             SSL,S/MIME,JAR/XPI

My company, by hand                                          CT,C,C
{MADE}    C,,  
d4m-devkit HTTPS (by hand)                                   u,u,u
"""  # noqa: W291 -- as it prints it
    found = databases.parse(listing)
    assert found == {"My company, by hand": "CT,C,C", MADE: "C,,", "d4m-devkit HTTPS (by hand)": "u,u,u"}
    assert [nickname for nickname in found if databases.is_ours(nickname)] == [MADE]
    assert databases.is_ours("d4m-devkit HTTPS")


# -------------------------------------------------------------------------------------------------------------- hints

JAVA = f"-importcert -noprompt -cacerts -storepass changeit -alias d4m-devkit-{SHA1[:8].lower()} -file"


@pytest.mark.parametrize(
    ("computer", "file", "expected"),
    [
        (DEBIAN, "/x/local/https/root.crt", [
            "export NODE_EXTRA_CA_CERTS=/usr/local/share/ca-certificates/d4m-devkit.crt",
            f'sudo "$(command -v keytool)" {JAVA} /usr/local/share/ca-certificates/d4m-devkit.crt',
        ]),
        (replace(DEBIAN, bundle=None), None, []),
        (MACOS, "/Users/a b/root.crt", [
            "export NODE_EXTRA_CA_CERTS='/Users/a b/root.crt'",
            f"sudo \"$(command -v keytool)\" {JAVA} '/Users/a b/root.crt'",
        ]),
        (MACOS, None, [
            f"security find-certificate -c '{ROOT.name}' -p {KEYCHAIN} > ~/d4m-devkit.crt",
            "export NODE_EXTRA_CA_CERTS=~/d4m-devkit.crt",
            f'sudo "$(command -v keytool)" {JAVA} ~/d4m-devkit.crt',
        ]),
        (WINDOWS, None, [
            f"$ca = (Get-Item Cert:\\LocalMachine\\Root\\{SHA1}).RawData; '-----BEGIN CERTIFICATE-----', "
            "[Convert]::ToBase64String($ca, 'InsertLineBreaks'), '-----END CERTIFICATE-----' "
            '| Set-Content -Encoding ascii "$HOME\\d4m-devkit.crt"',
            '$env:NODE_EXTRA_CA_CERTS = "$HOME\\d4m-devkit.crt"',
            f'keytool {JAVA} "$HOME\\d4m-devkit.crt"',
        ]),
    ],
)  # fmt: skip
def test_node_and_java_are_told_of_a_file_that_there_is(
    computer: Computer, file: str | None, expected: list[str]
) -> None:
    assert list(trust.hints(computer, ROOT, file, "sudo ")) == expected


def test_tool_that_is_missing_and_a_linux_that_is_not_known_are_said() -> None:
    assert trust.warnings(DEBIAN) == ()
    (tool,) = trust.warnings(replace(DEBIAN, certutil=False))
    assert "`sudo apt install libnss3-tools`" in tool
    (unknown,) = trust.warnings(replace(DEBIAN, bundle=None))
    assert "neither where Debian nor where Fedora has them" in unknown
    without = trust.install(replace(DEBIAN, certutil=False, databases=(FIREFOX,)), ROOT)
    assert lines(without.commands)[-1] == "update-ca-certificates"
    assert without.settings[-1].state == "missing"
    assert trust.warnings(MACOS) == trust.warnings(WINDOWS) == ()


def test_what_is_the_users_is_done_by_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, roots = Command(("certutil", "-L"), by_user=True), Command(("update-ca-certificates",))
    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert list(effects.as_who(mine)) == ["certutil", "-L"]
    assert list(effects.as_who(roots)) == ["sudo", "update-ca-certificates"]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert list(effects.as_who(mine)) == ["certutil", "-L"]
    monkeypatch.setenv("SUDO_USER", "alice")
    assert list(effects.as_who(mine)) == ["runuser", "-u", "alice", "--", "certutil", "-L"]
    assert list(effects.as_who(roots)) == ["update-ca-certificates"]


# -------------------------------------------------------------------------------------------------------- the command

SECURITY = """#!/bin/sh
store={store}
echo "$1" >> {log}
case $1 in
find-certificate) cat $store/*.pem 2> /dev/null ;;
dump-trust-settings) cat $store/*.name 2> /dev/null ;;
add-trusted-cert) for file; do :; done
    cp "$file" $store/one.pem; echo 'Cert 0: {name}' > $store/one.name ;;
remove-trusted-cert) rm $store/one.name ;;
delete-certificate) rm $store/one.pem ;;
esac
"""
NAMES = "dns server 0 address 10.213.94.1\ndns server 0 resolve-domains d4m.internal\n"


def profile(root: str) -> str:
    return NAMES + HTTPS_ROOT_HEADER + "".join(f"# {line}\n" for line in root.splitlines())


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for a Mac: its keychain is a folder; returns the log of a stand-in for `sudo`."""
    programs, log, keychain = tmp_path / "programs", tmp_path / "sudo.log", tmp_path / "keychain"
    programs.mkdir()
    keychain.mkdir()
    security = SECURITY.format(store=keychain, log=tmp_path / "security.log", name=ROOT.name)
    for name, text in {
        "sudo": f'#!/bin/sh\necho "$*" >> {log}\nexec "$@"\n', "dscacheutil": "#!/bin/sh\n", "security": security
    }.items():  # fmt: skip
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    log.touch()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    monkeypatch.setattr("devkit.host.operating_system", lambda: "macOS")
    monkeypatch.setattr("devkit.computer.macos.FOLDER", str(tmp_path / "resolver"))
    places = replace(
        macos.PLACES,
        folders=(str(tmp_path / "resolver"),), is_ours=lambda path: path.startswith(str(tmp_path / "resolver")),
    )  # fmt: skip
    monkeypatch.setitem(resolver.FILES, "macOS", places)
    (tmp_path / "alice.ovpn").write_text(profile(PEM))
    return log


def test_both_are_shown_asked_for_once_and_taken_back(mac: Path, tmp_path: Path, run_here: RunHere) -> None:
    run = run_here(tmp_path, "host", "install", "--yes", "--profile", "alice.ovpn")
    assert run.returncode == 0, run.stderr
    assert "names in d4m.internal" in run.stdout
    assert f"Trust {ROOT.name} for HTTPS servers in d4m.internal" in run.stdout
    assert "https://NAME.d4m.internal is trusted here" in run.stderr
    assert (tmp_path / "keychain/one.pem").read_text() == PEM
    written = mac.read_text()
    again = run_here(tmp_path, "host", "install", "--yes", "--profile", "alice.ovpn")
    assert (again.returncode, again.stdout, mac.read_text()) == (0, "", written)
    status = run_here(tmp_path, "host", "status", "--json", "--profile", "alice.ovpn")
    facts = document(status.stdout)
    assert status.returncode == 0
    assert facts["https"] == {
        "ca": ROOT.name, "domain": DOMAIN, "root": PEM,
        "settings": [{"what": f"{ROOT.name} in {KEYCHAIN}", "state": "right"}],
    }  # fmt: skip
    assert run_here(tmp_path, "host", "remove", "--yes").returncode == 0
    assert not [*(tmp_path / "keychain").iterdir()]
    assert not (tmp_path / "resolver").exists()


@pytest.mark.parametrize("root", HOSTILE.values(), ids=HOSTILE)
def test_profile_of_a_hostile_server_changes_nothing(
    mac: Path, tmp_path: Path, run_here: RunHere, root: str
) -> None:  # fmt: skip
    (tmp_path / "alice.ovpn").write_text(profile(root))
    for what in (["install", "--yes"], ["status"]):
        run = run_here(tmp_path, "host", *what, "--profile", "alice.ovpn")
        assert run.returncode == 1
        assert re.fullmatch(r"error: the profile's CA for HTTPS [^\n\x1b]* made it\.\n", run.stderr)
    assert not mac.read_text()
    assert not (tmp_path / "security.log").exists()


def test_second_root_in_a_profile_is_seen(mac: Path, tmp_path: Path, run_here: RunHere) -> None:
    (tmp_path / "alice.ovpn").write_text(profile(PEM) + "remote x 1\n" + profile(OLD_PEM).removeprefix(NAMES))
    run = run_here(tmp_path, "host", "install", "--yes", "--profile", "alice.ovpn")
    assert (run.returncode, mac.read_text()) == (1, "")
    assert "not one certificate" in run.stderr


def test_nothing_is_trusted_of_a_profile_whose_names_are_hostile(mac: Path, tmp_path: Path, run_here: RunHere) -> None:
    (tmp_path / "alice.ovpn").write_text(profile(PEM).replace("10.213.94.1", "8.8.8.8"))
    run = run_here(tmp_path, "host", "install", "--yes", "--profile", "alice.ovpn")
    assert (run.returncode, mac.read_text()) == (1, "")
    assert "8.8.8.8, which is no address within a VPN" in run.stderr


def test_trust_is_installed_where_names_cannot_be_and_the_code_says_so(
    mac: Path, tmp_path: Path, run_here: RunHere
) -> None:
    (tmp_path / "resolver").mkdir()
    (tmp_path / "resolver/d4m.internal").write_text("nameserver 192.0.2.1\n")
    run = run_here(tmp_path, "host", "install", "--yes", "--profile", "alice.ovpn")
    assert run.returncode == 3
    assert "resolver/d4m.internal is there already, and is not ours" in run.stderr
    assert (tmp_path / "keychain/one.pem").read_text() == PEM
    assert "is trusted here" in run.stderr
    status = run_here(tmp_path, "host", "status", "--profile", "alice.ovpn")
    assert (status.returncode, status.stdout.count("right")) == (3, 1)
    facts = document(run_here(tmp_path, "host", "status", "--json", "--profile", "alice.ovpn").stdout)
    assert (facts["settings"], len(facts["warnings"]), facts["resolves"]) == ([], 1, None)
    assert run_here(tmp_path, "host", "remove", "--yes").returncode == 0
    assert (tmp_path / "resolver/d4m.internal").read_text() == "nameserver 192.0.2.1\n"
    (tmp_path / "alice.ovpn").write_text(NAMES)  # nothing else to do
    assert run_here(tmp_path, "host", "install", "--yes", "--profile", "alice.ovpn").returncode == 1


def test_profile_without_a_root_sets_up_names_alone(mac: Path, tmp_path: Path, run_here: RunHere) -> None:
    (tmp_path / "alice.ovpn").write_text(NAMES)
    run = run_here(tmp_path, "host", "install", "--yes", "--profile", "alice.ovpn")
    assert run.returncode == 0
    assert "trust" not in run.stderr + run.stdout
    assert json.loads(run_here(tmp_path, "host", "status", "--json", "--profile", "alice.ovpn").stdout)["https"] is None


def test_root_is_known_by_its_name() -> None:
    assert Root(ROOT.name, DOMAIN, PEM) == ROOT
    assert re.fullmatch(r"d4m-devkit HTTPS shop CA [0-9a-f]{33}", ROOT.name)
    long = trust.root(pem("a-project-with-a-very-long-name-indeed-" * 2), DOMAINS, NOW).name
    assert re.search(r" CA [0-9a-f]{20,}$", long), "two of one project must differ"
