"""Whom this computer's resolver asks for names: the VPN's name server for those behind it, and nobody else for them."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address

from devkit.computer import linux, macos, windows
from devkit.computer.files import Places, install_files, remove_files
from devkit.computer.model import Command, Computer, Step
from devkit.errors import UserError

# At least two labels: what a profile may send into the tunnel is a domain of somebody's, not all of `com`.
DOMAIN = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

REMOVE = "Leave this computer's names as they were"
FILES: dict[str, Places] = {"macOS": macos.PLACES, "Linux": linux.PLACES}


def install(computer: Computer, address: IPv4Address, domains: Sequence[str]) -> Step:
    """What makes this computer ask `address` for all names in these domains, and for no others.

    Raises UserError when it cannot, or when something that is not ours is in the way.
    """
    for domain in domains:
        if not DOMAIN.fullmatch(domain):
            raise UserError(f"the profile sends names in {domain!r} to the VPN, which is no domain: ask who made it.")
    title = f"Ask {address} for names in {some_of(domains)}, and for no others"
    if computer.system == "Windows":
        return windows.install(computer, title, address, domains)
    return install_files(computer, title, FILES[computer.system], address, domains)


def remove(computer: Computer) -> Step:
    """What takes away all that is ours, and nothing else."""
    if computer.system == "Windows":
        return windows.remove(computer, REMOVE)
    return remove_files(computer, REMOVE, FILES[computer.system])


def query(computer: Computer, domains: Sequence[str]) -> Command:
    """What asks this computer's own resolver, as programs do, and fails when the VPN's server did not answer."""
    name = name_that_resolves(domains)
    match computer.system:
        case "macOS":
            return macos.query(name)
        case "Windows":
            return windows.query(name)
    return linux.query(name)


def name_that_resolves(domains: Sequence[str]) -> str:
    """A name that the VPN's name server has an address for, whatever runs: its own, or Kubernetes'."""
    return "kubernetes.default.svc.cluster.local" if domains[0] == "cluster.local" else domains[0]


def some_of(domains: Sequence[str]) -> str:
    """The domains in a few words: those of names, and how many zones of addresses there are."""
    names = [domain for domain in domains if not domain.endswith(".arpa")]
    zones = len(domains) - len(names)
    return ", ".join([*names, f"{zones} zone{'s' if zones > 1 else ''} of addresses"] if zones else names)
