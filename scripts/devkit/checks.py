"""What must hold before anything is started, as values. No check reads the clock, asks anything, or prints."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network
from typing import Literal

from devkit.addresses import ANY_ADDRESS, overlap, within
from devkit.answers import CHANGE_ANSWER, Answers, address_to_listen_on, is_host
from devkit.errors import UserError
from devkit.facts import ClusterEndpoint, Engine
from devkit.host import Interface
from devkit.keys.model import Generation
from devkit.material.expiry import expiries

POD_SECURITY_LABEL = "pod-security.kubernetes.io/enforce"
FREE_NODE_PORT = 31194  # most likely
OTHER_PORT = f"free it, or choose another with `{CHANGE_ANSWER} vpn_port=NUMBER`"
EVERYWHERE = {str(ANY_ADDRESS), "*", "[::]"}

Verdict = Literal["passed", "failed"]


@dataclass(frozen=True)
class Check:
    """What was checked, the verdict, what was seen and, where it failed, what to do."""

    name: str
    verdict: Verdict
    evidence: str
    mend: str = ""

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


def server_certificate(generation: Generation, now: datetime) -> Check:
    """The server's certificate must not have expired."""
    (expiry,) = (each for each in expiries(generation) if each.role == "server")
    ended = f"the server's certificate expired on {expiry.at:%Y-%m-%d}, so no client would connect"
    mend = f"renew it with `{expiry.renewal}`"
    return check("certificate", ended if expiry.at <= now else None, mend, f"it is valid until {expiry.at:%Y-%m-%d}")


def engine(found: Engine) -> Check:
    """An engine must answer; this one has."""
    return Check("engine", "passed", f"{found.version} on {found.operating_system}")


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
