"""What a Kubernetes cluster says of itself, as `kubectl` prints it."""

import json
from ipaddress import IPv4Network
from subprocess import CompletedProcess
from typing import Any, cast

import pytest
from devkit.facts import ClusterNode
from devkit.sites.kubectl import Kubectl
from devkit.sites.kubernetes import cluster, endpoint, pod_networks, pods, services

Objects = dict[str, list[dict[str, Any]]]


class FakeKubectl:
    """Answers with these objects by kind, and with a refusal to the Service that is tried."""

    context = "lab"
    context_option = " --context lab"

    def __init__(self, objects: Objects | None = None, refusal: str = "") -> None:
        self._objects = objects or {}
        self._refusal = refusal
        self.tried: list[tuple[list[str], Any]] = []

    def version(self) -> str:
        """The cluster's."""
        return "1.36.2"

    def items(self, *what: str) -> list[dict[str, Any]]:
        """All of a kind."""
        kind, *scope = what
        assert scope == (["--all-namespaces"] if kind in ("services", "pods") else [])
        return self._objects.get(kind, [])

    def get(self, kind: str, name: str, option: str, namespace: str) -> dict[str, Any] | None:
        """One, by its name and namespace."""
        assert option == "--namespace"
        there = (one for one in self._objects.get(kind, []) if one["metadata"] == meta(name, namespace))
        return next(there, None)

    def command(self, *arguments: str) -> list[str]:
        """The words to run."""
        return ["kubectl", *arguments]

    def run(self, command: list[str], check: bool = True, given: str | None = None) -> CompletedProcess[str]:
        """Refuses, and remembers what was tried."""
        assert not check
        self.tried.append((command, json.loads(given or "")))
        return CompletedProcess(command, 1, "", self._refusal)


def asked(objects: Objects | None = None, refusal: str = "") -> Kubectl:
    return cast("Kubectl", FakeKubectl(objects, refusal))


def meta(name: str, namespace: str = "default") -> dict[str, str]:
    return {"namespace": namespace, "name": name}


def node(name: str, spec: dict[str, Any], *addresses: tuple[str, str]) -> dict[str, Any]:
    status = {"addresses": [{"type": kind, "address": address} for kind, address in addresses]}
    return {"metadata": {"name": name}, "spec": spec, "status": status}


ONE = node("one", {"podCIDRs": ["10.42.0.0/24", "fd00::/64"]}, ("InternalIP", "192.0.2.1"), ("InternalIP", "fd00::1"))
ONE["status"]["nodeInfo"] = {"architecture": "arm64"}
TWO = node("two", {"podCIDR": "10.42.1.0/24"}, ("InternalIP", "192.0.2.2"), ("ExternalIP", "198.51.100.2"))
BARE = {"metadata": {"name": "bare"}, "spec": {}, "status": {}}


def kubeadm(text: str) -> Objects:
    return {"configmap": [{"metadata": meta("kubeadm-config", "kube-system"), "data": {"ClusterConfiguration": text}}]}


def test_nodes_are_reached_from_outside_where_they_can_be() -> None:
    found = cluster(asked({"nodes": [ONE, TWO, BARE]}))
    assert (found.context, found.version) == ("lab", "1.36.2")
    assert found.nodes == (
        ClusterNode("one", "192.0.2.1", "arm64", (IPv4Network("10.42.0.0/24"),)),
        ClusterNode("two", "198.51.100.2", "", (IPv4Network("10.42.1.0/24"),)),
        ClusterNode("bare", "", "", ()),
    )
    assert [str(network) for network in found.pod_networks] == ["10.42.0.0/16"]


def test_what_kubeadm_was_told_comes_before_what_the_nodes_have() -> None:
    text = "networking: {podSubnet: '10.32.0.0/12,fd00::/48', serviceSubnet: '10.96.0.0/16,fd01::/108'}"
    kubectl = FakeKubectl({"nodes": [ONE]} | kubeadm(text))
    found = cluster(cast("Kubectl", kubectl))
    assert [str(network) for network in found.pod_networks] == ["10.32.0.0/12"]
    assert [str(network) for network in found.service_networks] == ["10.96.0.0/16"]
    assert kubectl.tried == []


@pytest.mark.parametrize("text", ["", "networking:", "kubernetesVersion: v1.36.2"])
def test_kubeadm_may_have_been_told_nothing(text: str) -> None:
    assert cluster(asked({"nodes": [ONE]} | kubeadm(text))).pod_networks == (IPv4Network("10.42.0.0/16"),)
    nothing_at_all: Objects = {"configmap": [{"metadata": meta("kubeadm-config", "kube-system"), "data": {}}]}
    assert cluster(asked(nothing_at_all)).pod_networks == ()


def test_declared_service_networks_come_before_what_kubeadm_was_told() -> None:
    declared: Objects = {"servicecidrs": [{"spec": {"cidrs": ["10.43.0.0/16", "fd00::/108"]}}]}
    found = cluster(asked(declared | kubeadm("networking: {serviceSubnet: 10.96.0.0/16}")))
    assert [str(network) for network in found.service_networks] == ["10.43.0.0/16"]


def test_cluster_that_declares_no_service_network_is_asked_by_trying_without_making_anything() -> None:
    kubectl = FakeKubectl(refusal="failed to allocate IP 192.0.2.1: The range of valid IPs is 10.43.0.0/16")
    assert cluster(cast("Kubectl", kubectl)).service_networks == (IPv4Network("10.43.0.0/16"),)
    ((command, probe),) = kubectl.tried
    assert command[1:] == ["create", "--dry-run=server", "--namespace", "default", "--filename", "-"]
    assert (probe["apiVersion"], probe["kind"], probe["metadata"]) == ("v1", "Service", {"name": "d4m-devkit-probe"})
    assert probe["spec"] == {"clusterIP": "192.0.2.1", "ports": [{"port": 1}]}
    assert cluster(asked(refusal="Forbidden")).service_networks == ()


def test_nodes_networks_count_as_the_16_that_they_are_a_part_of() -> None:
    own = ClusterNode("one", "", "", (IPv4Network("10.42.7.0/24"), IPv4Network("10.64.0.0/14")))
    assert [str(network) for network in pod_networks([own], "")] == ["10.42.0.0/16", "10.64.0.0/14"]


def service(name: str, namespace: str, address: str | None, *ports: dict[str, Any]) -> dict[str, Any]:
    spec = {"ports": list(ports)} if address is None else {"clusterIP": address, "ports": list(ports)}
    return {"metadata": meta(name, namespace), "spec": spec}


def test_services_with_an_ipv4_address_are_listed_by_namespace_and_name() -> None:
    given = [
        service("web", "shop", "10.43.0.9", {"port": 80}, {"port": 53, "protocol": "UDP"}),
        service("api", "shop", "10.43.0.8"),
        service("headless", "shop", "None", {"port": 80}),
        service("elsewhere", "shop", None),
        service("six", "shop", "fd00::1"),
        service("zed", "app", "10.43.0.7"),
    ]
    del given[1]["spec"]["ports"]
    found = services(asked({"services": given}))
    assert [(one.namespace, one.name, str(one.address)) for one in found] == [
        ("app", "zed", "10.43.0.7"), ("shop", "api", "10.43.0.8"), ("shop", "web", "10.43.0.9")
    ]  # fmt: skip
    assert found[2].ports == ("80/tcp", "53/udp")
    assert found[1].ports == ()


def pod(name: str, namespace: str, address: str, host: bool = False, phase: str = "Running") -> dict[str, Any]:
    containers = [{"ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]}, {}]
    spec = {"containers": containers} | ({"hostNetwork": True} if host else {})
    return {"metadata": meta(name, namespace), "spec": spec, "status": {"podIP": address, "phase": phase}}


def test_running_pods_with_an_address_of_their_own_are_listed_by_namespace_and_name() -> None:
    given = [
        pod("web", "shop", "10.42.0.9"),
        pod("api", "shop", "10.42.0.8"),
        pod("on-the-host", "shop", "192.0.2.1", host=True),
        pod("done", "shop", "10.42.0.7", phase="Succeeded"),
        pod("six", "shop", "fd00::1"),
        pod("zed", "app", "10.42.0.6"),
        {"metadata": meta("new"), "spec": {"containers": []}},
    ]
    found = pods(asked({"pods": given}))
    assert [(one.namespace, one.name, str(one.address)) for one in found] == [
        ("app", "zed", "10.42.0.6"), ("shop", "api", "10.42.0.8"), ("shop", "web", "10.42.0.9")
    ]  # fmt: skip
    assert found[0].ports == ("80/tcp", "53/udp")


def gateway(kind: str, port: dict[str, Any], **status: Any) -> Objects:
    spec = {"type": kind, "ports": [port], "clusterIP": "10.43.0.9"}
    return {"service": [{"metadata": meta("devkit", "vpn"), "spec": spec} | status], "nodes": [ONE, TWO]}


@pytest.mark.parametrize(
    ("there", "hosts", "port", "command"),
    [
        (gateway("LoadBalancer", {"port": 1194}), (), 1194, None),
        (gateway("LoadBalancer", {"port": 1194}, status={}), (), 1194, None),
        (gateway("LoadBalancer", {"port": 1194}, status={"loadBalancer": {"ingress": None}}), (), 1194, None),
        (gateway("LoadBalancer", {"port": 1194},
                 status={"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}, {"hostname": "lb.example.org"}, {}]}}),
         ("192.0.2.9", "lb.example.org", ""), 1194, None),
        (gateway("NodePort", {"port": 1194, "nodePort": 31194}), ("192.0.2.1", "198.51.100.2"), 31194, None),
        (gateway("ClusterIP", {"port": 1194, "protocol": "TCP"}), ("127.0.0.1",), 1194,
         "kubectl port-forward --context lab --namespace vpn service/devkit 1194"),
        (gateway("ClusterIP", {"port": 1194, "protocol": "UDP"}), ("10.43.0.9",), 1194, None),
    ],
)  # fmt: skip
def test_service_is_reached_in_the_way_of_its_type(
    there: Objects, hosts: tuple[str, ...], port: int, command: str | None
) -> None:
    found = endpoint(asked(there), "vpn", "devkit")
    assert found is not None
    assert found.kind == there["service"][0]["spec"]["type"]
    assert (found.hosts, found.port, found.command) == (hosts, port, command)


def test_service_that_is_not_there_is_reached_nowhere() -> None:
    assert endpoint(asked(), "vpn", "devkit") is None
