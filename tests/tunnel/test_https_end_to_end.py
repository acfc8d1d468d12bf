"""`https://NAME.d4m.internal` through the tunnel: a certificate for it, and the container's own port behind it."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docker_desktop import WEB_IMAGE, Engine, Mac
from tests.docker_desktop.computer import resolver
from tests.vpn import connected, eventually, place, up

DNS = "10.213.94.1"
OURS = "d4m-devkit-"
SECONDS = 10
APPLICATION = Path(__file__).parent / "application.py"


@pytest.fixture(scope="module")
def devkit(mac: Mac, pristine: Path) -> Iterator[Path]:
    """A project that is up, and a client that is connected."""
    project = place(pristine, mac)
    up(mac, project)
    shutil.copy(APPLICATION, mac.home)
    with connected(mac, project / "local/docker-for-mac.ovpn"):
        yield project


@pytest.fixture(autouse=True)
def nothing_else_runs(mac: Mac, devkit: Path) -> Iterator[None]:
    yield
    names = mac.run("docker", "ps", "--all", "--format", "{{.Names}}").stdout.split()
    if others := [name for name in names if not name.startswith(OURS)]:
        mac.run("docker", "rm", "--force", *others)
    mac.run("docker", "network", "prune", "--force")


def run(mac: Mac, name: str, *options: str, image: str = WEB_IMAGE, command: tuple[str, ...] = ()) -> str:
    """Start a container; return its address."""
    mac.run("docker", "run", "--detach", "--name", name, *options, image, *command)
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    return mac.run("docker", "inspect", "--format", template, name).stdout.split()[0]


def run_application(mac: Mac, name: str, port: int, *options: str) -> str:
    """Start what listens at this port, by a command that its image does not tell of."""
    mount = f"--volume={mac.home}/{APPLICATION.name}:/{APPLICATION.name}:ro"
    command = ("python3", f"/{APPLICATION.name}", str(port))
    return run(mac, name, mount, *options, image="d4m-devkit-proxy", command=command)


def curl(mac: Mac, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Fetch as a computer does that has the names and trusts the root, and nothing else."""
    host = url.split("/")[2].partition(":")[0]
    found = mac.run("dig", "+short", f"@{DNS}", host).stdout.split()
    resolve = [word for port in (80, 443) if found for word in ("--resolve", f"{host}:{port}:{found[0]}")]
    root = mac.home / "devkit/local/https/root.crt"
    command = ["curl", "--silent", "--show-error", "--max-time", "60", "--cacert", str(root), *resolve]
    return mac.run(*command, *options, url, check=False)


def status(mac: Mac, url: str, *options: str) -> str:
    """The status code, or why there is none."""
    run = curl(mac, url, "--output", "/dev/null", "--write-out", "%{http_code}", "--max-time", "5", *options)
    return run.stderr if run.returncode else run.stdout


def soon(mac: Mac, url: str, expected: str = "200", seconds: float = SECONDS) -> None:
    """Wait until a URL answers so."""
    deadline = time.monotonic() + seconds
    while (found := status(mac, url)) != expected:
        assert time.monotonic() < deadline, f"{url}: {found}"
        time.sleep(0.2)


def facts(mac: Mac) -> Any:
    """What the page shows."""
    return json.loads(curl(mac, "https://d4m.internal/state.json").stdout)


def test_every_name_opens_without_a_port(mac: Mac, devkit: Path) -> None:
    run(mac, "web")
    labels = ["--label=com.docker.compose.project=shop", "--label=com.docker.compose.service=api"]
    address = run_application(mac, "shop-api-1", 3000, "--expose=3000", *labels)
    for name in ("web", "x.y.web", "api.shop", "shop-api-1"):
        for scheme in ("https", "http"):
            soon(mac, f"{scheme}://{name}.d4m.internal")
    assert json.loads(curl(mac, "https://api.shop.d4m.internal").stdout)["host"] == "api.shop.d4m.internal"
    assert mac.run("curl", "--silent", "--show-error", f"http://{address}").stdout  # by address, too
    shown = {one["name"]: one["url"] for one in facts(mac)["containers"]}
    assert shown == {"web": "https://web.d4m.internal", "shop-api-1": "https://api.shop.d4m.internal"}


def test_port_is_what_the_label_says_or_what_is_exposed_or_found(mac: Mac) -> None:
    run_application(mac, "said", 7777, "--label=d4m.port=7777", "--expose=80")
    run_application(mac, "orbstack", 7778, "--label=dev.orbstack.http-port=7778")
    run_application(mac, "one", 7779, "--expose=7779")
    run_application(mac, "several", 8080, "--expose=8080", "--expose=22", "--expose=9999")
    run_application(mac, "found", 5000)
    run_application(mac, "own", 80)
    for name in ("said", "orbstack", "one", "several", "found", "own"):
        soon(mac, f"https://{name}.d4m.internal")


def test_container_that_has_a_web_port_itself_is_left_alone(mac: Mac) -> None:
    run(mac, "declared")
    run_application(mac, "undeclared", 80)
    run_application(mac, "none", 3000)
    for name in ("declared", "undeclared"):
        soon(mac, f"https://{name}.d4m.internal")
        soon(mac, f"http://{name}.d4m.internal")

    def through_the_proxy(name: str) -> bool:
        return "server: caddy" in curl(mac, f"http://{name}.d4m.internal", "--head").stdout.lower()

    # Once both have been found to listen.
    eventually(lambda: not through_the_proxy("declared") and not through_the_proxy("undeclared"), seconds=SECONDS)
    soon(mac, "http://none.d4m.internal")
    assert through_the_proxy("none")
    rules = mac.run("docker", "exec", f"{OURS}redirect-1", "iptables", "-t", "nat", "-S", "D4M-PROXY").stdout
    assert len(re.findall("--dport 80 ", rules)) == 2  # the page's own, and that of `none`


def test_port_that_is_exposed_and_not_served_does_not_keep_https_away(mac: Mac) -> None:
    run_application(mac, "app", 3000, "--expose=80", "--expose=443", "--label=d4m.port=3000")
    for scheme in ("https", "http"):
        soon(mac, f"{scheme}://app.d4m.internal")
        soon(mac, f"{scheme}://app.d4m.internal./")


def test_service_with_many_replicas_is_served(mac: Mac) -> None:
    labels = ["--label=com.docker.compose.project=many", "--label=com.docker.compose.service=web"]
    for number in range(50):
        run(mac, f"many-web-{number}", *labels)
    soon(mac, "https://web.many.d4m.internal", seconds=20)


def test_long_label_of_a_container_changes_nothing_for_others(mac: Mac) -> None:
    body = mac.home / "long.json"
    long = {"com.docker.compose.project": "x" * 9_000_000}
    body.write_text(json.dumps({"Image": WEB_IMAGE, "Labels": long}))
    engine = ["curl", "--silent", "--fail", "--unix-socket", mac.environment["DOCKER_HOST"].removeprefix("unix://")]
    create = ["--header", "Content-Type: application/json", "--data", f"@{body}"]
    mac.run(*engine, *create, "http://engine/containers/create?name=long")
    mac.run(*engine, "--request", "POST", "http://engine/containers/long/start")
    run(mac, "web")
    soon(mac, "https://web.d4m.internal")
    assert len(json.dumps(facts(mac))) < 10_000


def test_name_without_a_web_server_says_so(mac: Mac) -> None:
    run(mac, "db", "--expose=5432", "--entrypoint=sleep", command=("infinity",), image="debian:trixie-slim")
    soon(mac, "https://db.d4m.internal", "502")
    assert "db has no web server that is known" in curl(mac, "http://db.d4m.internal").stdout
    run(mac, "away", "--expose=3000", "--entrypoint=sleep", command=("infinity",), image="debian:trixie-slim")
    soon(mac, "http://away.d4m.internal", "502")
    assert "Nothing answers at port 3000 of away" in curl(mac, "http://away.d4m.internal").stdout
    eventually(lambda: "nothing answers at its port 3000" in json.dumps(facts(mac)), seconds=SECONDS)


def test_certificates_are_made_for_names_that_exist_and_no_others(mac: Mac) -> None:
    run(mac, "web")
    soon(mac, "https://web.d4m.internal")
    before = certificates(mac)
    for name in ("evil.example.com", "nobody.d4m.internal", "xd4m.internal", "d4m.internal.example.com", "../../etc"):
        tried = mac.run("openssl", "s_client", "-connect", f"{DNS}:443", "-servername", name, check=False)
        assert "no peer certificate available" in tried.stdout, name
    for host in ("d4m.internal", "127.0.0.1", "127.0.0.1:8081", "127.0.0.1:8082", "web.d4m.internal"):
        asked = ["curl", "--silent", "--header", f"Host: {host}", f"http://{DNS}/vouched-for?domain=a.web.d4m.internal"]
        assert mac.run(*asked, "--output", "/dev/null", "--write-out", "%{http_code}").stdout in ("404", "502"), host
    assert certificates(mac) == before
    refused = mac.run(
        "curl", "--silent", "--max-time", "5", "--resolve", f"evil.example.com:80:{DNS}", "http://evil.example.com",
    )  # fmt: skip
    assert "No container has this name" in refused.stdout


def certificates(mac: Mac) -> list[str]:
    """The certificates that the proxy has made."""
    made = mac.run("docker", "exec", f"{OURS}proxy-1", "find", "/run/caddy", "-name", "*.crt").stdout.split()
    assert any("web.d4m.internal" in path for path in made)
    return sorted(made)


def test_clients_headers_and_protocols_come_through(mac: Mac) -> None:
    run_application(mac, "app", 3000, "--expose=3000")
    soon(mac, "https://app.d4m.internal")
    seen = json.loads(curl(mac, "https://app.d4m.internal", "--header", "X-Own: kept").stdout)
    assert (seen["X-Own"], seen["X-Forwarded-Proto"], seen["Host"]) == ("kept", "https", "app.d4m.internal")
    assert seen["X-Forwarded-For"].startswith("10.213.94.")
    assert curl(mac, "https://app.d4m.internal", "--http2", "--write-out", "%{http_version}").stdout.endswith("2")
    start = time.monotonic()
    stream = curl(mac, "https://app.d4m.internal/events", "--no-buffer", "--max-time", "1").stdout
    assert stream.startswith("data: 0")  # it came before the stream had ended
    assert time.monotonic() - start < 3
    with web_socket(mac, seconds=1) as log:
        pass
    assert b"echo hello" in log.read_bytes()


HANDSHAKE = (
    "GET /echo HTTP/1.1\r\nHost: app.d4m.internal\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HELLO = bytes([0x81, 0x80 | 5, 0, 0, 0, 0]) + b"hello"  # a text frame with the mask 0 (RFC 6455, section 5.2)


@contextmanager
def web_socket(mac: Mac, seconds: int) -> Iterator[Path]:
    """Open a WebSocket to app, and say hello after so many seconds; gives the file that has the answer at last."""
    for name, content in (("handshake", HANDSHAKE.encode()), ("hello", HELLO)):
        (mac.home / name).write_bytes(content)
    (address,) = mac.run("dig", "+short", f"@{DNS}", "app.d4m.internal").stdout.split()
    connect = f"openssl s_client -quiet -connect {address}:443 -servername app.d4m.internal"
    log = mac.home / "web-socket.log"
    with log.open("w") as output:
        script_ = f"(cat handshake; sleep {seconds}; cat hello; sleep 1) | timeout {seconds + 4} {connect}"
        talking = mac.start("sh", "-c", f"cd {mac.home} && {script_}", output=output)
        yield log
        talking.wait(timeout=30)


def test_a_gigabyte_goes_up_and_down(mac: Mac) -> None:
    run_application(mac, "app", 3000, "--expose=3000")
    soon(mac, "https://app.d4m.internal")
    size = 1024 * 1024 * 1024
    down = curl(
        mac, "https://app.d4m.internal/download?megabytes=1024", "--output", "/dev/null", "--write-out",
        "%{size_download}", "--max-time", "300",
    )  # fmt: skip
    assert down.stdout == str(size), down.stderr
    big = mac.home / "big"
    with big.open("wb") as file:
        file.truncate(size)
    put = ["--upload-file", str(big), "--header", "Expect:", "--max-time", "300"]
    up_ = curl(mac, "https://app.d4m.internal/upload", *put)
    assert up_.stdout == str(size), up_.stderr


def test_open_websockets_do_not_end_because_other_containers_come_and_go(mac: Mac) -> None:
    run_application(mac, "app", 3000, "--expose=3000")
    soon(mac, "https://app.d4m.internal")
    with web_socket(mac, seconds=6) as log:
        run(mac, "other")
        soon(mac, "https://other.d4m.internal")
        mac.run("docker", "rm", "--force", "other")
    assert b"echo hello" in log.read_bytes()


# Ends when the server has ended each of them.
ASK_NOTHING = """
import socket, sys
opened = [socket.create_connection((sys.argv[1], port)) for port in (80, 443, 80)]
opened[2].send(b"GET / HTTP/1.1\\r\\n")
for one in opened:
    one.settimeout(60)
    assert one.recv(1) == b""
"""


def test_connection_that_asks_for_nothing_gives_its_place_up_and_one_that_is_in_use_does_not(mac: Mac) -> None:
    run_application(mac, "app", 3000, "--expose=3000")
    soon(mac, "https://app.d4m.internal")
    with web_socket(mac, seconds=13) as log:
        mac.run(sys.executable, "-c", ASK_NOTHING, DNS)
    assert b"echo hello" in log.read_bytes()


def test_recreated_container_is_served_again(mac: Mac) -> None:
    run_application(mac, "app", 3000, "--expose=3000")
    soon(mac, "https://app.d4m.internal")
    mac.run("docker", "rm", "--force", "app")
    run(mac, "takes-its-address")
    run_application(mac, "app", 4000, "--expose=4000")
    soon(mac, "https://app.d4m.internal")


def main_process(mac: Mac, service: str) -> str:
    return mac.run("docker", "inspect", "--format", "{{.State.Pid}}", f"{OURS}{service}-1").stdout.strip()


@pytest.mark.parametrize("service", ["proxy", "redirect", "vpn"])
def test_killed_it_is_right_again_unaided(mac: Mac, engine: Engine, service: str) -> None:
    run_application(mac, "app", 3000, "--expose=3000")
    soon(mac, "https://app.d4m.internal")
    engine.run("kill", "-9", main_process(mac, service))
    run_application(mac, "new", 3000, "--expose=3000")
    for name in ("new", "app"):
        soon(mac, f"https://{name}.d4m.internal", seconds=30 if service == "vpn" else SECONDS)


def test_proxy_goes_nowhere_that_the_routes_do_not(mac: Mac) -> None:
    mac.run("docker", "network", "create", "--subnet", "192.168.200.0/24", "away")
    address = run(mac, "web", "--network", "away")
    tried = mac.run(
        "docker", "exec", f"{OURS}proxy-1", "python3", "-c",
        f"import socket; socket.create_connection(('{address}', 80), timeout=3)", check=False,
    )  # fmt: skip
    assert "TimeoutError" in tried.stderr
    clients = mac.run("ip", "-4", "-oneline", "address", "show", "tun0").stdout.split()[3].partition("/")[0]
    with (mac.home / "listener.log").open("w") as output:
        listener = mac.start(sys.executable, "-m", "http.server", "--bind", clients, "9999", output=output)
    eventually(lambda: mac.run("curl", "--silent", f"http://{clients}:9999", check=False).returncode == 0)
    tried = mac.run(
        "docker", "exec", f"{OURS}proxy-1", "python3", "-c",
        f"import socket; socket.create_connection(('{clients}', 9999), timeout=3)", check=False,
    )  # fmt: skip
    listener.kill()
    listener.wait()
    assert "TimeoutError" in tried.stderr or "PermissionError" in tried.stderr
    assert facts(mac)["containers"][0]["places"][0]["obstacle"] == "outside the routes"
    assert facts(mac)["containers"][0]["url"] is None


HOSTILE = ["../../etc", "x" * 300, "8080\n80", "<img src=x onerror=alert(1)>", "0", "-1", "65536", "٣", "443; drop"]


def test_hostile_ports_change_nothing_but_their_own_container(mac: Mac) -> None:
    run(mac, "web")
    for number, value in enumerate(HOSTILE):
        labels = [f"--label={label}={value}" for label in ("d4m.port", "dev.orbstack.http-port", "d4m.names")]
        run(mac, f"zz-{number}", *labels, "--label=com.docker.compose.project=<script>alert(1)</script>")
    for number in range(len(HOSTILE)):
        soon(mac, f"https://zz-{number}.d4m.internal")
    soon(mac, "https://web.d4m.internal")
    projects = {one["project"] for one in facts(mac)["containers"]}
    assert projects == {None, "<script>alert(1)</script>"}


def test_page_shows_who_is_connected_and_what_expires(mac: Mac) -> None:
    shown = facts(mac)
    assert [client["name"] for client in shown["clients"]] == ["docker-for-mac"]
    assert {one["name"] for one in shown["certificates"]} >= {"CA", "server", "docker-for-mac", "HTTPS CA"}
    for path, kind in (("", "text/html"), ("page.css", "text/css"), ("page.js", "text/javascript")):
        head = curl(mac, f"https://d4m.internal/{path}", "--head").stdout
        assert kind in head
        assert "Content-Security-Policy".lower() in head.lower()
    assert status(mac, "http://d4m.internal/") == "200"


def test_each_has_the_least(mac: Mac, engine: Engine) -> None:
    expected = {"proxy": "CAP_DAC_OVERRIDE CAP_SETGID CAP_SETUID", "redirect": "CAP_NET_ADMIN CAP_NET_RAW"}
    for service, added in expected.items():
        found = mac.run(
            "docker", "inspect", "--format",
            "{{.HostConfig.CapDrop}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}} {{.HostConfig.CapAdd}}",
            f"{OURS}{service}-1",
        ).stdout  # fmt: skip
        words = found.split(maxsplit=3)
        assert words[:3] == ["[ALL]", "true", "false"]
        assert set(words[3].strip("[] \n").replace("CAP_", "").split()) == set(added.replace("CAP_", "").split())
    processes = mac.run("docker", "top", f"{OURS}proxy-1", "-eo", "pid,user,comm").stdout
    for line in processes.splitlines()[1:]:
        process, _, command = line.split(maxsplit=2)
        if command in ("docker-init", "tini"):
            continue
        status_ = engine.run("cat", f"/proc/{process}/status").stdout
        assert re.search(r"CapEff:\s0+\n", status_), line
        assert re.search(r"Uid:\s65534", status_), line
    listening = mac.run("docker", "exec", f"{OURS}proxy-1", "python3", "-c", LISTENING).stdout.split()
    assert {one for one in listening if not one.startswith("127.")} == {
        f"{DNS}:53",
        f"{DNS}:8080",
        f"{DNS}:8443",
        "0.0.0.0:1194",
    }
    held = mac.run("docker", "exec", "--user=root", f"{OURS}proxy-1", "find", "/etc/https", "-type", "f").stdout.split()
    assert {Path(path).name for path in held} == {"intermediate.crt", "intermediate.key", "expiries.json"}


LISTENING = """
import socket, struct
for line in list(open("/proc/net/tcp"))[1:]:
    local, _, state = line.split()[1:4]
    if state == "0A":
        address, port = local.split(":")
        print(socket.inet_ntoa(struct.pack("<I", int(address, 16))) + ":" + str(int(port, 16)))
"""


def test_browser_opens_names_without_a_warning_after_host_py_alone(mac: Mac, devkit: Path) -> None:
    with resolver(mac, "forky") as computer:

        def browse(url: str) -> str:
            words = ["chromium-headless-shell", "--no-sandbox", "--virtual-time-budget=5000", "--dump-dom", url]
            run_ = computer.run(*words, check=False)
            return run_.stdout + "".join(line for line in run_.stderr.splitlines() if "net::" in line)

        def host(*arguments: str) -> subprocess.CompletedProcess[str]:
            home = f"HOME={computer.home}"
            return mac.run("env", home, sys.executable, "scripts/host.py", *arguments, cwd=devkit, check=False)

        run(mac, "web")
        labels = ["--label=com.docker.compose.project=shop", "--label=com.docker.compose.service=api"]
        run_application(mac, "shop-api-1", 3000, "--expose=3000", *labels)
        soon(mac, "https://api.shop.d4m.internal")
        assert "ERR_" in browse("https://web.d4m.internal/")
        installed = host("install", "--yes")
        assert installed.returncode == 0, installed.stdout + installed.stderr
        assert "Welcome to nginx" in browse("https://web.d4m.internal/")
        assert "api.shop.d4m.internal" in browse("https://api.shop.d4m.internal/")
        page = browse("https://d4m.internal/")
        assert 'href="https://api.shop.d4m.internal' in page
        assert "docker-for-mac" in page
        assert mac.run("curl", "--silent", "--fail", "https://web.d4m.internal").returncode == 0
        assert host("remove", "--yes").returncode == 0
        assert "ERR_" in browse("https://web.d4m.internal/")


def test_renewed_intermediate_is_taken_by_up(mac: Mac, devkit: Path) -> None:
    run(mac, "web")
    soon(mac, "https://web.d4m.internal")
    before = issuer(mac)
    (devkit / "local/https/proxy/intermediate.key").unlink()  # as when it is due
    up(mac, devkit)
    soon(mac, "https://web.d4m.internal")
    assert issuer(mac) != before


def issuer(mac: Mac) -> str:
    return mac.run(
        "sh", "-c", f"openssl s_client -connect {DNS}:443 -servername d4m.internal < /dev/null 2> /dev/null"
        " | openssl x509 -noout -issuer",
    ).stdout  # fmt: skip
