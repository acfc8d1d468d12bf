"""The connection report of a server in a cluster."""

import itertools
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from pathlib import Path
from typing import Literal

from rich.console import Group, RenderableType
from rich.text import Text

from devkit import checks, reachability
from devkit.addresses import routed
from devkit.answers import CHANGE_ANSWER, Answers
from devkit.checks import Check
from devkit.facts import Cluster, ClusterEndpoint, ClusterFacts, Condition, Pod, Service
from devkit.host import Interface, OperatingSystem
from devkit.material.expiry import expiry_warnings
from devkit.reachability import OUTSIDE, Reachability
from devkit.report.access import (
    MOST_ROWS,
    Access,
    access_table,
    both,
    health_rows,
    how_to_add,
    ports_cell,
    problem_lines,
    summary,
    verdict,
    warning_lines,
)
from devkit.report.table import Column, Fitting, Section, natural

Kind = Literal["Service", "Pod"]


@dataclass(frozen=True)
class ReportedObject:
    """A Service or a pod, and whether it is reached."""

    kind: Kind
    namespace: str
    name: str
    address: str
    ports: tuple[str, ...]
    urls: tuple[str, ...]
    reachability: Reachability


@dataclass(frozen=True)
class ClusterReport:
    """All facts of a report; `missed` are networks of the cluster that the routes do not reach."""

    access: Access
    cluster: Cluster
    endpoint: ClusterEndpoint
    objects: tuple[ReportedObject, ...]
    missed: tuple[IPv4Network, ...]
    warnings: tuple[str, ...]
    health: tuple[Check, ...]
    checked: bool  # whether the server could try what it reaches


def make_report(
    access: Access, facts: ClusterFacts, condition: Condition, ways: Mapping[IPv4Address, Interface | None], up: str
) -> ClusterReport:
    """Put the facts together; `ways` are this computer's, `up` is the command for this cluster."""
    answers, cluster = access.answers, facts.cluster
    found = [
        *(_reported("Service", service, answers, condition) for service in facts.services),
        *(_reported("Pod", pod, answers, condition) for pod in facts.pods),
    ]
    kinds = {
        "Services": [service.address for service in facts.services],
        "pods": [pod.address for pod in facts.pods],
    }
    # A network plugin may give pods addresses that the nodes know nothing of.
    seen = [IPv4Network(one.address).supernet(new_prefix=24) for one in found if not one.reachability.reached]
    networks = collapse_addresses([*cluster.pod_networks, *cluster.service_networks, *seen])
    return ClusterReport(
        access=access,
        cluster=cluster,
        endpoint=facts.endpoint,
        objects=_in_order(found),
        missed=tuple(network for network in networks if not routed(network, answers.routes)),
        warnings=(*expiry_warnings(access.expiries, access.now), *_endpoint_warnings(answers, facts)),
        health=(
            checks.parts(condition.parts, up),
            checks.connected(condition, access.profile),
            checks.way_here(answers, ways, (), condition.sessions),
            checks.forwarding(kinds, condition),
        ),
        checked=condition.answers is not None,
    )


def as_text(
    report: ClusterReport, system: OperatingSystem, folder: Path, about: Collection[str] = checks.HEALTH
) -> RenderableType:
    """The report for a person who works on this system, in this folder: first what can be opened.

    Problems are told that the command is `about`, by the checks' names.
    """
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
    if report.access.answers.dns_domain and report.access.answers.kubernetes != "none":
        names = "SERVICE.NAMESPACE.svc.cluster.local; once on each computer: ./scripts/host.py install"
        networks.append(("Names", Text(names)))
    facts = access_table(report.access, where, system, folder, [*networks, *health_rows(report.health)])
    tail = [
        *how_to_add(report.missed, "up.py --kubernetes"),
        *warning_lines(report.warnings),
        *problem_lines(one for one in report.health if one.name in about),
    ]
    return Group(*_objects(report), "", facts, *tail)


def _service_line(endpoint: ClusterEndpoint) -> str:
    hosts = ", ".join(endpoint.hosts) or "no address yet"
    return f"{endpoint.kind} at {hosts}, port {endpoint.port}"


def _network_line(networks: Sequence[IPv4Network], routes: Sequence[IPv4Network]) -> Text:
    if not networks:
        return Text("unknown: this cluster does not say, or you may not ask", style="yellow")
    line = Text()
    for number, network in enumerate(networks):
        inside = routed(network, routes)
        line.append("  " if number else "").append(f"{network}: ")
        line.append("in the routes" if inside else str(OUTSIDE.obstacle), style="green" if inside else "yellow")
    return line


_KIND = Column[ReportedObject]("Kind", lambda one: Text(one.kind))
_NAME = Column[ReportedObject]("Name", lambda one: Text(one.name), breaks=20)
_ADDRESS = Column[ReportedObject]("Address", lambda one: Text(one.address))
_PORTS = Column[ReportedObject]("Ports", lambda one: ports_cell(one.urls, one.ports))
_BOTH = Column[ReportedObject]("Address", lambda one: both(one.address, ports_cell(one.urls, one.ports)))
_REACHED = Column[ReportedObject]("Reached", lambda one: verdict(one.reachability))
_LAYOUTS = ((_KIND, _NAME, _ADDRESS, _PORTS, _REACHED), (_KIND, _NAME, _BOTH, _REACHED), (_NAME, _BOTH, _REACHED))


def _objects(report: ClusterReport) -> Iterable[RenderableType]:
    """The Services and pods by namespace, in the report's order, as many as one reads."""
    if not report.objects:
        yield Text("No Service and no pod is visible here: you may not list them in all namespaces, or none runs yet.")
        yield Text("Start one to look at:")
        context = f" --context {shlex.quote(report.cluster.context)}"
        yield Text(
            f"  kubectl create deployment hello --image=nginx:alpine --port=80{context}",
            no_wrap=True,
            overflow="ignore",
        )
        yield Text("Then ./scripts/status.py --kubernetes says what to open.")
        return
    namespaces = itertools.groupby(report.objects[:MOST_ROWS], key=lambda one: one.namespace)
    yield Fitting(_LAYOUTS, [Section(f"Namespace {name}", list(objects)) for name, objects in namespaces])
    if report.objects[MOST_ROWS:]:
        yield f"and {len(report.objects) - MOST_ROWS} more: kubectl get services,pods --all-namespaces"
    yield ""
    answered = sum(one.reachability.answered for one in report.objects)
    yield summary(answered, len(report.objects), "Services and pods", report.checked)


def _in_order(found: Sequence[ReportedObject]) -> tuple[ReportedObject, ...]:
    """By namespace: first what a browser opens, and what the user made before what the cluster is made of."""
    opened = {one.namespace for one in found if one.urls}
    return tuple(
        sorted(
            found,
            key=lambda one: (
                one.namespace == "kube-system",
                one.namespace not in opened,
                natural(one.namespace),
                not one.urls,
                one.kind == "Pod",
                natural(one.name),
            ),
        )
    )


def _reported(kind: Kind, found: Service | Pod, answers: Answers, condition: Condition) -> ReportedObject:
    expected = reachability.of_address(found.address, answers.routes)
    reached = reachability.as_seen(expected, found.address, condition.answers)
    urls = reachability.urls(str(found.address), found.ports) if reached.reached else ()
    return ReportedObject(kind, found.namespace, found.name, str(found.address), found.ports, urls, reached)


def _endpoint_warnings(answers: Answers, facts: ClusterFacts) -> Iterator[str]:
    """A sentence when the profiles name an endpoint other than the Service's."""
    endpoint, same_host = facts.endpoint, facts.profiles_lead_there
    if not endpoint.hosts:
        yield checks.service_address(answers, endpoint).sentence
    elif not same_host or answers.vpn_port != endpoint.port:
        host = answers.vpn_host if same_host else endpoint.hosts[0]
        # Whether a UDP port is forwarded cannot be tested.
        unless = "" if same_host or answers.vpn_protocol == "tcp" else "unless the one is forwarded to the other, "
        yield (
            f"the profiles connect to {answers.vpn_host}:{answers.vpn_port}, but the Service is at "
            f"{host}:{endpoint.port}: {unless}change them with `{CHANGE_ANSWER} vpn_host={host} "
            f"--data vpn_port={endpoint.port}`."
        )
