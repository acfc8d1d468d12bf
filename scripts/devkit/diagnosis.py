"""What a packet meets on its way from this computer to a container, as checks, in its order. Pure, but for `examine`.

The first check that fails is the one to mend: what comes after it is not looked at, since it may fail for that alone.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from urllib.parse import urlsplit

from devkit import reachability
from devkit.addresses import address_or_none, contained
from devkit.checks import Check, check, listed, mended_by, not_checked
from devkit.errors import UserError
from devkit.facts import PAUSED, Container, Contest, Engine, Listener, Passage
from devkit.host import Interface
from devkit.names import Name
from devkit.vpn.lane import Handshake, ProfileFacts, Rejection

LATELY_SECONDS = 90
OWN_CHAINS = re.compile(r"\b(D4M|D4M-[A-Z]+)\b")
# Drops of the engine's own, which ours let packets pass by: before routing by address, and in its own chains.
ENGINES_OWN = re.compile(
    r"-A PREROUTING -d \S+ ! -i \S+ -j DROP$|-A DOCKER(?!-USER)|-P FORWARD DROP|docker-bridges|NETAVARK"
)
IPTABLES_RULE = re.compile(r"(?P<command>iptables-\w+ -t \w+) -A (?P<rule>.*)")
FORWARDING = "net.ipv4.ip_forward=1"  # as firewall.sh names it where it is missing
HTTP = {"http": 80, "https": 443}

Layer = tuple[str, Callable[[], Check]]


@dataclass(frozen=True)
class Asked:
    """What the user wants to reach: a name, an address or a URL; with a port, if it was said."""

    text: str
    host: str
    port: int | None = None
    scheme: str | None = None


def asked(text: str) -> Asked:
    """Read a target. Raises UserError."""
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    odd = any(character.isspace() or not character.isprintable() for character in text)
    if odd or not host or (parts.scheme and parts.scheme not in HTTP):
        raise UserError(
            f"{text!r} is no target: give a container's name, an address, or a URL such as http://web:8080."
        )
    return Asked(text, host, port, parts.scheme or None)


def examine(layers: Sequence[Layer]) -> tuple[Check, ...]:
    """Look at one layer after the other, up to the first that fails."""
    found: list[Check] = []
    for name, look in layers:
        failed = next((one.name for one in found if one.verdict == "failed"), None)
        found.append(not_checked(name, f"{failed} comes first") if failed else _looked(name, look))
    return tuple(found)


def _looked(name: str, look: Callable[[], Check]) -> Check:
    """What was found; where it could not even be looked at, that is what fails."""
    try:
        return look()
    except UserError as error:
        evidence, _, mend = str(error).rstrip(".").partition(": ")
        return Check(name, "failed", evidence, mend or "see what `./scripts/up.py` says")


def first_failure(found: Iterable[Check]) -> Check | None:
    """What is to be mended."""
    return next((one for one in found if one.verdict == "failed"), None)


# -------------------------------------------------------------------------------------------------- this computer


def profile(facts: ProfileFacts, path: str, now: datetime, renewal: str, revoked: bool) -> Check:
    """The profile must not have expired, nor its client be revoked; `renewal` says how to get a new one."""
    if revoked:
        add = f"./scripts/client.py add {facts.client}"
        return Check("profile", "failed", f"the client {facts.client} is revoked", f"issue it anew with `{add}`")
    end = min(facts.expiry, facts.authority_expiry)
    what = "certificate" if facts.expiry <= facts.authority_expiry else "CA"
    problem = f"the {what} in {path} expired on {end:%Y-%m-%d}" if end <= now else None
    return check("profile", problem, renewal, f"{path} is {facts.client}'s, and valid until {end:%Y-%m-%d}")


def handshake(found: Handshake, facts: ProfileFacts, up: str | None, renewal: str) -> Check:
    """The server that the profile names must answer, and accept it.

    `up` is the command that brings it up, where that is up to this user.
    """
    where = f"{facts.host}:{facts.port}/{facts.protocol}"
    start = f"bring it up with `{up}`" if up else "ask who runs the server to bring it up"
    problems = {
        "name": (f"{facts.host}, where the profile finds the server, has no address ({found.said})",
                 "check the name and this computer's network"),
        "port": (f"nobody answers at {where} ({found.said})", start),
        "answer": (f"what answers at {where} is not this profile's server ({found.said})", start),
        "server": (f"the server at {where} has not the certificate that the profile trusts ({found.said})", renewal),
        "client": (f"the server at {where} refuses the profile ({found.said})", renewal),
    }  # fmt: skip
    problem, mend = problems.get(found.stage, (None, ""))
    return check("server", problem, mend, f"the server answers at {where}, and accepts the profile")


def rejected(found: Sequence[Rejection], facts: ProfileFacts, path: str, is_connected: bool) -> Check:
    """The VPN app on this computer must use this profile, not an older one that the server turns away."""
    ours = [one for one in found if one.client == facts.client and one.seconds < LATELY_SECONDS]
    other = [one for one in ours if one.serial_number not in (None, facts.serial_number)]
    problem, mend = None, ""
    if ours and not is_connected:
        reason = ours[0].reason
        if other:
            problem = f"a VPN app uses an older profile of {facts.client}, which the server turns away ({reason})"
            mend = f"import {path} again, and connect"
        else:
            problem, mend = (
                f"the server turns {facts.client} away ({reason})",
                "issue it anew: `./scripts/client.py list`",
            )
    return check("client", problem, mend, "the server turns nobody away who has this profile")


def contested(found: Sequence[Contest], facts: ProfileFacts) -> Check:
    """No two machines may be one client."""
    ours = next((one for one in found if one.client == facts.client), None)
    problem = (
        f"{facts.client} is used on two machines at once, which have one address (each ends the other's connection, "
        f"{ours.times} times in the last {ours.seconds} seconds)"
        if ours
        else None
    )
    mend = "give the second one a client of its own with `./scripts/client.py add NAME`"
    return check("address", problem, mend, f"{facts.client} is used on one machine at a time")


def tunnel(own: Iterable[Interface], subnet: IPv4Network, path: str) -> Check:
    """There must be a device in the tunnel."""
    devices = [one for one in own if one.address.ip in subnet]
    problem = None if devices else f"this computer is not connected (it has no address in {subnet})"
    found = devices[0] if devices else None
    return check(
        "tunnel",
        problem,
        f"open {path} in the VPN app, and connect",
        f"{found and found.name} is {found and found.address.ip}",
    )


def route(
    address: IPv4Address, way: Interface | None, subnet: IPv4Network, facts: ProfileFacts, own: Iterable[Interface],
    bridges: Collection[str], shadow: str | None,
) -> Check:  # fmt: skip
    """What is for the address must leave this computer through the tunnel.

    `shadow` is the route that is taken, as Linux' `ip` prints it, where it is known and no network of this computer's.
    """
    if way and (way.address.ip in subnet or way.name in bridges):
        return Check("route", "passed", f"{address} is reached by {way.name}")
    if not contained(address, facts.routes):
        problem = f"{address} is outside the profile's routes ({listed(map(str, facts.routes))})"
        return Check("route", "failed", problem, "import the newest profile again, and connect")
    lan = next((one for one in own if address in one.network), None)
    if lan:
        problem = f"{address} is also in {lan.network}, a network that this computer is in ({lan.name})"
        mend = "give the container's network another subnet (`docker network create --subnet`), or leave that one"
    else:
        by = f"by {way.name} ({way.address.ip})" if way else "nowhere"
        problem = f"what is for {address} goes {by}, not through the VPN"
        mend = "disconnect other VPNs, and connect again"
        if shadow:
            mend = f"take that route away with `sudo ip route del {shadow}`"
    return Check("route", "failed", problem, mend)


# ------------------------------------------------------------------------------------------------ the server's side


def disk(full: Sequence[str]) -> Check:
    """There must be room where the services write."""
    problem = f"the engine's disk is full ({listed(full)})" if full else None
    return check("disk", problem, "make room there, such as with `docker system prune`", "the services can write")


def find(
    wanted: Asked, containers: Sequence[Container], named: Sequence[Name], domain: str
) -> tuple[Container | None, IPv4Address | None]:
    """The container that is wanted and its address, if the VPN's own names lead to one."""
    name = wanted.host.lower()
    address = address_or_none(wanted.host)
    if address is None:
        found = next((one for one in named if one.name in (name, f"{name}.{domain}")), None)
        address = found.addresses[0] if found else None
    by_name = next((one for one in containers if one.name == wanted.host), None)
    if isinstance(address, IPv4Address):
        holders = [one for one in containers if address in {place.address for place in one.attachments}]
        return (holders[0] if holders else None), address
    return by_name, None


def target(wanted: Asked, container: Container | None, address: IPv4Address | None, state: str | None) -> Check:
    """The target must be there, and run; `state` is that of a container that does not."""
    name = container.name if container else wanted.host
    state = container.state if container else state
    if state in (None, "running"):
        known = container is not None or address is not None
        problem = None if known else f"nothing is called {wanted.host} here"
        return check("target", problem, "see what there is with `./scripts/status.py`", f"{name} is there")
    problem = f"the container {name} does not run ({state})"
    if state == "restarting":
        return Check("target", "failed", problem, f"see why it ends with `docker logs {name}`")
    fix = f"docker {'unpause' if state == PAUSED else 'start'} {name}"
    return Check("target", "failed", problem, f"mend it with `{fix}`", fix)


def network(
    wanted: Asked, container: Container | None, address: IPv4Address | None, answers_routes: Sequence[IPv4Network]
) -> Check:
    """The target must be in a network that the engine's own host reaches and the routes lead to."""
    places = container.attachments if container else ()
    obstacles = {place: reachability.of_attachment(place, answers_routes) for place in places}
    if address is None and not any(one.reached for one in obstacles.values()):
        place, obstacle = next(iter(obstacles.items()), (None, reachability.NO_ADDRESS))
        if obstacle == reachability.OUTSIDE and place and place.subnet:
            fix = f"./scripts/routes.py add {place.subnet}"
            problem = f"{wanted.host} is at {place.address}, {obstacle.obstacle}"
            return Check(
                "network",
                "failed",
                problem,
                f"add its network with `{fix}`, then run up.py and import the profile again",
            )
        mend = (
            "connect it to a bridge network with `docker network connect bridge "
            f"{container.name if container else wanted.host}`"
        )
        return Check("network", "failed", f"{wanted.host} is not reached: {obstacle.obstacle}", mend)
    if address and not contained(address, answers_routes):
        subnet = next((place.subnet for place in places if place.address == address), None)
        problem = f"{wanted.host} is at {address}, outside the routes"
        fix = f"./scripts/routes.py add {subnet or address}"
        return Check("network", "failed", problem, f"add it with `{fix}`, then run up.py and import the profile again")
    of = f" ({container.name})" if container else ""
    return Check("network", "passed", f"{address}{of} is in the routes")


def forwarding(found: Passage) -> Check:
    """The server's own namespace must let through what clients send."""
    if found.inside is None:
        return not_checked("forwarding", "the server's namespace cannot be looked into here")
    lacks = f"the server's own network lacks {listed(found.inside)}" if found.inside else None
    fix = "docker compose restart vpn"
    return mended_by(
        fix, check("forwarding", lacks, f"have it made anew with `{fix}`", "the server forwards and masquerades")
    )


def packet_filter(found: Passage, engine: Engine | None, address: IPv4Address) -> Check:
    """The engine's packet filter must let through what the server sends."""
    if found.rules is None:
        return not_checked("packet filter", "the engine's packet filter cannot be looked at here")
    if found.answers:
        return Check(
            "packet filter",
            "passed",
            f"{_name_of_filter(engine) if engine else 'it'} lets the server through",
        )
    if FORWARDING in found.rules:
        mend = f"switch it on there with `sysctl -w {FORWARDING}`, as the engine does when it starts"
        return Check("packet filter", "failed", "the engine's machine forwards no IPv4", mend)
    if found.rules:
        fix = "docker compose restart firewall"
        problem = f"the engine's packet filter lacks {listed(found.rules)}"
        return mended_by(
            fix,
            Check(
                "packet filter",
                "failed",
                problem,
                f"have it put back with `{fix}`; what takes it away may be another firewall",
            ),
        )
    foreign = [rule for rule in found.dropped if not OWN_CHAINS.search(rule) and not ENGINES_OWN.search(rule)]
    if foreign:
        return Check(
            "packet filter",
            "failed",
            f"a rule on the engine's machine drops what is for {address}: {foreign[0]}",
            _without(foreign[0]),
        )
    if found.dropped:
        fix = "docker compose restart firewall"
        problem = f"the engine drops what is for {address}: {found.dropped[0]}"
        return mended_by(fix, Check("packet filter", "failed", problem, f"have the rules placed anew with `{fix}`"))
    return Check("packet filter", "passed", "no rule of the engine's machine drops what the server sends")


def _name_of_filter(engine: Engine) -> str:
    return engine.firewall_backend or ("Podman's packet filter" if engine.is_podman else "iptables")


def port(
    wanted: Asked, container: Container | None, found: Passage, number: int | None, listening: Sequence[Listener] | None
) -> Check:
    """The target must answer, at the port that is wanted."""
    who = container.name if container else wanted.host
    if not found.answers:
        problem = f"{who} does not answer the server, and no rule of the engine's machine drops it"
        return Check("port", "failed", problem, "look for a packet filter of its own inside it")
    if number is None or found.answers.get(number) == "accepted":
        return Check("port", "passed", f"{who} answers" + ("" if number is None else f" at port {number}"))
    problem = f"nothing in {who} listens at port {number}"
    mend = "start its server there"
    if listening is not None:
        only_loopback = any(one.port == number and one.loopback for one in listening)
        others = sorted({one.port for one in listening if not one.loopback})
        if only_loopback:
            problem = f"{who} listens at port {number} on its own 127.0.0.1 only, where nobody else can reach it"
            mend = "have its server listen on 0.0.0.0"
        elif others:
            problem += f", but at {listed(map(str, others))}"
            mend = f"use http://{wanted.host}:{others[0]}"
    return Check("port", "failed", problem, mend)


def mtu(found: Passage, who: str) -> Check:
    """Large packets must arrive whole, or be known to be too large."""
    sizes = sorted(found.echoes)
    lost = next((size for size in sizes if not found.echoes[size]), None)
    if not sizes:
        return not_checked("MTU", "no echo was asked for")
    if lost is None:
        known = f", and the path is known to take {found.path_mtu}" if found.path_mtu else ""
        return Check("MTU", "passed", f"packets of {sizes[-1]} bytes come back from {who}{known}")
    foreign = [rule for rule in found.lost if not OWN_CHAINS.search(rule) and not ENGINES_OWN.search(rule)]
    if lost == sizes[0]:
        if foreign:
            problem = f"a rule on the engine's machine drops ICMP, without which no path's MTU is found: {foreign[0]}"
            return Check("MTU", "failed", problem, _without(foreign[0]))
        return not_checked("MTU", f"{who} answers no ping")
    problem = f"packets of {lost} bytes to {who} vanish, and nobody says so (a black hole), while smaller ones arrive"
    mend = "see which device has a smaller MTU with `ip link` on the engine's machine, and give it what the network has"
    return Check("MTU", "failed", problem, mend)


def from_here(connects: bool, address: IPv4Address, port: int) -> Check:
    """The target must answer this computer itself, too."""
    problem = f"{address} answers the server, but not this computer (port {port})"
    mend = "disconnect and connect again; if that does not help, report it with `./scripts/doctor.py --bundle FILE`"
    return check("answer", None if connects else problem, mend, f"{address} answers this computer")


# --------------------------------------------------------------------------------------------------- names and HTTPS


def names(name: str, wanted: IPv4Address | None, resolved: Collection[str], is_set_up: bool, install: str) -> Check:
    """The resolver of this computer must find the target by its name; `install` is the command that sets it up."""
    if not is_set_up:
        problem = f"this computer does not ask the VPN for names, so {name} does not resolve here"
        return mended_by(
            install, check("names", None if resolved else problem, f"set it up with `{install}`", f"{name} resolves")
        )
    if not resolved:
        problem = f"{name} does not resolve, although this computer asks the VPN's server for it"
        return Check("names", "failed", problem, f"have it set up anew with `{install}`", install)
    other = listed(sorted(resolved))
    astray = f"{name} leads to {other}, and not to {wanted}" if wanted and str(wanted) not in resolved else None
    return check("names", astray, "look for another VPN or a hosts file that answers it", f"{name} is {other}")


def trust(missing: Sequence[str], install: str) -> Check:
    """The CA for HTTPS must be trusted here."""
    problem = f"this computer does not trust the CA for HTTPS ({listed(missing)})" if missing else None
    return mended_by(
        install, check("trust", problem, f"set it up with `{install}`", "this computer trusts the CA for HTTPS")
    )


def https(url: str, problem: str | None) -> Check:
    """The proxy must answer for the target."""
    fix = "docker compose restart proxy redirect"
    said = f"{url} is not served ({problem})" if problem else None
    return mended_by(fix, check("https", said, f"have the proxy started anew with `{fix}`", f"{url} is served"))


def _without(rule: str) -> str:
    """How a rule that drops is taken away, on the engine's machine."""
    match = IPTABLES_RULE.fullmatch(rule)
    if match:
        return f"take it away, on the engine's machine, with `{match['command']} -D {match['rule']}`"
    return "take it away on the engine's machine"
