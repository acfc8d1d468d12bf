"""What the report says of clusters that the lab does not have."""

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from devkit import host
from devkit.answers import read_answers
from devkit.facts import Cluster, ClusterEndpoint, ClusterFacts, ClusterNode, Pod, Service
from devkit.material.state import first_profiles, read_generation
from devkit.report.access import make_access
from devkit.report.cluster import ClusterReport, as_text, make_report
from devkit.sites.kubernetes import pod_networks
from devkit.sites.pods import restarts, states, waits_for
from rich.console import Console

from tests.unit.condition import well

SERVICES = (IPv4Network("10.43.0.0/16"),)
AT_HOME = ClusterEndpoint("LoadBalancer", ("localhost",), 1194, None)


def node(name: str, *networks: str) -> ClusterNode:
    return ClusterNode(name, "192.0.2.7", "arm64", tuple(map(IPv4Network, networks)))


def report_of(
    project: Path, endpoint: ClusterEndpoint, *pods: Pod, services: tuple[Service, ...] = (),
    cluster: Cluster | None = None, vpn_host: str = "127.0.0.1",
) -> ClusterReport:  # fmt: skip
    answers = replace(read_answers(project), vpn_host=vpn_host)
    cluster = cluster or Cluster("k3s", "1.31.4+k3s1", (node("one"),), (IPv4Network("172.16.0.0/16"),), ())
    same_host = any(host.same(vpn_host, other) for other in endpoint.hosts)
    access = make_access(answers, first_profiles(project, answers), read_generation(project), datetime.now(UTC))
    facts = ClusterFacts(cluster, endpoint, services, pods, same_host)
    return make_report(access, facts, well(facts, answers), {}, "./scripts/up.py --kubernetes")


def printed(report: ClusterReport) -> str:
    console = Console(width=200, record=True, file=None)
    with console.capture() as capture:
        console.print(as_text(report, "macOS", Path("/")))
    return capture.get()


@pytest.mark.parametrize(
    ("nodes", "kubeadm", "expected"),
    [
        (["10.42.0.0/24", "10.42.1.0/24"], "", ["10.42.0.0/16"]),  # k3s, and kind
        (["10.1.0.0/24"], "10.1.0.0/16", ["10.1.0.0/16"]),  # Docker Desktop
        (["10.0.0.0/24"], "10.0.0.0/14,fd00::/48", ["10.0.0.0/14"]),
        (["10.0.0.0/14"], "", ["10.0.0.0/14"]),
        ([], "", []),
    ],
)
def test_pods_have_the_clusters_network_not_one_nodes(nodes: list[str], kubeadm: str, expected: list[str]) -> None:
    found = pod_networks([node(f"node-{network}", network) for network in nodes], kubeadm)
    assert [str(network) for network in found] == expected


def test_addresses_that_no_node_knows_are_missed_by_the_network_they_are_in(project: Path) -> None:
    pod = Pod("default", "calico", IPv4Address("192.168.77.9"), ())
    assert [str(network) for network in report_of(project, AT_HOME, pod).missed] == ["192.168.77.0/24"]


def test_cluster_that_says_nothing_of_its_networks(project: Path) -> None:
    text = printed(report_of(project, AT_HOME, cluster=Cluster("shared", "1.36.2", (), (), ())))
    assert "nodes unknown" in text
    assert text.count("unknown: this cluster does not say, or you may not ask") == 2


@pytest.mark.parametrize(
    ("endpoint", "vpn_host", "warning"),
    [
        (AT_HOME, "127.0.0.1", None),
        (AT_HOME, "localhost", None),
        (ClusterEndpoint("LoadBalancer", ("lb.example.org",), 1194, None), "lb.example.org", None),
        (
            ClusterEndpoint("LoadBalancer", ("192.0.2.9",), 1194, None), "127.0.0.1",
            "the Service is at 192.0.2.9:1194: change them with `uvx copier update --trust --defaults "
            "--vcs-ref=:current: --data rotate=none --data vpn_host=192.0.2.9 --data vpn_port=1194`",
        ),
        (ClusterEndpoint("NodePort", ("192.0.2.7",), 30094, None), "192.0.2.7", "the Service is at 192.0.2.7:30094"),
        (
            ClusterEndpoint("LoadBalancer", (), 1194, None), "127.0.0.1",
            "this cluster has no load balancer: choose another way in with `uvx copier update --trust --defaults "
            "--vcs-ref=:current: --data rotate=none --data service_type=ClusterIP` or `uvx copier update --trust "
            "--defaults --vcs-ref=:current: --data rotate=none --data service_type=NodePort --data vpn_port=31194`.",
        ),
    ],
)  # fmt: skip
def test_profiles_that_name_another_endpoint_than_the_service_has(
    project: Path, endpoint: ClusterEndpoint, vpn_host: str, warning: str | None
) -> None:
    warnings = report_of(project, endpoint, vpn_host=vpn_host).warnings
    assert len(warnings) == (1 if warning else 0)
    assert (warning or "") in "".join(warnings)


def test_port_forward_is_given_as_a_command_to_keep_running(project: Path) -> None:
    command = "kubectl port-forward --namespace docker-for-mac service/devkit 1194"
    text = printed(report_of(project, ClusterEndpoint("ClusterIP", ("127.0.0.1",), 1194, command)))
    assert f"keep this running:  {command}" in text


def test_many_places_are_cut_short_and_those_of_the_user_come_first(project: Path) -> None:
    own = Pod("default", "mine", IPv4Address("172.16.0.9"), ("8080/tcp",))
    others = [Pod("kube-system", f"pod-{number}", IPv4Address(f"172.16.1.{number}"), ()) for number in range(30)]
    lines = printed(report_of(project, AT_HOME, *others, own)).splitlines()
    heading = next(number for number, line in enumerate(lines) if line.startswith("Kind"))
    assert lines[heading + 1] == "Namespace default"
    assert "http://172.16.0.9:8080" in lines[heading + 2]
    assert "31 of 31 Services and pods reached" in lines
    assert "and 11 more: kubectl get services,pods --all-namespaces" in lines


def pod_status(**status: object) -> dict[str, object]:
    return {"metadata": {"name": "devkit-0", "uid": "1"}, "status": status}


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({"containerStatuses": [{"name": "openvpn", "ready": True}]}, []),
        # It says nothing of why, so something else must.
        ({"containerStatuses": [{"name": "openvpn", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, []),
        (
            {"containerStatuses": [
                {"name": "openvpn", "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}}}
            ]},
            ["devkit-0: CreateContainerConfigError: no key"],
        ),
        (
            {"containerStatuses": [
                {"name": "openvpn", "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                 "lastState": {"terminated": {"message": "Options error: x\nUse --help for more information."}}}
            ]},
            ["devkit-0: openvpn ended with: Options error: x"],
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]},
            ["devkit-0: 0/3 nodes are available"],
        ),
    ],
)  # fmt: skip
def test_pod_that_is_not_ready_is_quoted(status: dict[str, object], said: list[str]) -> None:
    assert list(waits_for(pod_status(**status))) == said


def test_restarts_of_a_pod_on_its_way_out_do_not_count() -> None:
    containers = [{"name": "openvpn", "ready": False, "restartCount": 7}]
    leaving = pod_status(containerStatuses=containers)
    leaving["metadata"] = {"name": "devkit-0", "uid": "1", "deletionTimestamp": "2026-11-23T00:00:00Z"}
    assert not restarts([leaving])
    assert list(restarts([pod_status(containerStatuses=containers)]).values()) == [7]


def test_services_have_their_row(project: Path) -> None:
    cluster = Cluster("k3s", "1.31.4", (node("one"),), (), SERVICES)
    service = Service("default", "web", IPv4Address("10.43.0.9"), ("80/tcp",))
    report = report_of(project, AT_HOME, services=(service,), cluster=cluster)
    assert [str(network) for network in report.missed] == ["10.43.0.0/16"]
    assert "no: outside the routes" in printed(report)


def test_ports_that_no_browser_opens_stay_beside_the_urls(project: Path) -> None:
    pod = Pod("default", "mine", IPv4Address("172.16.0.9"), ("5432/tcp", "8080/tcp", "53/udp"))
    text = printed(report_of(project, AT_HOME, pod))
    assert "http://172.16.0.9:8080" in text
    assert "5432/tcp 53/udp" in text
    assert "8080/tcp" not in text


def test_user_who_may_list_nothing_reads_so_instead_of_a_heading_alone(project: Path) -> None:
    text = printed(report_of(project, AT_HOME))
    assert "No Service and no pod is visible here: you may not list them in all namespaces" in text
    assert "Kind" not in text
    assert "kubectl create deployment hello --image=nginx:alpine --port=80 --context k3s" in text


def test_pod_that_is_not_ready_says_what_it_is_doing() -> None:
    creating = {"name": "vpn", "ready": False, "state": {"waiting": {"reason": "ContainerCreating"}}}
    running = {"name": "vpn", "ready": False, "state": {"running": {}}}
    ready = pod_status(conditions=[{"type": "Ready", "status": "True"}])
    leaving = pod_status(phase="Running")
    leaving["metadata"] = {"name": "devkit-0", "uid": "1", "deletionTimestamp": "2026-11-23T00:00:00Z"}
    pods = [pod_status(containerStatuses=[creating]), pod_status(phase="Running", containerStatuses=[running]),
            leaving, ready]  # fmt: skip
    assert list(states(pods)) == [f"devkit-0: {what}" for what in ("ContainerCreating", "not ready yet", "Terminating")]
