"""`host.py`: the exact commands for each system, and what it refuses. Linux is run in tests/tunnel/test_host.py."""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from devkit import vpn
from devkit.computer import effects, macos, resolver, windows
from devkit.computer.model import Command, Computer, NameRule, Step
from devkit.errors import UserError

from tests.conftest import RunHere

SERVER = IPv4Address("10.213.94.1")
DOMAINS = ("d4m.internal", "cluster.local", "16.172.in-addr.arpa")
UNIT = "/etc/systemd/system/d4m-devkit-names@.service"
RULE = "/etc/udev/rules.d/90-d4m-devkit-names.rules"
FIRST_LINE = "# d4m-devkit: `host.py install` made this file; `host.py remove` takes it away."
FIRST_LINE_WITH_FOLDER = (
    "# d4m-devkit: `host.py install` made this file and its folder; `host.py remove` takes it away."
)

MACOS = Computer("macOS", {}, frozenset())
LINUX = Computer(
    "Linux", {}, frozenset({"/etc/systemd/system", "/etc/udev/rules.d"}), "tun0", resolved=257, through_resolved=True
)
WINDOWS = Computer("Windows", {}, frozenset())
RESOLVER_FILES = "/etc/resolver/d4m.internal /etc/resolver/cluster.local /etc/resolver/16.172.in-addr.arpa"
POWERSHELL = "powershell -NoProfile -NonInteractive -Command"
REMOVAL = "Get-DnsClientNrptRule | Where-Object Comment -eq 'd4m-devkit' | Remove-DnsClientNrptRule -Force"


def lines(commands: Iterable[Command]) -> list[str]:
    """Commands as they could be typed, each followed by what it reads; PowerShell's words without quotes around."""
    shown = []
    for command in commands:
        windows_ = command.words[0] == "powershell"
        shown.append(" ".join(command.words) if windows_ else shlex.join(command.words))
        shown += command.text.splitlines()
    return shown


TABLE = {
    "macOS": (
        MACOS,
        [
            "mkdir -p /etc/resolver",
            f"tee {RESOLVER_FILES}",
            FIRST_LINE_WITH_FOLDER,
            "nameserver 10.213.94.1",
        ],
        [f"rm {RESOLVER_FILES}", "rmdir /etc/resolver"],
    ),
    "macOS, where others have resolvers": (
        replace(MACOS, folders=frozenset({"/etc/resolver"}), files={"/etc/resolver/corp": "nameserver 192.0.2.1\n"}),
        [f"tee {RESOLVER_FILES}", FIRST_LINE, "nameserver 10.213.94.1"],
        [f"rm {RESOLVER_FILES}"],
    ),
    "Linux, connected": (
        LINUX,
        [
            f"tee {UNIT}",
            FIRST_LINE,
            "[Unit]",
            "Description=Names behind 10.213.94.1 by %i",
            "BindsTo=sys-subsystem-net-devices-%i.device",
            "After=sys-subsystem-net-devices-%i.device systemd-resolved.service",
            "",
            "[Service]",
            "Type=oneshot",
            "RemainAfterExit=yes",
            "# Only if it leads to the name server from an address beside it, once it has one: another VPN has none.",
            'ExecCondition=/bin/sh -c "for try in $$(seq 150); do \\',
            "  ip -4 route get 10.213.94.1 | grep -q ' dev %i src 10[.]213[.]94[.]' && exit; sleep 0.2; done; exit 1\"",
            "# The server last, or it would be asked for every name meanwhile.",
            "ExecStart=resolvectl default-route %i no",
            "ExecStart=resolvectl domain %i ~d4m.internal ~cluster.local ~16.172.in-addr.arpa",
            "ExecStart=resolvectl dns %i 10.213.94.1",
            "ExecStop=-resolvectl revert %i",
            f"tee {RULE}",
            FIRST_LINE,
            'ACTION=="add", SUBSYSTEM=="net", KERNEL=="tun[0-9]*|wg[0-9]*", TAG+="systemd", '
            'ENV{SYSTEMD_WANTS}+="d4m-devkit-names@$name.service"',
            "systemctl daemon-reload",
            "udevadm control --reload",
            "systemctl restart d4m-devkit-names@tun0.service",
        ],
        [
            "systemctl stop 'd4m-devkit-names@*.service'",
            f"rm {UNIT} {RULE}",
            "systemctl daemon-reload",
            "udevadm control --reload",
        ],
    ),
    "Windows": (
        WINDOWS,
        [
            f"{POWERSHELL} Add-DnsClientNrptRule -Namespace '.d4m.internal','.cluster.local','.16.172.in-addr.arpa' "
            "-NameServers '10.213.94.1' -Comment 'd4m-devkit'",
            f"{POWERSHELL} Clear-DnsClientCache",
        ],
        [f"{POWERSHELL} {REMOVAL}; Clear-DnsClientCache"],
    ),
}


@pytest.mark.parametrize(("computer", "commands", "undo"), TABLE.values(), ids=TABLE)
def test_each_system_gets_these_commands_and_is_undone_by_those(
    computer: Computer, commands: list[str], undo: list[str]
) -> None:
    step = resolver.install(computer, SERVER, DOMAINS)
    assert lines(step.commands) == commands
    assert lines(step.undo) == undo
    assert {setting.state for setting in step.settings} == {"missing"}


@pytest.mark.parametrize("computer", [case[0] for case in TABLE.values()], ids=TABLE)
def test_what_is_right_is_left_alone_and_removal_is_the_undo(computer: Computer) -> None:
    step = resolver.install(computer, SERVER, DOMAINS)
    after = done(computer, step)
    assert resolver.install(after, SERVER, DOMAINS).commands == ()
    assert {setting.state for setting in resolver.install(after, SERVER, DOMAINS).settings} == {"right"}
    assert resolver.remove(after).commands == step.undo
    assert resolver.remove(computer).commands == ()


def done(computer: Computer, step: Step) -> Computer:
    """The computer after the commands of a step."""
    files, folders = dict(computer.files), set(computer.folders)
    for command in step.commands:
        match command.words:
            case ("tee", *paths):
                files |= dict.fromkeys(paths, command.text)
            case ("mkdir", "-p", *made):
                folders |= {*made}
            case ("rm", *paths):
                files = {path: text for path, text in files.items() if path not in paths}
    domains = frozenset(f".{domain}" for domain in DOMAINS)
    rules = {NameRule(frozenset([str(SERVER)]), domains)} if computer.system == "Windows" else ()
    return replace(computer, files=files, folders=frozenset(folders), rules=frozenset(rules))


def test_on_a_mac_only_what_differs_is_written_and_the_folder_stays_ours() -> None:
    before = done(MACOS, resolver.install(MACOS, SERVER, DOMAINS))
    step = resolver.install(before, SERVER, ("d4m.internal", "shop.example"))
    assert lines(step.commands) == [
        "rm /etc/resolver/cluster.local /etc/resolver/16.172.in-addr.arpa",
        "tee /etc/resolver/shop.example",
        FIRST_LINE_WITH_FOLDER,
        "nameserver 10.213.94.1",
    ]
    assert [(setting.what, setting.state) for setting in step.settings] == [
        ("/etc/resolver/d4m.internal", "right"),
        ("/etc/resolver/shop.example", "missing"),
        ("/etc/resolver/cluster.local", "stale"),
        ("/etc/resolver/16.172.in-addr.arpa", "stale"),
    ]
    assert lines(step.undo)[-1] == "rmdir /etc/resolver"


def test_folder_of_ours_stays_when_somebody_else_has_put_a_file_there() -> None:
    after = done(MACOS, resolver.install(MACOS, SERVER, DOMAINS))
    shared = replace(after, files={**after.files, "/etc/resolver/corp": "nameserver 192.0.2.1\n"})
    assert lines(resolver.remove(shared).commands) == [f"rm {RESOLVER_FILES}"]


def test_linux_that_is_not_connected_starts_nothing() -> None:
    shown = lines(resolver.install(replace(LINUX, tunnel=None), SERVER, DOMAINS).commands)
    assert shown[-2:] == ["systemctl daemon-reload", "udevadm control --reload"]


def test_windows_replaces_its_rules_and_takes_fifty_domains_in_each() -> None:
    old = NameRule(frozenset({"10.9.9.1"}), frozenset({".d4m.internal"}))
    step = resolver.install(replace(WINDOWS, rules=frozenset({old})), SERVER, ("d4m.internal",))
    shown = lines(step.commands)
    assert shown[0] == f"{POWERSHELL} {REMOVAL}"
    assert shown[1].startswith(f"{POWERSHELL} Add-DnsClientNrptRule -Namespace '.d4m.internal' ")
    assert [setting.state for setting in step.settings] == ["missing", "stale"]
    many = resolver.install(WINDOWS, SERVER, [f"{number}.100.in-addr.arpa" for number in range(64, 128)])
    assert sum("Add-DnsClientNrptRule" in line for line in lines(many.commands)) == 2


def test_rules_of_windows_are_read_as_they_are_printed() -> None:
    assert windows.parse_rules("10.213.94.1 .d4m.internal,.cluster.local\r\n\r\n") == {
        NameRule(frozenset({"10.213.94.1"}), frozenset({".d4m.internal", ".cluster.local"}))
    }


@pytest.mark.parametrize(
    ("computer", "sentence"),
    [
        (replace(LINUX, resolved=None), "which does not run here"),
        (replace(LINUX, resolved=241), "which is version 241 here"),
        (replace(LINUX, through_resolved=False), "because /etc/resolv.conf names another server"),
        (replace(LINUX, resolved=None), "`server=/d4m.internal/cluster.local/10.213.94.1`"),
        (replace(MACOS, files={"/etc/resolver/d4m.internal": "nameserver 192.0.2.1\n"}),
         "/etc/resolver/d4m.internal is there already, and is not ours"),
    ],
)  # fmt: skip
def test_computer_that_cannot_is_told_what_to_do(computer: Computer, sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        resolver.install(computer, SERVER, DOMAINS)


@pytest.mark.parametrize(
    "domain",
    [
        "../../tmp/x",
        "com",
        ".",
        "",
        "a b.c",
        "d4m.internal'; rm",
        "UPPER.case",
        "$(x).y",
        "in-addr.arpa",
        "172.in-addr.arpa",
    ],
)
def test_profile_that_names_no_domain_of_somebodys_is_refused(domain: str) -> None:
    for computer in (MACOS, LINUX, WINDOWS):
        with pytest.raises(UserError, match="which is no domain"):
            resolver.install(computer, SERVER, (*DOMAINS, domain))


def names(profile: str) -> object:
    (lane,) = vpn.LANES
    return lane.names(profile)


def test_profile_says_who_answers_names() -> None:
    said = """client
dns server 0 address 10.213.94.1
dns server 0 resolve-domains D4M.internal. cluster.local
 dns server 0 resolve-domains 16.172.in-addr.arpa d4m.internal
"""
    assert names(said) == (SERVER, DOMAINS, None)
    assert names("client\n# dns server 0 address 10.213.94.1\n") is None
    assert names("dns server 0 address 10.213.94.1\n") is None


# ------------------------------------------------------------------------------------------------------ the command

PROFILE = "dns server 0 address 10.213.94.1\ndns server 0 resolve-domains d4m.internal\n"


@pytest.fixture
def mac(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for a Mac whose /etc/resolver is a folder; returns the log of a stand-in for `sudo`."""
    programs, log = tmp_path / "programs", tmp_path / "sudo.log"
    programs.mkdir()
    for name, text in {
        "sudo": f'echo "$*" >> {log}\nexec "$@"\n',
        "dscacheutil": "exit 0\n",  # it says nothing of a name that has no address
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}")
        (programs / name).chmod(0o755)
    log.touch()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    monkeypatch.setattr("devkit.host.operating_system", lambda: "macOS")
    monkeypatch.setattr("devkit.computer.macos.FOLDER", str(tmp_path / "resolver"))
    monkeypatch.setitem(
        resolver.FILES, "macOS",
        replace(macos.PLACES, folders=(str(tmp_path / "resolver"),),
                is_ours=lambda path: path.startswith(str(tmp_path / "resolver"))),
    )  # fmt: skip
    (tmp_path / "alice.ovpn").write_text(PROFILE)
    return log


def test_root_is_asked_for_by_sudo_for_what_was_shown_and_nothing_else(
    mac: Path, tmp_path: Path, run_here: RunHere
) -> None:
    done_ = run_here(tmp_path, "host", "install", "--yes", "--profile", "alice.ovpn")
    assert done_.returncode == 0, done_.stderr
    file = tmp_path / "resolver/d4m.internal"
    assert file.read_text() == f"{FIRST_LINE_WITH_FOLDER}\nnameserver 10.213.94.1\n"
    asked = mac.read_text().splitlines()
    assert asked == [f"mkdir -p {tmp_path}/resolver", f"tee {file}"]
    assert [line for line in done_.stdout.splitlines() if "sudo " in line] == [
        f"    sudo mkdir -p {tmp_path}/resolver", f"    sudo tee {file} << END",
    ]  # fmt: skip
    assert run_here(tmp_path, "host", "install", "--yes", "--profile", "alice.ovpn").stdout == ""
    assert run_here(tmp_path, "host", "status", "--profile", "alice.ovpn").returncode == 0
    assert run_here(tmp_path, "host", "remove", "--yes").returncode == 0
    assert mac.read_text().splitlines() == [*asked, f"rm {file}", f"rmdir {tmp_path}/resolver"]
    assert not file.parent.exists()


def test_connected_and_no_answer_is_what_should_work_and_does_not(
    mac: Path, tmp_path: Path, run_here: RunHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("devkit.host.interface_to", lambda *_: "utun4")
    run = run_here(tmp_path, "host", "install", "--yes", "--profile", "alice.ovpn")
    assert run.returncode == 3
    assert "d4m.internal does not resolve, although the VPN leads to 10.213.94.1" in run.stderr
    status = run_here(tmp_path, "host", "status", "--json", "--profile", "alice.ovpn")
    facts: Mapping[str, object] = json.loads(status.stdout)
    assert (status.returncode, facts["connected"], facts["resolves"]) == (3, True, False)
    dscacheutil = tmp_path / "programs/dscacheutil"
    dscacheutil.write_text('#!/bin/sh\n[ "$*" = "-q host -a name d4m.internal" ] && echo "ip_address: 10.213.94.1"\n')
    assert run_here(tmp_path, "host", "install", "--profile", "alice.ovpn").returncode == 0
    assert run_here(tmp_path, "host", "status", "--profile", "alice.ovpn").returncode == 0


def test_command_that_fails_is_named(mac: Path, tmp_path: Path, run_here: RunHere) -> None:
    (tmp_path / "resolver").mkdir()
    (tmp_path / "resolver/d4m.internal").mkdir()
    run = run_here(tmp_path, "host", "install", "--yes", "--profile", "alice.ovpn")
    assert run.returncode == 1
    assert f"`sudo tee {tmp_path}/resolver/d4m.internal` failed" in run.stderr


@pytest.mark.parametrize(
    ("profile", "sentence"),
    [
        ("client\n", "names nobody who answers names through the VPN"),
        (PROFILE.replace("10.213.94.1", "somebody"), "names a name server that is none"),
        (PROFILE.replace("10.213.94.1", "8.8.8.8"), "8.8.8.8, which is no address within a VPN"),
        (PROFILE.replace("10.213.94.1", "127.0.0.1"), "127.0.0.1, which is no address within a VPN"),
        (PROFILE.replace("d4m.internal", "com"), "'com' to the VPN, which is no domain"),
    ],
)
def test_profile_of_no_use_is_refused_in_one_sentence(
    mac: Path, tmp_path: Path, run_here: RunHere, profile: str, sentence: str
) -> None:
    (tmp_path / "alice.ovpn").write_text(profile)
    for what in (["install", "--yes"], ["status"]):
        run = run_here(tmp_path, "host", *what, "--profile", "alice.ovpn")
        assert run.returncode == 1
        assert sentence in run.stderr
    assert not mac.read_text()


def test_missing_profile_and_wrong_usage(mac: Path, tmp_path: Path, run_here: RunHere) -> None:
    assert "bob.ovpn: No such file" in run_here(tmp_path, "host", "status", "--profile", "bob.ovpn").stderr
    with pytest.raises(SystemExit, match="2"):
        run_here(tmp_path, "host")


def test_user_without_sudo_is_told_to_become_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(UserError, match="run it again as root"):
        effects.refuse_without_rights()
