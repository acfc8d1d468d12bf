"""The facts for a program, as JSON: docs/json.md, docs/report.schema.json. Times are ISO 8601 in UTC.

What is there stays; what is added needs no new version.
"""

from collections.abc import Mapping, Sequence
from typing import cast

from devkit.checks import Check
from devkit.computer.model import Computer, Root, Step
from devkit.facts import Session
from devkit.keys.model import Client, Generation
from devkit.report.access import Access
from devkit.report.cluster import ClusterReport, ReportedObject
from devkit.report.engine import EngineReport, Place, ReportedContainer
from devkit.vpn.lane import Names

Document = Mapping[str, object]
VERSION = 1


def of_engine(report: EngineReport) -> Document:
    """What `up --json` and `status --json` print of an engine."""
    engine, access = report.engine, _access(report.access)
    return {
        **access,
        "endpoint": _endpoint(report.access) | {"listen": str(report.access.answers.vpn_listen)},
        "engine": {"name": engine.name, "version": engine.version, "operating_system": engine.operating_system},
        "containers": [_container(container) for container in report.containers],
        "missed": [str(network) for network in report.missed],
        "mtus": dict(report.mtus),
        "warnings": list(report.warnings),
        "health": [_check(one) for one in report.health],
    }


def of_cluster(report: ClusterReport) -> Document:
    """What `up --json` and `status --json` print of a cluster."""
    cluster, endpoint = report.cluster, report.endpoint
    return {
        **_access(report.access),
        "cluster": {
            "context": cluster.context,
            "version": cluster.version,
            "nodes": [node.name for node in cluster.nodes],
            "pod_networks": [str(network) for network in cluster.pod_networks],
            "service_networks": [str(network) for network in cluster.service_networks],
        },
        "service": {
            "type": endpoint.kind,
            "hosts": list(endpoint.hosts),
            "port": endpoint.port,
            "command": endpoint.command,
        },
        "reached": [_object(one) for one in report.objects],
        "missed": [str(network) for network in report.missed],
        "warnings": list(report.warnings),
        "health": [_check(one) for one in report.health],
    }


def with_warnings(report: Document, more: Sequence[str]) -> Document:
    """The same document with more warnings."""
    return {**report, "warnings": [*cast("Sequence[str]", report["warnings"]), *more]}


def of_clients(generation: Generation, sessions: Sequence[Session], warnings: Sequence[str]) -> Document:
    """What `client list --json` prints; `warnings` say why sessions may be missing, or what is odd about them."""
    live = {client.credential.serial_number for client in generation.live_clients}
    return {
        "version": VERSION,
        "clients": [
            _client(client, client.credential.serial_number in live, sessions) for client in generation.clients
        ],
        "warnings": list(warnings),
    }


def of_diagnosis(target: str | None, found: Sequence[Check]) -> Document:
    """What `doctor --json` prints: every layer in a packet's order, and the first that failed."""
    failed = next((one for one in found if one.verdict == "failed"), None)
    return {
        "version": VERSION,
        "target": target,
        "layers": [{**_check(one), "fix": one.fix or None} for one in found],
        "failed": failed and failed.name,
    }


def of_error(error: Exception) -> Document:
    """What `status --watch --json` prints while there is nothing else to say."""
    return {"version": VERSION, "error": str(error)}


def of_computer(
    computer: Computer, names: Names, step: Step | None, resolves: bool | None, warnings: Sequence[str]
) -> Document:
    """What `host status --json` prints of names; nobody knows whether they resolve while the VPN is not connected.

    Where the computer cannot have them there is no step, and a warning says why.
    """
    return {
        "version": VERSION,
        "system": computer.system,
        "name_server": str(names.server),
        "domains": list(names.domains),
        "settings": _settings(step),
        "connected": computer.tunnel is not None,
        "resolves": resolves,
        "warnings": list(warnings),
    }


def with_trust(found: Document, root: Root | None, step: Step | None) -> Document:
    """The same document with what it says of the CA for HTTPS: null, where the profile has none."""
    trusted = root and {"ca": root.name, "domain": root.domain, "root": root.pem, "settings": _settings(step)}
    return {**found, "https": trusted}


def _check(one: Check) -> Document:
    return {"name": one.name, "verdict": one.verdict, "evidence": one.evidence, "mend": one.mend or None}


def _settings(step: Step | None) -> list[Document]:
    return [{"what": setting.what, "state": setting.state} for setting in step.settings] if step else []


def _access(access: Access) -> dict[str, object]:
    answers = access.answers
    return {
        "version": VERSION,
        "project": answers.project_name,
        "endpoint": _endpoint(access),
        "profile": str(access.profiles[0]) if access.profiles else None,
        "tunnelblick_bundle": str(access.profiles[0].with_suffix(".tblk")) if access.profiles else None,
        "vpn_subnet": str(answers.vpn_subnet),
        "routes": [str(route) for route in answers.routes],
        "certificates": [
            {"name": expiry.name if expiry.role == "client" else expiry.role, "ends": expiry.at.isoformat()}
            for expiry in access.expiries
        ],
    }


def _endpoint(access: Access) -> dict[str, object]:
    answers = access.answers
    return {"host": answers.vpn_host, "port": answers.vpn_port, "protocol": answers.vpn_protocol}


def _container(container: ReportedContainer) -> Document:
    return {
        "name": container.name,
        "image": container.image,
        "addresses": [_place(place) for place in container.places],
        "ports": list(container.ports),
        "urls": list(container.urls),
        "project": container.project,
        "service": container.service,
        "state": container.state,
        "health": container.health,
        "published": [
            {"port": one.port, "host_address": one.host_address, "host_port": one.host_port}
            for one in container.published
        ],
        "names": list(container.names),
        "page": container.page,
    }


def _place(place: Place) -> Document:
    return {
        "network": place.network,
        "address": place.address,
        "reachable": place.reachability.reached,
        "reason": place.reachability.obstacle,
        "answered": place.reachability.answered,
    }


def _object(one: ReportedObject) -> Document:
    return {
        "kind": one.kind,
        "namespace": one.namespace,
        "name": one.name,
        "address": one.address,
        "ports": list(one.ports),
        "urls": list(one.urls),
        "reachable": one.reachability.reached,
        "reason": one.reachability.obstacle,
        "answered": one.reachability.answered,
    }


def _client(client: Client, live: bool, sessions: Sequence[Session]) -> Document:
    certificate = client.credential.certificate
    return {
        "name": client.name,
        "serial_number": f"{certificate.serial_number:x}",
        "issued": certificate.not_valid_before_utc.isoformat(),
        "ends": certificate.not_valid_after_utc.isoformat(),
        "revoked": not live,
        "sessions": [
            {
                "since": session.since.isoformat(),
                "real_address": session.real_address,
                "vpn_address": session.vpn_address,
            }
            for session in sessions
            if session.client == client.name
        ],
    }
