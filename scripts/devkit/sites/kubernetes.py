"""What a Kubernetes cluster says of itself, its nodes, Services and pods."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import Any

import yaml

from devkit.addresses import ipv4_networks
from devkit.facts import Cluster, ClusterEndpoint, ClusterNode, Pod, Service
from devkit.sites.kubectl import Kubectl

VALID_RANGE = re.compile(r"range of valid IPs is ([0-9.]+/[0-9]+)")


def cluster(kubectl: Kubectl) -> Cluster:
    """Ask the cluster for its facts. Raises UserError when it does not answer."""
    version = kubectl.version()
    nodes = tuple(_node(item) for item in kubectl.items("nodes"))
    kubeadm = _kubeadm_networking(kubectl)
    return Cluster(
        context=kubectl.context,
        version=version,
        nodes=nodes,
        pod_networks=pod_networks(nodes, kubeadm.get("podSubnet", "")),
        service_networks=_service_networks(kubectl, kubeadm.get("serviceSubnet", "")),
    )


def services(kubectl: Kubectl) -> tuple[Service, ...]:
    """All Services with an address inside the cluster, by namespace and name."""
    found = (_service(item) for item in kubectl.items("services", "--all-namespaces"))
    return tuple(sorted((service for service in found if service), key=lambda one: (one.namespace, one.name)))


def pods(kubectl: Kubectl) -> tuple[Pod, ...]:
    """All running pods with an address of their own, by namespace and name."""
    found = (_pod(item) for item in kubectl.items("pods", "--all-namespaces"))
    return tuple(sorted((pod for pod in found if pod), key=lambda one: (one.namespace, one.name)))


def endpoint(kubectl: Kubectl, namespace: str, name: str) -> ClusterEndpoint | None:
    """Where a Service is reached from outside, or None when it is not there."""
    service = kubectl.get("service", name, "--namespace", namespace)
    if not service:
        return None
    kind, (port,) = service["spec"]["type"], service["spec"]["ports"]
    match kind:
        case "LoadBalancer":
            given = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
            hosts = tuple(entry.get("ip") or entry.get("hostname", "") for entry in given)
            return ClusterEndpoint(kind, hosts, port["port"], None)
        case "NodePort":
            nodes = tuple(node.address for node in map(_node, kubectl.items("nodes")))
            return ClusterEndpoint(kind, nodes, port["nodePort"], None)
    if port.get("protocol") == "UDP":  # which `kubectl port-forward` does not carry
        return ClusterEndpoint(kind, (service["spec"]["clusterIP"],), port["port"], None)
    forward = f"kubectl port-forward{kubectl.context_option} --namespace {namespace} service/{name} {port['port']}"
    return ClusterEndpoint(kind, ("127.0.0.1",), port["port"], forward)


def pod_networks(nodes: Iterable[ClusterNode], kubeadm: str) -> tuple[IPv4Network, ...]:
    """The networks that pods get their addresses from: what kubeadm was told, or else what the nodes have.

    By default a node gets a /24 of a /16, and the next node another: the whole /16 counts.
    """
    told = ipv4_networks(kubeadm.split(","))
    if told:
        return told
    own = [network for node in nodes for network in node.pod_networks]
    return tuple(collapse_addresses(network.supernet(new_prefix=min(network.prefixlen, 16)) for network in own))


def _kubeadm_networking(kubectl: Kubectl) -> Mapping[str, str]:
    """What kubeadm was told about networks, where it made the cluster."""
    found = kubectl.get("configmap", "kubeadm-config", "--namespace", "kube-system")
    configuration = yaml.safe_load(found["data"].get("ClusterConfiguration", "")) if found else None
    return (configuration or {}).get("networking") or {}


def _service_networks(kubectl: Kubectl, kubeadm: str) -> tuple[IPv4Network, ...]:
    declared: Sequence[str] = [cidr for item in kubectl.items("servicecidrs") for cidr in item["spec"]["cidrs"]]
    if not declared and not kubeadm:
        # Before 1.33 the API server tells its range only when it refuses an address outside it.
        spec = {"clusterIP": "192.0.2.1", "ports": [{"port": 1}]}
        probe = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "d4m-devkit-probe"}, "spec": spec}
        command = kubectl.command("create", "--dry-run=server", "--namespace", "default", "--filename", "-")
        declared = VALID_RANGE.findall(kubectl.run(command, check=False, given=json.dumps(probe)).stderr)
    return ipv4_networks(declared or kubeadm.split(","))


def _node(item: Mapping[str, Any]) -> ClusterNode:
    status = item["status"]
    found = status.get("addresses", [])
    addresses = {one["type"]: one["address"] for one in found if ":" not in one["address"]}  # no IPv6
    return ClusterNode(
        name=item["metadata"]["name"],
        address=addresses.get("ExternalIP") or addresses.get("InternalIP", ""),
        architecture=status.get("nodeInfo", {}).get("architecture", ""),
        pod_networks=ipv4_networks(item["spec"].get("podCIDRs") or [item["spec"].get("podCIDR", "")]),
    )


def _service(item: Mapping[str, Any]) -> Service | None:
    address = item["spec"].get("clusterIP", "")
    if "." not in address:  # it has none (None, IPv6)
        return None
    ports = tuple(f"{port['port']}/{port.get('protocol', 'TCP').lower()}" for port in item["spec"].get("ports", []))
    return Service(item["metadata"]["namespace"], item["metadata"]["name"], IPv4Address(address), ports)


def _pod(item: Mapping[str, Any]) -> Pod | None:
    address = item.get("status", {}).get("podIP", "")
    if "." not in address or item["spec"].get("hostNetwork") or item["status"].get("phase") != "Running":
        return None
    ports = tuple(
        f"{port['containerPort']}/{port.get('protocol', 'TCP').lower()}"
        for container in item["spec"]["containers"]
        for port in container.get("ports", [])
    )
    return Pod(item["metadata"]["namespace"], item["metadata"]["name"], IPv4Address(address), ports)
