"""Whom this computer's resolver asks for names: the VPN's name server for those behind it, and nobody else for them."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from devkit.addresses import contained
from devkit.computer import linux, macos, windows
from devkit.computer.files import Places, install_files, remove_files
from devkit.computer.model import Command, Computer, Step
from devkit.errors import UserError

# At least two labels: what a profile may send into the tunnel is a domain of somebody's, not all of `com`.
DOMAIN = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

# The reverse zones of so many addresses that most are somebody else's: only 10.0.0.0/8 is private as a whole. And
# those of IPv6, which the VPN does not carry.
WIDE_ZONE = re.compile(r"(?!10\.)([0-9]+\.)?in-addr\.arpa|(.*\.)?ip6\.arpa")
# What is not private is somebody else's, and what is of these goes nowhere (RFC 1122, 3.2.1.3; RFC 1112, 4).
NOBODYS = (IPv4Network("0.0.0.0/8"), IPv4Network("240.0.0.0/4"))

REMOVE = "Leave this computer's names as they were"
FILES: dict[str, Places] = {"macOS": macos.PLACES, "Linux": linux.PLACES}
WANTED = {"macOS": macos.wanted, "Linux": linux.wanted}


def install(computer: Computer, address: IPv4Address, domains: Sequence[str]) -> Step:
    """What makes this computer ask `address` for all names in these domains, and for no others.

    Raises UserError when it cannot, or when something that is not ours is in the way.
    """
    refuse(address, domains)
    title = f"Ask {address} for names in {some_of(domains)}, and for no others"
    if computer.system == "Windows":
        return windows.install(computer, title, address, domains)
    wanted = WANTED[computer.system](computer, address, domains)
    return install_files(computer, title, FILES[computer.system], wanted)


def refuse(address: IPv4Address, domains: Sequence[str]) -> None:
    """Raise UserError when what a profile says of names is nothing that a VPN of ours says."""
    if address.is_global or address.is_loopback or address.is_link_local or contained(address, NOBODYS):
        raise UserError(f"the profile sends names to {address}, which is no address within a VPN: ask who made it.")
    for domain in domains:
        if not DOMAIN.fullmatch(domain) or WIDE_ZONE.fullmatch(domain):
            raise UserError(f"the profile sends names in {domain!r} to the VPN, which is no domain: ask who made it.")


def remove(computer: Computer) -> Step:
    """What takes away all that is ours, and nothing else."""
    if computer.system == "Windows":
        return windows.remove(computer, REMOVE)
    return remove_files(computer, REMOVE, FILES[computer.system])


def query(computer: Computer, name: str) -> Command:
    """What asks this computer's own resolver, as programs do, and fails when the VPN's server did not answer."""
    match computer.system:
        case "macOS":
            return macos.query(name)
        case "Windows":
            return windows.query(name)
    return linux.query(name)


def names_that_resolve(domains: Sequence[str]) -> Sequence[str]:
    """Names of which one has an address, whatever runs: the domain itself on an engine, Kubernetes' in a cluster."""
    cluster = ["kubernetes.default.svc.cluster.local"] if "cluster.local" in domains else []
    return [*(domain for domain in domains[:1] if domain != "cluster.local"), *cluster]


def some_of(domains: Sequence[str]) -> str:
    """The domains in a few words: those of names, and how many zones of addresses there are."""
    names = [domain for domain in domains if not domain.endswith(".arpa")]
    zones = len(domains) - len(names)
    return ", ".join([*names, f"{zones} zone{'s' if zones > 1 else ''} of addresses"] if zones else names)
