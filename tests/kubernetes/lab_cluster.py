"""A cluster for tests: the stand-in for its API, the lab's VM as its one node, and its user's tools on the Mac."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.docker_desktop import WEB_IMAGE, Engine, Mac
from tests.docker_desktop.cache import helm_and_kubectl
from tests.kubernetes.api import api_server
from tests.kubernetes.kubelet import Node, joined_node
from tests.kubernetes.store import Api
from tests.vpn import eventually

NAMESPACE = "docker-for-mac"
CLUSTER_ROUTES = ["172.16.0.0/12", "10.244.0.0/16", "10.96.0.0/12"]


@dataclass(frozen=True)
class Cluster:
    """The stand-in for a cluster, with its user's tools."""

    api: Api
    node: Node
    mac: Mac
    major: Literal[3, 4]

    @property
    def environment(self) -> dict[str, str]:
        """What its user's shell has for it."""
        path = f"{helm_and_kubectl(self.major)[0].parent}:{self.mac.environment['PATH']}"
        cache = self.api.kubeconfig.with_name("cache")  # not in the home of whoever runs the tests
        return {"PATH": path, "KUBECONFIG": str(self.api.kubeconfig), "KUBECACHEDIR": str(cache)}

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run helm, kubectl or a script that uses them as its user does."""
        environment = [f"{name}={value}" for name, value in self.environment.items()]
        return self.mac.run("env", *environment, program, *arguments, cwd=cwd, check=False)

    def start_web(self, name: str) -> str:
        """Start an nginx pod with a Service before it; return the pod's address."""
        labels = {"app": name}
        self.api.put({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "spec": {"containers": [{"name": "nginx", "image": WEB_IMAGE, "ports": [{"containerPort": 80}]}]},
        })  # fmt: skip
        self.api.put({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"type": "ClusterIP", "selector": labels, "ports": [{"port": 80, "name": "http"}]},
        })  # fmt: skip
        eventually(lambda: self.pod(name, "default").get("status", {}).get("phase") == "Running")
        return str(self.pod(name, "default")["status"]["podIP"])

    def pod(self, name: str, namespace: str = NAMESPACE) -> dict[str, Any]:
        """A pod as the API has it."""
        return self.api.get("Pod", name, namespace)


@contextmanager
def cluster(mac: Mac, engine: Engine, pod_cidr: str = "10.244.0.0/24") -> Iterator[Cluster]:
    """Start a cluster, whose one node gives pods addresses of this network, until the end of the block."""
    api_of_mac = api_server(network=Path(f"/proc/{mac.process_id}/ns/net"))
    with api_of_mac as api, joined_node(api, mac, engine, pod_cidr) as node:
        yield Cluster(api, node, mac, 4)
