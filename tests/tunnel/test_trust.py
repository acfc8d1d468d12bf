"""`host.py` and the CA for HTTPS on a computer of the lab: real stores, and what a stolen key of it is good for.

The browser is in the computer's own root, so its user's home is there; all else is the Mac's.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509 import CertificateBuilder as Builder
from cryptography.x509 import DNSName, GeneralName, IPAddress, Name, NameAttribute, SubjectAlternativeName
from cryptography.x509.oid import NameOID
from devkit.keys import https, x509
from devkit.keys.https import HttpsCA
from devkit.keys.x509 import Credential
from devkit.vpn.openvpn.profile import HTTPS_ROOT_HEADER

from tests.conftest import REPOSITORY, snapshot
from tests.docker_desktop import Mac, mac_alone
from tests.docker_desktop.cache import helm_and_kubectl
from tests.docker_desktop.computer import Computer, resolver
from tests.names import DOMAINS
from tests.schema import document
from tests.vpn import eventually

HOST = REPOSITORY / "scripts/host.py"
NOW = datetime.now(UTC)
WEB = "web.d4m.internal"
OURS = "d4m-devkit HTTPS"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
# A machine may have these for its own CAs; what is to be seen is what programs do by themselves.
CA_VARIABLES = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "JAVA_TOOL_OPTIONS")
JAVA_HOOK = "/etc/ca-certificates/update.d/jks-keystore"


@cache
def authority() -> HttpsCA:
    return https.new("shop", "d4m.internal", "ecdsa-p256", 100, NOW)


@cache
def next_authority() -> HttpsCA:
    """What `copier update --data rotate=all` makes of it."""
    return https.new("shop", "d4m.internal", "ecdsa-p256", 100, NOW)


SERVE = """
import http.server, ssl, sys

class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<title>fine</title>")

server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(*sys.argv[2:])
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print("listening", flush=True)
server.serve_forever()
"""


class Servers:
    """Web servers on the Mac's own address, each with a certificate and the intermediate."""

    def __init__(self, mac: Mac) -> None:
        self._mac = mac
        self._processes: list[subprocess.Popen[str]] = []

    def start(self, leaf: Credential, ca: HttpsCA) -> int:
        """Start one, and return its port."""
        port = 8443 + len(self._processes)
        folder = self._mac.home / str(port)
        folder.mkdir()
        (folder / "chain.pem").write_bytes(leaf.certificate_pem + intermediate(ca).certificate_pem)
        (folder / "leaf.key").write_bytes(leaf.key_pem)
        with (folder / "log").open("w") as log:
            command = (sys.executable, "-c", SERVE, str(port), folder / "chain.pem", folder / "leaf.key")
            self._processes.append(self._mac.start(*command, output=log))
        eventually(lambda: "listening" in (folder / "log").read_text())
        return port

    def end(self) -> None:
        """End them all."""
        for process in self._processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def computer() -> Iterator[Computer]:
    with mac_alone() as mac, resolver(mac, "forky") as booted:
        mac.run("update-ca-certificates")  # what was put there by hand would change later
        mac.run("sh", "-c", f"echo 127.0.0.1 {WEB} >> /etc/hosts")
        mac.run("mount", "-t", "tmpfs", "tmpfs", "/home")
        for name, ca in {"root": authority(), "next": next_authority()}.items():
            (mac.home / f"{name}.ovpn").write_text(profile(ca))
            (mac.home / f"{name}.crt").write_bytes(ca.root.certificate_pem)
        yield booted


@pytest.fixture(scope="module")
def mac(computer: Computer) -> Mac:
    return computer.mac


@pytest.fixture(scope="module")
def servers(mac: Mac) -> Iterator[Servers]:
    started = Servers(mac)
    yield started
    started.end()


@pytest.fixture(scope="module")
def port(servers: Servers) -> int:
    """Where WEB is served as the proxy does."""
    return servers.start(x509.issue(intermediate(), x509.SERVER, [WEB], "ecdsa-p256", 1, NOW), authority())


@pytest.fixture(autouse=True)
def nothing_of_ours(computer: Computer) -> Iterator[None]:
    yield
    run = host(computer, "remove", "--yes")
    assert run.returncode == 0, run.stderr
    for folder in (".mozilla", ".pki"):
        computer.mac.run("rm", "-rf", computer.home / folder)


def profile(ca: HttpsCA) -> str:
    """As much of a profile as `host.py` reads."""
    names = "".join(f"dns server 0 resolve-domains {domain}\n" for domain in DOMAINS)
    root = "".join(f"# {line}\n" for line in ca.root.certificate_pem.decode().splitlines())
    return f"dns server 0 address 10.213.94.1\n{names}\n{HTTPS_ROOT_HEADER}{root}"


def intermediate(ca: HttpsCA | None = None) -> Credential:
    found = (ca or authority()).intermediate
    assert found
    return found


def host(computer: Computer, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `host.py` as the computer's user."""
    given = [f"{name}={value}" for name, value in ({"HOME": str(computer.home)} | variables).items()]
    return computer.mac.run("env", *given, sys.executable, HOST, *arguments, check=False)


def install(computer: Computer, name: str = "root", **variables: str) -> str:
    run = host(computer, "install", "--yes", "--profile", computer.mac.home / f"{name}.ovpn", **variables)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stderr


def states(computer: Computer, name: str = "root") -> dict[str, str]:
    facts = document(host(computer, "status", "--json", "--profile", computer.mac.home / f"{name}.ovpn").stdout)
    return {setting["what"]: setting["state"] for setting in facts["https"]["settings"]}


def curl(mac: Mac, port: int) -> bool:
    """Whether curl takes the server's certificate, by the bundle."""
    unset = [word for name in CA_VARIABLES for word in ("-u", name)]
    command = ["curl", "--silent", "--output", "/dev/null", f"https://{WEB}:{port}/"]
    code = mac.run("env", *unset, *command, check=False).returncode
    assert code in (0, 60)  # 60: it is not trusted
    return code == 0


def browse(computer: Computer, port: int, name: str = WEB) -> str:
    """What Chromium says to the server: that it is fine, or its error."""
    lead = "--host-resolver-rules=MAP * 127.0.0.1"
    run = computer.run(
        "chromium-headless-shell", "--no-sandbox", "--dump-dom", lead, f"https://{name}:{port}/", check=False
    )
    if "<title>fine" in run.stdout:
        return "fine"
    (error,) = (line.rpartition("net::")[2] for line in run.stderr.splitlines() if "Page load failed" in line)
    return error


def listings(computer: Computer) -> Mapping[str, object]:
    """All that the stores have in them, and all of /etc and of the user's home, but for files that list the same."""
    root = Path(f"/proc/{computer.mac.process_id}/root")
    same = ("ssl/certs/java/cacerts", "cert9.db", "key4.db")
    files = {
        f"{folder}/{path}": content
        for folder in ("/etc", "/usr/local/share/ca-certificates")
        for path, content in snapshot(root / folder[1:]).items()
    } | {
        f"~/{path}": content
        for path, content in snapshot(root / str(computer.home)[1:]).items()
        if ".cache" not in path
    }
    listed = {path: content for path, content in files.items() if not path.endswith(same)}
    return {**listed, "java": java_lists(computer.mac), "firefox": nss_lists(computer, firefox(computer))}


def java_lists(mac: Mac) -> str:
    """The CAs that Debian's Java has, where there is one."""
    if not shutil.which("keytool"):
        return ""
    return mac.run("keytool", "-list", "-cacerts", "-storepass", "changeit").stdout


def firefox(computer: Computer) -> Path:
    return computer.home / ".mozilla/firefox/x.default"


def nss_lists(computer: Computer, database: Path) -> str:
    return computer.mac.run("certutil", "-d", f"sql:{database}", "-L", check=False).stdout


def make_firefox(computer: Computer) -> Path:
    """A profile of Firefox, in which the user trusts a CA already."""
    folder = firefox(computer)
    theirs = x509.new_ca("Example Corp", "ecdsa-p256", 10, NOW).certificate_pem
    (computer.mac.home / "theirs.crt").write_bytes(theirs)
    certutil = ["certutil", "-d", f"sql:{folder}"]
    computer.mac.run("mkdir", "-p", folder)
    computer.mac.run(*certutil, "-N", "--empty-password")
    computer.mac.run(*certutil, "-A", "-t", "CT,C,C", "-n", "corp", "-i", computer.mac.home / "theirs.crt")
    return folder


@contextmanager
def without(mac: Mac, program: str) -> Iterator[None]:
    """The Mac, where a program cannot be run."""
    mac.run("mount", "--bind", "/dev/null", program)
    yield
    mac.run("umount", program)


def test_browser_and_curl_trust_it_from_install_until_remove(computer: Computer, mac: Mac, port: int) -> None:
    assert (curl(mac, port), browse(computer, port)) == (False, "ERR_CERT_AUTHORITY_INVALID")
    said = install(computer)
    assert "https://NAME.d4m.internal is trusted here" in said
    assert (curl(mac, port), browse(computer, port)) == (True, "fine")
    assert set(states(computer).values()) == {"right"}
    assert host(computer, "remove", "--yes").returncode == 0
    assert (curl(mac, port), browse(computer, port)) == (False, "ERR_CERT_AUTHORITY_INVALID")


def test_stores_list_afterwards_what_they_listed_before(computer: Computer) -> None:
    make_firefox(computer)
    before = listings(computer)
    install(computer)
    assert f"{OURS}  " in nss_lists(computer, firefox(computer))
    assert OURS in nss_lists(computer, computer.home / ".pki/nssdb")
    if (computer.mac.run("test", "-e", JAVA_HOOK, check=False)).returncode == 0:
        assert "debian:d4m-devkit.pem" in java_lists(computer.mac)
    assert host(computer, "remove", "--yes").returncode == 0
    after = listings(computer)
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == set()
    again = host(computer, "remove", "--yes")
    assert (again.returncode, again.stdout) == (0, "")


def test_installing_twice_writes_once(computer: Computer) -> None:
    make_firefox(computer)
    install(computer)
    listing = ("find", "/etc/ssl", "/usr/local/share/ca-certificates", computer.home, "-printf", "%p %i %T@ %C@\n")
    before = computer.mac.run(*listing).stdout
    again = host(computer, "install", "--yes", "--profile", computer.mac.home / "root.ovpn")
    assert (again.returncode, again.stdout) == (0, "")
    assert computer.mac.run(*listing).stdout == before


def test_database_of_ours_stays_with_what_others_put_in(computer: Computer) -> None:
    install(computer)
    database = computer.home / ".pki/nssdb"
    theirs = computer.mac.home / "next.crt"
    computer.mac.run("certutil", "-d", f"sql:{database}", "-A", "-t", "C,,", "-n", "theirs", "-i", theirs)
    assert host(computer, "remove", "--yes").returncode == 0
    listed = nss_lists(computer, database)
    assert "theirs" in listed
    assert OURS not in listed


def test_replaced_root_is_stale_until_it_is_installed(
    computer: Computer, mac: Mac, port: int, servers: Servers
) -> None:
    make_firefox(computer)
    install(computer)
    assert set(states(computer, "next").values()) == {"stale", "missing"}
    assert host(computer, "status", "--profile", mac.home / "next.ovpn").returncode == 3
    install(computer, "next")
    assert set(states(computer, "next").values()) == {"right"}
    assert (curl(mac, port), browse(computer, port)) == (False, "ERR_CERT_AUTHORITY_INVALID")
    leaf = x509.issue(intermediate(next_authority()), x509.SERVER, [WEB], "ecdsa-p256", 1, NOW)
    new = servers.start(leaf, next_authority())
    assert (curl(mac, new), browse(computer, new)) == (True, "fine")
    assert nss_lists(computer, firefox(computer)).count(OURS) == 1
    by_hash = ["openssl", "verify", "-CApath", "/etc/ssl/certs", "-no-CAfile", "-no-CAstore"]
    mac.run(*by_hash, "-untrusted", mac.home / f"{new}/chain.pem", mac.home / f"{new}/chain.pem")
    if shutil.which("keytool"):
        exported = mac.run("keytool", "-exportcert", "-rfc", "-cacerts", "-storepass", "changeit", "-alias",
                           "debian:d4m-devkit.pem").stdout  # fmt: skip
        assert next_authority().root.certificate_pem.decode().strip() in exported.replace("\r", "")


def test_databases_of_who_called_sudo_stay_theirs(computer: Computer) -> None:
    mac = computer.mac
    mac.run(
        "sh", "-c", "echo 'alice:x:1500:1500::/home/alice:/bin/sh' >> /etc/passwd; echo 'alice:x:1500:' >> /etc/group"
    )
    mac.run("install", "-d", "-o", "alice", "-g", "alice", "/home/alice")
    mac.run("runuser", "-u", "alice", "--", "mkdir", "-p", "/home/alice/.mozilla/firefox/x")
    mac.run("runuser", "-u", "alice", "--", "certutil", "-d", "sql:/home/alice/.mozilla/firefox/x", "-N",
            "--empty-password")  # fmt: skip
    before = mac.run("find", "/home/alice", "-printf", "%p %u\n").stdout
    install(computer, SUDO_USER="alice")
    assert ".pki" not in mac.run("ls", "-A", computer.home).stdout
    for database in (".mozilla/firefox/x", ".pki/nssdb"):
        assert OURS in mac.run("certutil", "-d", f"sql:/home/alice/{database}", "-L").stdout
    assert mac.run("find", "/home/alice", "!", "-user", "alice").stdout == ""
    assert host(computer, "remove", "--yes", SUDO_USER="alice").returncode == 0
    assert mac.run("find", "/home/alice", "-printf", "%p %u\n").stdout == before


def test_without_the_databases_tool_the_rest_is_done_and_the_tool_is_named(
    computer: Computer, mac: Mac, port: int
) -> None:
    tool = shutil.which("certutil")
    assert tool
    with without(mac, tool):
        said = install(computer)
        assert len([line for line in said.splitlines() if "`sudo apt install libnss3-tools`" in line]) == 1
        assert curl(mac, port)
    make_firefox(computer)
    with without(mac, tool):
        run = host(computer, "install", "--yes", "--profile", mac.home / "root.ovpn")
        assert (run.returncode, states(computer)[str(firefox(computer))]) == (3, "missing")
    install(computer)
    with without(mac, tool):
        run = host(computer, "remove", "--yes")
        assert run.returncode == 3
        assert f"{firefox(computer)} has a CA of ours still" in run.stderr
        assert not curl(mac, port)


def test_database_that_its_user_has_locked_is_named_and_the_others_are_set(
    computer: Computer, mac: Mac, port: int
) -> None:
    locked = make_firefox(computer)
    (mac.home / "none").write_text("\n")
    (mac.home / "password").write_text("secret of hers\n")
    mac.run("certutil", "-d", f"sql:{locked}", "-W", "-f", mac.home / "none", "-@", mac.home / "password")
    before = nss_lists(computer, locked)
    run = mac.run(
        "setsid", "--wait", "env", f"HOME={computer.home}", sys.executable, HOST,
        "install", "--yes", "--profile", mac.home / "root.ovpn", check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert f"`certutil -d sql:{locked} -A" in run.stderr
    assert (curl(mac, port), browse(computer, port)) == (True, "fine")
    assert states(computer)[str(locked)] == "stale"
    assert host(computer, "remove", "--yes").returncode == 0
    assert nss_lists(computer, locked) == before


def test_trust_is_installed_without_systemd_resolved_and_names_are_said_to_be_missing(
    computer: Computer, mac: Mac, port: int
) -> None:
    with without(mac, str(mac.home / "bin/resolvectl")):
        run = host(computer, "install", "--yes", "--profile", mac.home / "root.ovpn")
    assert run.returncode == 3
    assert "systemd-resolved, which does not run here" in run.stderr
    assert curl(mac, port)


FETCH = """
import javax.net.ssl.*;
class Fetch {
    public static void main(String[] a) throws Exception {
        var connection = (HttpsURLConnection) new java.net.URL(a[0]).openConnection();
        System.out.println(connection.getResponseCode());
    }
}
"""


@pytest.mark.skipif(not shutil.which("javac") or not shutil.which("node"), reason="Node or Java is not installed")
def test_node_and_java_trust_it_once_the_hints_are_pasted(computer: Computer, mac: Mac, port: int) -> None:
    # As one of the user's own would be: Debian's takes what the bundle has.
    hook = mac.run("cat", JAVA_HOOK, check=False).stdout
    mac.run("rm", "-f", JAVA_HOOK)
    cacerts = mac.run("sha256sum", "/etc/ssl/certs/java/cacerts").stdout
    (mac.home / "Fetch.java").write_text(FETCH)
    url = f"https://{WEB}:{port}/"
    node = f"node -e \"require('https').get('{url}', r => process.exit(r.statusCode == 200 ? 0 : 1))\""
    java = f"java {mac.home}/Fetch.java {url}"
    unset = f"unset {' '.join(CA_VARIABLES)}"

    def trusted(program: str, hint: str = "") -> bool:
        return mac.run("bash", "-c", f"{unset}\n{hint}\n{program}", check=False).returncode == 0

    hints = [line.strip() for line in install(computer).splitlines() if line.startswith("    ")]
    assert not trusted(node)
    assert not trusted(java)
    (for_node,) = (line for line in hints if "NODE_EXTRA_CA_CERTS" in line)
    (for_java,) = (line for line in hints if "keytool" in line)
    mac.run("cp", "--archive", "/etc/ssl/certs/java/cacerts", mac.home / "cacerts")
    assert trusted(node, for_node)
    assert trusted(java, for_java)
    mac.run("cp", "--archive", mac.home / "cacerts", "/etc/ssl/certs/java/cacerts")
    if hook:
        (mac.home / "hook").write_text(hook)
        mac.run("install", "-m", "755", mac.home / "hook", JAVA_HOOK)
    assert mac.run("sha256sum", "/etc/ssl/certs/java/cacerts").stdout == cacerts


# ------------------------------------------------------------------------------ what a stolen intermediate is good for


def stolen(common_name: str, *names: GeneralName) -> Credential:
    """A certificate that whoever has the intermediate's key could make."""
    made = x509.issue(intermediate(), x509.SERVER, [common_name], "ecdsa-p256", 1, NOW)
    subject = Name([NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = Builder(
        issuer_name=intermediate().certificate.subject, subject_name=subject, public_key=made.key.public_key(),
        serial_number=made.serial_number, not_valid_before=NOW - timedelta(minutes=5),
        not_valid_after=NOW + timedelta(days=1),
        extensions=[extension for extension in made.certificate.extensions
                    if not isinstance(extension.value, SubjectAlternativeName)],
    )  # fmt: skip
    if names:
        builder = builder.add_extension(SubjectAlternativeName(names), critical=False)
    key = intermediate().key
    return Credential(builder.sign(key, SHA256()), made.key)


STOLEN = {
    "a.b.c.d4m.internal": stolen("a.b.c.d4m.internal", DNSName("a.b.c.d4m.internal")),
    "example.com": stolen("example.com", DNSName("example.com")),
    "xd4m.internal": stolen("xd4m.internal", DNSName("xd4m.internal")),
    "127.0.0.1": stolen("x.d4m.internal", IPAddress(ip_address("127.0.0.1"))),
    "cn.example.com": stolen("cn.example.com"),
}


@pytest.fixture(scope="module")
def thief(servers: Servers) -> Mapping[str, int]:
    """Where a thief serves each of these names."""
    return {name: servers.start(leaf, authority()) for name, leaf in STOLEN.items()}


def openssl(mac: Mac, name: str, port: int) -> str:
    kind = "-verify_ip" if name[0].isdigit() else "-verify_hostname"
    connect = ("-connect", f"127.0.0.1:{port}", "-servername", name, "-CAfile", mac.home / "root.crt")
    run = mac.run("openssl", "s_client", "-verify_return_error", kind, name, *connect, check=False)
    return "fine" if run.returncode == 0 else run.stderr


def go(mac: Mac, name: str, port: int) -> str:
    _, kubectl = helm_and_kubectl(4)
    ca = f"--certificate-authority={mac.home / 'root.crt'}"
    server = [f"--server=https://127.0.0.1:{port}", f"--tls-server-name={name}"]
    run = mac.run("env", "KUBECONFIG=/none", kubectl, "--token=x", ca, *server, "get", "--raw", "/", check=False)
    return "fine" if "<title>fine" in run.stdout else run.stderr


def test_everybody_takes_a_name_in_the_domain_however_deep(
    computer: Computer, mac: Mac, thief: Mapping[str, int]
) -> None:
    install(computer)
    name = "a.b.c.d4m.internal"
    found = [openssl(mac, name, thief[name]), go(mac, name, thief[name]), browse(computer, thief[name], name)]
    assert found == ["fine"] * 3


# A common name is no name for these.
EXPECTED_OF_GO = {"127.0.0.1": "is excluded by constraint", "cn.example.com": "relies on legacy Common Name field"}
EXPECTED_OF_CHROMIUM = {"cn.example.com": "ERR_CERT_COMMON_NAME_INVALID"}


@pytest.mark.parametrize("name", [*STOLEN][1:])
def test_nobody_takes_another_name_from_a_thief_of_the_intermediate(
    computer: Computer, mac: Mac, thief: Mapping[str, int], name: str
) -> None:
    install(computer)
    assert re.search("(permitted|excluded) subtree violation", openssl(mac, name, thief[name]))
    assert re.search(EXPECTED_OF_GO.get(name, "is not permitted by any constraint"), go(mac, name, thief[name]))
    assert browse(computer, thief[name], name) == EXPECTED_OF_CHROMIUM.get(name, "ERR_CERT_INVALID")
