"""macOS: a file in /etc/resolver for each domain, which the system notices by itself."""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from devkit.computer.files import Places
from devkit.computer.model import Command, Computer

FOLDER = "/etc/resolver"


def _wanted(_: Computer, address: IPv4Address, domains: Sequence[str]) -> Mapping[str, str]:
    return {f"{FOLDER}/{domain}": f"nameserver {address}\n" for domain in domains}


PLACES = Places(
    folders=(FOLDER,),
    wanted=_wanted,
    is_ours=lambda path: path.startswith(f"{FOLDER}/"),
    load=lambda _: (),
)


def query(name: str) -> Command:
    """Ask as programs do, which `dig` and `nslookup` do not; it succeeds even with nothing to print."""
    return Command(("sh", "-c", f"dscacheutil -q host -a name {name} | grep ip_address"))
