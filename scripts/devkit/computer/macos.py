"""macOS: a file in /etc/resolver for each domain, which the system notices by itself; and the System keychain."""

import shlex
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from devkit.computer.files import Places
from devkit.computer.model import Command, Computer, Root, Setting, Step, fingerprint
from devkit.keys.https import NAME

FOLDER = "/etc/resolver"
KEYCHAIN = "/Library/Keychains/System.keychain"
CERTIFICATES = ("security", "find-certificate", "-a", "-c", NAME, "-p", KEYCHAIN)
TRUST_SETTINGS = ("security", "dump-trust-settings", "-d")  # the names of those that are trusted, among other things


def wanted(_: Computer, address: IPv4Address, domains: Sequence[str]) -> Mapping[str, str]:
    """What is to be in which file."""
    return {f"{FOLDER}/{domain}": f"nameserver {address}\n" for domain in domains}


PLACES = Places(
    folders=(FOLDER,),
    is_ours=lambda path: path.startswith(f"{FOLDER}/"),
    load=lambda _: (),
)


def query(name: str) -> Command:
    """Ask as programs do, which `dig` and `nslookup` do not; it succeeds even with nothing to print."""
    return Command(("sh", "-c", f"dscacheutil -q host -a name {name} | grep ip_address"))


def trust(computer: Computer, title: str, root: Root) -> Step:
    """Add the root to the keychain of all users, trusted for TLS servers, and remove others of ours."""
    others = {pem: trusted for pem, trusted in computer.roots.items() if pem != root.pem}
    missing = root.pem not in computer.roots
    right = computer.roots.get(root.pem, False)
    settings = (
        Setting(f"{root.name} in {KEYCHAIN}", "right" if right else "missing" if missing else "stale"),
        *(Setting(_what(pem), "stale") for pem in others),
    )
    add = _with_file(f"security add-trusted-cert -d -r trustRoot -p ssl -k {KEYCHAIN}", root.pem)
    return Step(title, settings, (*_distrust(others), *([] if right else [add])), undo=_distrust({root.pem: True}))


def distrust(computer: Computer, title: str) -> Step:
    """Remove ours, and that they are trusted."""
    return Step(title, tuple(Setting(_what(pem), "stale") for pem in computer.roots), _distrust(computer.roots))


def export(root: Root, path: str) -> str:
    """A line that writes the root to a file."""
    return f"security find-certificate -c {shlex.quote(root.name)} -p {KEYCHAIN} > {path}"


def _distrust(roots: Mapping[str, bool]) -> tuple[Command, ...]:
    return tuple(
        command
        for pem, trusted in roots.items()
        for command in (
            *([_with_file("security remove-trusted-cert -d", pem)] if trusted else []),
            Command(("security", "delete-certificate", "-Z", fingerprint(pem), KEYCHAIN)),
        )
    )


def _with_file(command: str, pem: str) -> Command:
    """A command that wants a file with a certificate."""
    script = f'file=$(mktemp) && cat > "$file" && {command} "$file"; code=$?; rm -f "$file"; exit $code'
    return Command(("sh", "-c", script), pem)


def _what(pem: str) -> str:
    return f"{fingerprint(pem)} in {KEYCHAIN}"
