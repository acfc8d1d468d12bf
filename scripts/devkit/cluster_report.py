"""The connection report of a server in a cluster. Pure functions, as in `report`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, collapse_addresses
from pathlib import Path
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from devkit.answers import CHANGE_ANSWER, Answers
from devkit.facts import Cluster, ClusterEndpoint, Pod, Service
from devkit.generation import Generation
from devkit.host import OperatingSystem
from devkit.report import (
    MOST_ROWS,
    OUTSIDE,
    Access,
    access_document,
    access_table,
    end_warnings,
    how_to_add,
    make_access,
    ports_cell,
    urls,
    warning_lines,
)

FREE_NODE_PORT = 31194  # most likely


@dataclass(frozen=True)
class Place:
    """A Service or a pod, and whether the routes reach it."""

    kind: Literal["Service", "Pod"]
    namespace: str
    name: str
    address: str
    ports: tuple[str, ...]
    urls: tuple[str, ...]
    reached: bool


@dataclass(frozen=True)
class ClusterReport:
    """All facts of a report; `missed` are networks of the cluster that the routes do not reach."""

    access: Access
    cluster: Cluster
    endpoint: ClusterEndpoint
    places: tuple[Place, ...]
    missed: tuple[IPv4Network, ...]
    warnings: tuple[str, ...]


def make_report(
    answers: Answers,
    cluster: Cluster,
    endpoint: ClusterEndpoint,
    services: Iterable[Service],
    pods: Iterable[Pod],
    local: Path,
    generation: Generation,
    same_host: bool,
    now: datetime,
) -> ClusterReport:
    """Put the facts together; `same_host` when the host that the profiles name is one of the endpoint's."""
    access = make_access(answers, local, generation, now)
    found = [*(_place("Service", one, answers) for one in services), *(_place("Pod", one, answers) for one in pods)]
    # A network plugin may give pods addresses of which the nodes know nothing.
    seen = [IPv4Network(place.address).supernet(new_prefix=24) for place in found if not place.reached]
    networks = collapse_addresses([*cluster.pod_networks, *cluster.service_networks, *seen])
    return ClusterReport(
        access=access,
        cluster=cluster,
        endpoint=endpoint,
        # What the user made comes before what the cluster is made of.
        places=tuple(sorted(found, key=lambda place: place.namespace == "kube-system")),
        missed=tuple(network for network in networks if not _is_routed(network, answers.routes)),
        warnings=(*end_warnings(access.ends, now), *_endpoint_warnings(answers, endpoint, same_host)),
    )


def as_document(report: ClusterReport) -> Mapping[str, object]:
    """The report's facts for a program, as JSON has them."""
    cluster = report.cluster
    return {
        **access_document(report.access),
        "cluster": {
            "context": cluster.context,
            "version": cluster.version,
            "nodes": [node.name for node in cluster.nodes],
            "pod_networks": [str(network) for network in cluster.pod_networks],
            "service_networks": [str(network) for network in cluster.service_networks],
        },
        "service": {
            "type": report.endpoint.kind,
            "hosts": list(report.endpoint.hosts),
            "port": report.endpoint.port,
            "command": report.endpoint.command,
        },
        "reached": [
            {
                "kind": place.kind,
                "namespace": place.namespace,
                "name": place.name,
                "address": place.address,
                "ports": list(place.ports),
                "urls": list(place.urls),
                "reachable": place.reached,
            }
            for place in report.places
        ],
        "missed": [str(network) for network in report.missed],
        "warnings": list(report.warnings),
    }


def as_text(report: ClusterReport, system: OperatingSystem, folder: Path) -> RenderableType:
    """The report for a person who works on this system, in this folder."""
    cluster, routes = report.cluster, report.access.answers.routes
    nodes = f"{len(cluster.nodes)} node{'' if len(cluster.nodes) == 1 else 's'}" if cluster.nodes else "nodes unknown"
    where = [
        ("Cluster", f"Kubernetes {cluster.version}, {nodes} (context {cluster.context})"),
        ("Service", _service_line(report.endpoint)),
    ]
    if report.endpoint.command:
        where.append(("", f"keep this running:  {report.endpoint.command}"))
    networks = [
        ("Pods", _network_line(cluster.pod_networks, routes)),
        ("Services", _network_line(cluster.service_networks, routes)),
    ]
    facts = access_table(report.access, where, system, folder, networks)
    tail = [*how_to_add(routes, report.missed, "up.py --kubernetes"), *warning_lines(report.warnings)]
    return Group(facts, "", _place_table(report.places), *tail)


def no_load_balancer(answers: Answers) -> str:
    """A sentence for who waits for a load balancer where there is none."""
    ways = [f"`{CHANGE_ANSWER} service_type=NodePort --data vpn_port={FREE_NODE_PORT}`"]
    if answers.vpn_protocol == "tcp":  # `kubectl port-forward` carries nothing else
        ways.insert(0, f"`{CHANGE_ANSWER} service_type=ClusterIP`")
    return (
        "the Service has no address, because this cluster has no load balancer: choose another way in with "
        f"{' or '.join(ways)}."
    )


def _service_line(endpoint: ClusterEndpoint) -> str:
    hosts = ", ".join(endpoint.hosts) or "no address yet"
    return f"{endpoint.kind} at {hosts}, port {endpoint.port}"


def _network_line(networks: Sequence[IPv4Network], routes: Sequence[IPv4Network]) -> Text:
    if not networks:
        return Text("unknown: this cluster does not say, or you may not ask", style="yellow")
    line = Text()
    for number, network in enumerate(networks):
        routed = _is_routed(network, routes)
        line.append("  " if number else "").append(f"{network}: ")
        line.append("reached" if routed else OUTSIDE, style="green" if routed else "yellow")
    return line


def _place_table(places: Sequence[Place]) -> RenderableType:
    if not places:
        return Text(
            "No Service and no pod is to be seen here: you may not list them in all namespaces, or none runs yet."
        )
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("Kind", "Namespace", "Name", "Address", "Ports", "Reached"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("Kind", "Address", "Ports", "Reached"))
    for place in places[:MOST_ROWS]:
        verdict = Text("yes", style="green") if place.reached else Text(f"no: {OUTSIDE}", style="yellow")
        ports = Text(ports_cell(place.urls, place.ports))
        table.add_row(place.kind, Text(place.namespace), Text(place.name), place.address, ports, verdict)
    more = len(places) - MOST_ROWS
    return Group(table, f"and {more} more: kubectl get services,pods --all-namespaces") if more > 0 else table


def _place(kind: Literal["Service", "Pod"], found: Service | Pod, answers: Answers) -> Place:
    reached = any(found.address in route for route in answers.routes)
    shown = urls(str(found.address), found.ports) if reached else ()
    return Place(kind, found.namespace, found.name, str(found.address), found.ports, shown, reached)


def _is_routed(network: IPv4Network, routes: Iterable[IPv4Network]) -> bool:
    return any(network.subnet_of(route) for route in collapse_addresses(routes))


def _endpoint_warnings(answers: Answers, endpoint: ClusterEndpoint, same_host: bool) -> Iterable[str]:
    """A sentence when the profiles name another endpoint than the Service has."""
    if not endpoint.hosts:
        yield no_load_balancer(answers)
    elif not same_host or answers.vpn_port != endpoint.port:
        host = answers.vpn_host if same_host else endpoint.hosts[0]
        # Whether a port of UDP is forwarded cannot be tried.
        unless = "" if same_host or answers.vpn_protocol == "tcp" else "unless the one is forwarded to the other, "
        yield (
            f"the profiles connect to {answers.vpn_host}:{answers.vpn_port}, but the Service is at "
            f"{host}:{endpoint.port}: {unless}change them with `{CHANGE_ANSWER} vpn_host={host} "
            f"--data vpn_port={endpoint.port}`."
        )
