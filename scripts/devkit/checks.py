"""What must hold before anything is started, as values. No check reads the clock, asks anything, or prints."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Literal

from devkit.addresses import ANY_ADDRESS, overlap, within
from devkit.answers import CHANGE_ANSWER, Answers, address_to_listen_on, is_host
from devkit.errors import UserError
from devkit.facts import PAUSED, PODMAN_SOCKET, ClusterEndpoint, Condition, Engine, Part, Session
from devkit.host import Interface
from devkit.keys.model import Generation
from devkit.material.expiry import expiries

POD_SECURITY_LABEL = "pod-security.kubernetes.io/enforce"
FREE_NODE_PORT = 31194  # most likely
OTHER_PORT = f"free it, or choose another with `{CHANGE_ANSWER} vpn_port=NUMBER`"
MOST_LISTED = 8
HEALTH = ("services", "connected", "from here", "forwarding")
OF_THE_SERVER = ("services", "forwarding")  # what holds without any client
EVERYWHERE = {str(ANY_ADDRESS), "*", "[::]"}

Verdict = Literal["passed", "failed", "not checked"]


@dataclass(frozen=True)
class Check:
    """What was checked, the verdict, what was seen and, where it failed, what to do.

    `fix` is a command that does it, where one can and nothing is lost by it.
    """

    name: str
    verdict: Verdict
    evidence: str
    mend: str = ""
    fix: str = ""

    @property
    def sentence(self) -> str:
        """What is wrong and what to do."""
        return f"{self.evidence}: {self.mend}."


def check(name: str, problem: str | None, mend: str, evidence: str) -> Check:
    """A check that fails with the problem if there is one, and otherwise passes with the evidence."""
    return Check(name, "failed", problem, mend) if problem else Check(name, "passed", evidence)


def require(found: Iterable[Check]) -> None:
    """Raise the first check that failed as UserError; those after it are not made."""
    for one in found:
        if one.verdict == "failed":
            raise UserError(one.sentence)


def not_checked(name: str, reason: str) -> Check:
    """A check that could not be made."""
    return Check(name, "not checked", reason)


def parts(found: Sequence[Part], up: str) -> Check:
    """All that has to run runs. `up` is the command that brings it up."""
    troubled = [part for part in found if part.trouble]
    said = "; ".join(f"{part.name} is {part.trouble}" for part in troubled)
    paused = [part.name for part in troubled if part.trouble == PAUSED]
    fix = f"docker compose unpause {' '.join(paused)}" if paused else up
    return mended_by(
        fix, check("services", said or None, f"mend it with `{fix}`", f"{listed(part.name for part in found)} work")
    )


def connected(condition: Condition, profile: str | None) -> Check:
    """At least one client is connected; `profile` is the path of the first client's."""
    if condition.sessions is None:
        return not_checked("connected", condition.reason)
    clients = dict.fromkeys(session.client for session in condition.sessions)
    mend = f"open {profile or 'a profile'} in the VPN app, and connect"
    return check("connected", None if clients else "no client is connected", mend, listed(clients))


def way_here(
    answers: Answers,
    ways: Mapping[IPv4Address, Interface | None],
    bridges: Collection[str],
    sessions: Sequence[Session] | None,
) -> Check:
    """What is for the routes goes into the tunnel from this computer; `ways` are by addresses in the routes.

    `bridges` are devices of this computer's own engine, for which it needs no tunnel; `sessions` are the server's, or
    None where it was not asked.
    """
    through = {address: way for address, way in ways.items() if way and way.address.ip in answers.vpn_subnet}
    direct = {address for address, way in ways.items() if way and way.name in bridges}
    astray = [address for address in ways if address not in through and address not in direct]
    if astray and not through and sessions is not None and not sessions:
        return not_checked("from here", "no client is connected")
    if not astray:
        by = listed(dict.fromkeys(way.name for way in through.values())) or "the engine's own bridges"
        return Check("from here", "passed", f"what is for the routes goes through {by}")
    if not through:
        problem = "this computer is not connected" + (", while others are" if sessions else "")
        return Check("from here", "failed", problem, "open the profile in the VPN app, and connect")
    way = ways[astray[0]]
    by = f"leaves this computer by {way.name} ({way.address})" if way else "has no way from this computer"
    others = f", as {len(astray) - 1} more do" if astray[1:] else ""
    problem = f"what is for {astray[0]} {by} and not through the VPN{others}"
    return Check("from here", "failed", problem, f"see what is in the way with `./scripts/doctor.py {astray[0]}`")


def forwarding(networks: Mapping[str, Collection[IPv4Address]], condition: Condition) -> Check:
    """What the server sends arrives; `networks` are by name, with the addresses in each."""
    answers = condition.answers
    if answers is None:
        return not_checked("forwarding", condition.reason)
    tried = {
        name: found for name, all_ in networks.items() if (found := [answers[one] for one in all_ if one in answers])
    }
    if not tried:
        return not_checked("forwarding", "nothing runs yet that could answer")
    silent = [name for name, found in tried.items() if not any(found)]
    problem = f"nothing in {listed(silent)} answers the server" if silent else None
    return check("forwarding", problem, "see what stops it with `./scripts/doctor.py`", f"{listed(tried)} answered")


def mended_by(command: str, one: Check) -> Check:
    """The same, with the command that mends it if it has failed."""
    return replace(one, fix=command) if one.verdict == "failed" else one


def listed(names: Iterable[str]) -> str:
    """A few names in words."""
    all_ = list(names)
    shown = all_ if len(all_) <= MOST_LISTED else [*all_[: MOST_LISTED - 1], f"{len(all_) - MOST_LISTED + 1} more"]
    return " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]]))


def server_certificate(generation: Generation, now: datetime) -> Check:
    """The server's certificate must not have expired."""
    (expiry,) = (each for each in expiries(generation) if each.role == "server")
    ended = f"the server's certificate expired on {expiry.at:%Y-%m-%d}, so no client would connect"
    mend = f"renew it with `{expiry.renewal}`"
    return check("certificate", ended if expiry.at <= now else None, mend, f"it is valid until {expiry.at:%Y-%m-%d}")


def engine(found: Engine) -> Check:
    """An engine must answer, as this one has, and run as root: another's networks are in a namespace of their own."""
    problem = f"the engine, {found.description}, is rootless, so no container can open its networks"
    mend = "choose the context of one that runs as root with `docker context use NAME`"
    if found.is_podman:
        rootful = "make it rootful with `podman machine set --rootful` while the machine is stopped"
        mend = f"{rootful}, or, on Linux, have Docker's context lead to unix://{PODMAN_SOCKET}"
    return check("engine", problem if found.is_rootless else None, mend, found.description)


def port(answers: Answers, reason: str | None) -> Check:
    """The port must be free; `reason` says why this computer cannot listen there, if it cannot."""
    endpoint = f"{answers.vpn_listen}:{answers.vpn_port}/{answers.vpn_protocol}"
    problem = f"{endpoint} cannot be published because {reason}" if reason else None
    return check("port", problem, OTHER_PORT, f"{endpoint} is free")


def port_elsewhere(answers: Answers, listening: Iterable[str]) -> Check:
    """The port must be free on the engine's machine; `listening` are its addresses on which the port is taken."""
    found = set(listening)
    endpoint = f"{answers.vpn_listen}:{answers.vpn_port}/{answers.vpn_protocol}"
    # A listener on all addresses is in the way of each, and a listener on one is in the way of a server on all.
    in_the_way = found if answers.vpn_listen == ANY_ADDRESS else found & {str(answers.vpn_listen), *EVERYWHERE}
    problem = f"{endpoint} is taken by another program on the engine's machine" if in_the_way else None
    return check("port", problem, OTHER_PORT, f"{endpoint} is free on the engine's machine")


def listening_address(answers: Answers, own: Iterable[Interface]) -> Check:
    """Clients that come to an address of this computer must find the port on that address."""
    wanted, clients = address_to_listen_on(answers.vpn_host), f"clients that come to vpn_host {answers.vpn_host}"
    here = wanted.is_loopback or wanted in {interface.address.ip for interface in own}
    lost = here and answers.vpn_listen not in (wanted, ANY_ADDRESS)
    problem = f"vpn_listen is {answers.vpn_listen}, where {clients} find nothing" if lost else None
    mend = f"change it with `{CHANGE_ANSWER} vpn_listen={wanted}`, or vpn_host"
    return check("listening address", problem, mend, f"{clients} find {answers.vpn_listen}")


def host_elsewhere(answers: Answers, engine_host: str, leads_here: bool) -> Check:
    """Clients must not look on their own computer for a server that is on `engine_host`."""
    problem = f"vpn_host is {answers.vpn_host}, where each client finds itself, but the engine is on {engine_host}"
    mend = f"change it with `{CHANGE_ANSWER} vpn_host={engine_host}`"
    return check("host", problem if leads_here else None, mend, f"clients come to {answers.vpn_host}")


def docker_context(answers: Answers, context: str | None, same: bool) -> Check:
    """A server must not be started where Docker's context leads now, if it named another host for it earlier.

    `context` is the host that it leads to, if that matters; `same` says that the two hosts are one.
    """
    moved = context is not None and not same
    problem = f"this project's server is on {answers.vpn_host}, and Docker's context leads to {context} now"
    new = context if context and is_host(context) else "HOST"
    mend = (
        f"choose the context of {answers.vpn_host} (`docker context use NAME`), or let the profiles lead to {context} "
        f"with `{CHANGE_ANSWER} vpn_host={new}`"
    )
    return check("Docker's context", problem if moved else None, mend, f"it leads to {context or answers.vpn_host}")


def routes(answers: Answers, own: Iterable[Interface], harmless: Iterable[IPv4Network]) -> Check:
    """No route may hide a network that this computer is in.

    `harmless` are networks that may be hidden, with all that is inside them: the engine's, which this computer has when
    it is the engine's own host, and a cluster's, when it is a node.
    """
    known, problem = tuple(harmless), None
    for interface in own:
        # While this computer is connected it has the VPN's own device, with a replica's part of the subnet.
        is_tunnel = interface.name.startswith(("tun", "utun")) and within(interface.network, answers.vpn_subnet)
        ours = is_tunnel or interface.network == answers.vpn_subnet
        if ours or any(within(interface.network, network) for network in known):
            continue
        for route in (*answers.routes, answers.vpn_subnet):
            if overlap(route, interface.network) and not problem:
                own_network = f"this computer's own network {interface.network} ({interface.name})"
                problem = f"{route} collides with {own_network}"
    mend = f"choose others with `./scripts/routes.py` (add, remove), or with `{CHANGE_ANSWER} vpn_subnet=...`"
    return check("routes", problem, mend, "no route hides a network that this computer is in")


def vpn_subnet(answers: Answers, cluster_networks: Iterable[IPv4Network]) -> Check:
    """The VPN's own subnet must overlap none of a cluster's networks."""
    subnet = answers.vpn_subnet
    found = next((network for network in cluster_networks if overlap(network, subnet)), None)
    problem = f"vpn_subnet {subnet} overlaps the cluster's own network {found}" if found else None
    mend = f"choose another with `{CHANGE_ANSWER} vpn_subnet=A.B.C.0/24`"
    return check("VPN subnet", problem, mend, f"{subnet} overlaps none of the cluster's networks")


def pod_security(namespace: str, level: str, context_option: str) -> Check:
    """The namespace must admit a pod that makes a tunnel; `level` is the Pod Security level that it enforces."""
    problem = (
        f"the namespace {namespace} enforces the Pod Security level {level!r}, under which no pod may make a tunnel"
    )
    label = f"kubectl label namespace {namespace} {POD_SECURITY_LABEL}=privileged --overwrite{context_option}"
    return check("namespace", problem if level != "privileged" else None, f"allow it with `{label}`", namespace)


def service_address(answers: Answers, endpoint: ClusterEndpoint) -> Check:
    """The server's Service must have an address."""
    problem = None if endpoint.hosts else "the Service has no address, because this cluster has no load balancer"
    ways = [f"`{CHANGE_ANSWER} service_type=NodePort --data vpn_port={FREE_NODE_PORT}`"]
    if answers.vpn_protocol == "tcp":  # `kubectl port-forward` carries nothing else
        ways.insert(0, f"`{CHANGE_ANSWER} service_type=ClusterIP`")
    return check("Service", problem, f"choose another way in with {' or '.join(ways)}", ", ".join(endpoint.hosts))


def packet_filter(backend: str) -> Check:
    """The firewall must know the engine's packet filter; engines before 28 do not name theirs."""
    known = backend.partition("+")[0] in ("", "iptables", "nftables")
    problem = (
        f"this engine's packet filter, {backend!r}, is not one that the firewall knows, so it may let nothing through"
    )
    mend = "start the engine with --firewall-backend=iptables or nftables"
    return check("packet filter", None if known else problem, mend, backend or "iptables")
