"""Windows: rules in its name resolution policy table (NRPT), which bear our comment."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

from devkit.computer.model import Command, Computer, NameRule, Setting, State, Step

COMMENT = "d4m-devkit"
MOST_NAMESPACES = 50  # of one rule
OURS = f"Get-DnsClientNrptRule | Where-Object Comment -eq '{COMMENT}'"
# One line for each rule: its servers, then its namespaces.
LISTING = f"{OURS} | ForEach-Object {{ \"$($_.NameServers -join ',') $($_.Namespace -join ',')\" }}"
REMOVAL = f"{OURS} | Remove-DnsClientNrptRule -Force"
FORGET = "Clear-DnsClientCache"  # what was asked before


def install(computer: Computer, title: str, address: IPv4Address, domains: Sequence[str]) -> Step:
    """Add our rules where others, or none, are ours."""
    namespaces = [f".{domain}" for domain in domains]  # the domain itself, and all in it
    parts = [namespaces[start : start + MOST_NAMESPACES] for start in range(0, len(namespaces), MOST_NAMESPACES)]
    wanted = {NameRule(frozenset([str(address)]), frozenset(part)) for part in parts}
    undo = (powershell(f"{REMOVAL}; {FORGET}"),)
    if wanted == computer.rules:
        return Step(title, _settings(wanted, "right"), (), undo=undo)
    additions = (
        f"Add-DnsClientNrptRule -Namespace {_quoted(part)} -NameServers {_quoted([str(address)])} -Comment '{COMMENT}'"
        for part in parts
    )
    settings = (*_settings(wanted - computer.rules, "missing"), *_settings(computer.rules - wanted, "stale"))
    first = [REMOVAL] if computer.rules else []
    return Step(title, settings, tuple(powershell(text) for text in (*first, *additions, FORGET)), undo=undo)


def remove(computer: Computer, title: str) -> Step:
    """Remove the rules that bear our comment."""
    settings = _settings(computer.rules, "stale")
    return Step(title, settings, (powershell(f"{REMOVAL}; {FORGET}"),) if settings else ())


def parse_rules(listing: str) -> frozenset[NameRule]:
    """The rules that `LISTING` prints."""
    lines = (line.split(" ", 1) for line in listing.splitlines() if " " in line)
    return frozenset(NameRule(frozenset(servers.split(",")), frozenset(names.split(","))) for servers, names in lines)


def query(name: str) -> Command:
    """Ask as programs do, which `nslookup` does not."""
    return powershell(f"Resolve-DnsName -Name {name} -Type A -ErrorAction Stop")


def powershell(script: str) -> Command:
    """A command of PowerShell's."""
    return Command(("powershell", "-NoProfile", "-NonInteractive", "-Command", script))


def _quoted(texts: Iterable[str]) -> str:
    return ",".join(f"'{text}'" for text in texts)


def _settings(rules: Iterable[NameRule], state: State) -> tuple[Setting, ...]:
    names = sorted(", ".join(sorted(rule.namespaces)) for rule in rules)
    return tuple(Setting(f"NRPT rule for {name}", state) for name in names)
