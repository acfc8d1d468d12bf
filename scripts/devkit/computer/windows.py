"""Windows: rules in its name resolution policy table (NRPT), which bear our comment; and the computer's root CAs.

The computer's, not the user's: as the rules do, they hold for whoever uses it, and only a dialog adds to the user's.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

from devkit.computer.model import Command, Computer, NameRule, Root, Setting, State, Step, fingerprint
from devkit.keys.https import NAME

COMMENT = "d4m-devkit"
MOST_NAMESPACES = 50  # of one rule
OURS = f"Get-DnsClientNrptRule | Where-Object Comment -eq '{COMMENT}'"
# One line for each rule: its servers, then its namespaces.
LISTING = f"{OURS} | ForEach-Object {{ \"$($_.NameServers -join ',') $($_.Namespace -join ',')\" }}"
REMOVAL = f"{OURS} | Remove-DnsClientNrptRule -Force"
FORGET = "Clear-DnsClientCache"  # what was asked before
STORE = "Cert:\\LocalMachine\\Root"
# Each of ours as PEM.
CERTIFICATES = (
    f"Get-ChildItem {STORE} | Where-Object Subject -like 'CN={NAME} *' | ForEach-Object {{ "
    "'-----BEGIN CERTIFICATE-----'; [Convert]::ToBase64String($_.RawData, 'InsertLineBreaks'); "
    "'-----END CERTIFICATE-----' }"
)


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


def trust(computer: Computer, title: str, root: Root) -> Step:
    """Add the root to the computer's, and remove others of ours."""
    others = [pem for pem in computer.roots if pem != root.pem]
    right = root.pem in computer.roots
    settings = (
        Setting(f"{root.name} in {STORE}", "right" if right else "missing"),
        *(Setting(_what(pem), "stale") for pem in others),
    )
    lines = _quoted(root.pem.splitlines())
    add = powershell(
        f"$file = New-TemporaryFile; Set-Content $file {lines}; certutil -f -addstore Root $file; "
        "$code = $LASTEXITCODE; Remove-Item $file; exit $code"
    )
    return Step(title, settings, (*_deletions(others), *([] if right else [add])), undo=_deletions([root.pem]))


def distrust(computer: Computer, title: str) -> Step:
    """Remove ours."""
    return Step(title, tuple(Setting(_what(pem), "stale") for pem in computer.roots), _deletions(computer.roots))


def export(root: Root, path: str) -> str:
    """A line that writes the root to a file."""
    return (
        f"$ca = (Get-Item {STORE}\\{fingerprint(root.pem)}).RawData; '-----BEGIN CERTIFICATE-----', "
        "[Convert]::ToBase64String($ca, 'InsertLineBreaks'), '-----END CERTIFICATE-----' "
        f"| Set-Content -Encoding ascii {path}"
    )


def _deletions(roots: Iterable[str]) -> tuple[Command, ...]:
    return tuple(Command(("certutil", "-delstore", "Root", fingerprint(pem))) for pem in roots)


def _what(pem: str) -> str:
    return f"{fingerprint(pem)} in {STORE}"


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
