"""Linux with systemd-resolved, which is told of domains by network interface, and forgets them with it.

So udev starts a unit for each interface of a VPN that comes; if that leads to our name server, the unit tells
systemd-resolved of it, and ends. Other ways were tried: a setting for all interfaces sends every name to the VPN. A
"delegate" (systemd 258) works, but a name that was asked for while the VPN was off is not found for up to two minutes
after it has connected, because systemd-resolved keeps sending from the address that it had before.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address

from devkit.computer.files import Places
from devkit.computer.model import Command, Computer
from devkit.errors import UserError

RESOLVED = "systemd-resolved.service"
OLDEST = 243  # ExecCondition=
UNIT = "/etc/systemd/system/d4m-devkit-names@.service"
RULE = "/etc/udev/rules.d/90-d4m-devkit-names.rules"

UNIT_TEXT = """\
[Unit]
Description=Names behind {address} by %i
BindsTo=sys-subsystem-net-devices-%i.device
After=sys-subsystem-net-devices-%i.device systemd-resolved.service

[Service]
Type=oneshot
RemainAfterExit=yes
# Only if it leads to the name server from an address beside it, once it has one: another VPN has none.
ExecCondition=/bin/sh -c "for try in $$(seq 150); do \\
  ip -4 route get {address} | grep -q ' dev %i src {network}[.]' && exit; sleep 0.2; done; exit 1"
# The server last, or it would be asked for every name meanwhile.
ExecStart=resolvectl default-route %i no
ExecStart=resolvectl domain %i {domains}
ExecStart=resolvectl dns %i {address}
ExecStop=-resolvectl revert %i
"""
RULE_TEXT = (
    'ACTION=="add", SUBSYSTEM=="net", KERNEL=="tun[0-9]*|wg[0-9]*", TAG+="systemd", '
    'ENV{SYSTEMD_WANTS}+="d4m-devkit-names@$name.service"\n'
)


def wanted(computer: Computer, address: IPv4Address, domains: Sequence[str]) -> Mapping[str, str]:
    """What is to be in which file. Raises UserError when this computer cannot do it."""
    _refuse_without_resolved(computer, address, domains)
    network = str(address).rpartition(".")[0].replace(".", "[.]")
    routing = " ".join(f"~{domain}" for domain in domains)  # without ~ they would complete short names, too
    return {UNIT: UNIT_TEXT.format(address=address, network=network, domains=routing), RULE: RULE_TEXT}


def _refuse_without_resolved(computer: Computer, address: IPv4Address, domains: Sequence[str]) -> None:
    names = "/".join(domain for domain in domains if not domain.endswith(".arpa"))
    by_hand = f"where dnsmasq answers this computer's programs, give it `server=/{names}/{address}`"
    version = computer.resolved
    if version is None or version < OLDEST:
        found = "does not run here" if version is None else f"is version {version} here"
        raise UserError(
            "what sends some names to the VPN, and no others, is systemd-resolved, which "
            f"{found}: install and start one from version {OLDEST} on; or, {by_hand}."
        )
    if not computer.through_resolved:
        raise UserError(
            "this computer's programs do not ask systemd-resolved, which runs, because /etc/resolv.conf names another "
            "server: lead it there with `sudo ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf`; "
            f"or, {by_hand}."
        )


def _load(computer: Computer) -> tuple[Command, ...]:
    now = f"d4m-devkit-names@{computer.tunnel}.service"  # what is connected already; else the rule starts it
    return (
        Command(("systemctl", "daemon-reload")),
        Command(("udevadm", "control", "--reload")),
        *([Command(("systemctl", "restart", now))] if computer.tunnel else []),
    )


PLACES = Places(
    folders=tuple(path.rpartition("/")[0] for path in (UNIT, RULE)),
    is_ours=lambda path: path in (UNIT, RULE),
    load=_load,
    unload=(Command(("systemctl", "stop", "d4m-devkit-names@*.service")),),
)


def query(name: str) -> Command:
    """Ask systemd-resolved, and nothing but a name server by it."""
    return Command(("resolvectl", "query", "--legend=no", "--protocol=dns", name))
