"""Names behind a real VPN, without an engine: the project's own server runs in the lab's office.

What answers names there is a stand-in, and so is the page behind it.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.docker_desktop import Mac
from tests.docker_desktop.computer import OFFICE, Computer, NameServer

NAME_SERVER = "10.213.94.1"
DOMAINS = ("d4m.internal", "cluster.local", "16.172.in-addr.arpa", "17.172.in-addr.arpa")
PAGE = "172.17.0.2"
NAMES = (
    f"web.d4m.internal={PAGE}", f"d4m.internal={NAME_SERVER}", f".d4m.internal={PAGE}",
    f"kubernetes.default.svc.cluster.local={PAGE}",
)  # fmt: skip
REMOTE = {"vpn_host": OFFICE}  # the answer that leads a profile there


@dataclass
class Behind:
    """What a client of the VPN has: a profile, and the name server behind it."""

    profile: Path
    names: NameServer


def with_names(profile: str, domains: tuple[str, ...] = DOMAINS) -> str:
    """A profile that says who answers names, in these domains instead of its own."""
    resolved = "".join(f"dns server 0 resolve-domains {domain}\n" for domain in domains)
    others = "".join(line for line in profile.splitlines(keepends=True) if not line.startswith("dns server 0 "))
    return f"dns server 0 address {NAME_SERVER}\n{resolved}{others}"


def serve(mac: Mac, computer: Computer, project: Path) -> Behind:
    """Start the server of a project, made with REMOTE, in the office, and put a profile on the Mac."""
    office, configs = computer.office, project / "local/configs"
    conf = project / "server/server.conf"
    office.start(
        "openvpn", "--cd", configs, "--config", conf, "--port", "1194", until="Initialization Sequence Completed"
    )
    office.run("ip", "address", "add", f"{PAGE}/32", "dev", "lo")
    page = mac.home / "page"
    page.mkdir()
    (page / "index.html").write_text("<title>Behind the VPN</title>")
    office.start(sys.executable, "-u", "-m", "http.server", "--bind", PAGE, "--directory", page, "80", until="Serving")
    profile = mac.home / "alice.ovpn"
    profile.write_text(with_names((project / "local/docker-for-mac.ovpn").read_text()))
    return Behind(profile, office.serve_names(NAME_SERVER, NAMES))
