"""The rest of a cluster around the stand-in for the API: pods that really run, in the lab's engine.

    with api_server() as api, joined_node(api, mac, engine) as node:
        api.put({"apiVersion": "v1", "kind": "Pod", ...})

A pod is a container that holds the network namespace, and beside it each container of the manifest with its own
command, environment, mounts and securityContext, as a kubelet runs it. A StatefulSet's and a DaemonSet's pods are made,
and replaced when the template changes. A Service's cluster IP leads to its ready pods, and one of type LoadBalancer is
published on 127.0.0.1, as Docker Desktop does.
"""

import base64
import json
import os
import subprocess
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from ipaddress import IPv4Network
from itertools import cycle
from pathlib import Path
from typing import Any

from tests.docker_desktop import BALANCER_IMAGE, BASE_IMAGE, Engine, Mac
from tests.kubernetes.store import Api, Refusal

Document = dict[str, Any]

POD_NETWORK = "pods"
CLUSTER_DNS = "10.96.0.10"  # where a Service of a cluster's DNS would be
GRAVE = "grave"  # a bridge that nobody is on
SECONDS_BETWEEN_LOOKS = 0.2
SECONDS_BETWEEN_PROBES = 2.0  # of a container that is healthy; a manifest's own are longer
REVISION = "controller-revision-hash"
LABEL = "pod"  # of every container here: the pod that it belongs to


@contextmanager
def joined_node(api: Api, mac: Mac, engine: Engine, pod_cidr: str) -> Iterator["Node"]:
    """Join the lab's VM to the stand-in as its one node, until the end of the block."""
    node = Node(api, mac, engine, pod_cidr)
    thread = threading.Thread(target=node.work)
    thread.start()
    try:
        yield node
    finally:
        node.stopping.set()
        thread.join()


class Node:
    """What scheduler, controllers, kubelet and kube-proxy do, as far as this project meets them."""

    def __init__(self, api: Api, mac: Mac, engine: Engine, pod_cidr: str) -> None:
        self.stopping = threading.Event()
        self._api = api
        self._mac = mac
        self._engine = engine
        self.has_local_images = True  # as on Docker Desktop, whose engine is the node's runtime
        self.seconds_to_start = 0.0  # on top of what containers take here
        self._running: dict[str, str] = {}  # name and uid of each pod
        self._forwarded: dict[str, str] = {}
        self._published: dict[int, str] = {}  # port and cluster IP of each load balancer
        self._warned: set[tuple[str, str]] = set()  # identity of a pod, and reason
        self._healthy_until: dict[tuple[str, str], float] = {}  # name of a container, and when it was started
        api.execute = self._execute
        self.address = engine.run("ip", "-4", "-brief", "address", "show", "tap0").stdout.split()[2].split("/")[0]
        # As the usual plugins do, a pod gets the next address of all, not the one that has just become free.
        lower, upper = IPv4Network(pod_cidr).subnets()
        self._next_addresses = cycle(map(str, list(lower.hosts())[1:]))
        self._addresses: dict[str, str] = {}  # of each pod that has its own
        mac.run("docker", "network", "create", "--subnet", pod_cidr, "--gateway", str(lower[1]), "--ip-range",
                str(upper), POD_NETWORK)  # fmt: skip
        engine.run("ip", "link", "add", GRAVE, "type", "bridge")
        engine.run("ip", "link", "set", GRAVE, "up")
        api.put({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"},
            "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]},
            "status": {
                "addresses": [{"type": "InternalIP", "address": self.address}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {
                    "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "docker://28.5.2",
                    "kernelVersion": "",
                    "kubeProxyVersion": "", "kubeletVersion": f"v{api.version}.0", "machineID": "",
                    "operatingSystem": "linux", "osImage": "Docker Desktop", "systemUUID": "",
                },
            },
        })  # fmt: skip
        api.put({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
                 "spec": {"cidrs": ["10.96.0.0/12"]}})  # fmt: skip

    def work(self) -> None:
        """Bring what runs to what is wanted, again and again."""
        while not self.stopping.wait(SECONDS_BETWEEN_LOOKS):
            try:
                self._look()
            except (Refusal, subprocess.SubprocessError):  # such as an object that was deleted meanwhile
                traceback.print_exc()

    def container(self, pod: str, container: str) -> str:
        """The name in Docker of a pod's container."""
        return f"k8s-{pod}-{container}"

    def _look(self) -> None:
        for wanted in (*self._api.find("StatefulSet"), *self._api.find("DaemonSet")):
            self._control(wanted)
        self._collect_garbage()
        self._name_pods()
        pods = self._api.find("Pod")
        wanted_pods = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in pods}
        for name in [name for name, uid in self._running.items() if wanted_pods.get(name) != uid]:
            self._remove(name)
        for pod in pods:
            try:
                self._write_volumes(pod)
            except Refusal as refusal:  # a Secret that is not there, or not any more
                self._wait(pod, "FailedMount", f"MountVolume.SetUp failed: {refusal}")
            else:
                if pod["metadata"]["name"] not in self._running:
                    self._start(pod)
            if pod["metadata"]["name"] in self._running:
                self._report(pod)
        services = self._api.find("Service")
        for service in services:
            self._forward(service)
        addresses = {service["spec"].get("clusterIP") for service in services}
        for port in [port for port, address in self._published.items() if address not in addresses]:
            del self._published[port]
            self._docker("rm", "--force", f"k8s-balancer-{port}")

    def _collect_garbage(self) -> None:
        owners = (*self._api.find("StatefulSet"), *self._api.find("DaemonSet"))
        alive = {owner["metadata"]["uid"] for owner in owners}
        for pod in self._api.find("Pod"):
            if any(owner["uid"] not in alive for owner in pod["metadata"].get("ownerReferences", [])):
                self._api.delete("Pod", pod["metadata"]["name"], pod["metadata"]["namespace"])

    def _execute(self, pod: Document, container: str, command: list[str]) -> subprocess.Popen[bytes]:
        words = ["docker", "exec", "--interactive", self.container(pod["metadata"]["name"], container), *command]
        return subprocess.Popen(
            self._mac.command(*words), env=self._mac.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )  # fmt: skip

    # The controllers of StatefulSets and DaemonSets.

    def _control(self, wanted: Document) -> None:
        metadata, spec = wanted["metadata"], wanted["spec"]
        revision = f"{abs(hash(json.dumps(spec['template'], sort_keys=True))):x}"[:10]
        pods = {
            pod["metadata"]["name"]: pod
            for pod in self._api.find("Pod", metadata["namespace"])
            if pod["metadata"].get("ownerReferences", [{}])[0].get("uid") == metadata["uid"]
        }
        # There is one node, so a DaemonSet has one pod.
        names = [f"{metadata['name']}-{number}" for number in range(spec.get("replicas", 1))]
        current = [name for name in names if name in pods and _revision(pods[name]) == revision]
        for name, pod in pods.items():
            if name not in names or _revision(pod) != revision:
                self._api.delete("Pod", name, metadata["namespace"])
        for name in names:
            if name not in pods:
                self._api.put(_pod_of(wanted, name, revision))
        ready = sum(_is_ready(pods[name]) for name in current)
        status = {
            "observedGeneration": metadata["generation"], "replicas": len(names), "readyReplicas": ready,
            "availableReplicas": ready, "updatedReplicas": len(current), "currentReplicas": len(current),
            "currentRevision": revision, "updateRevision": revision,
        }  # fmt: skip
        if wanted["kind"] == "DaemonSet":
            status = {
                "observedGeneration": metadata["generation"], "desiredNumberScheduled": 1, "numberMisscheduled": 0,
                "currentNumberScheduled": len(pods), "updatedNumberScheduled": len(current), "numberReady": ready,
                "numberAvailable": ready,
            }  # fmt: skip
        if wanted.get("status") != status:
            self._api.put(wanted | {"status": status})

    # The kubelet.

    def _start(self, pod: Document) -> None:
        metadata, spec = pod["metadata"], pod["spec"]
        name = metadata["name"]
        self._running[name] = metadata["uid"]
        self.stopping.wait(self.seconds_to_start)
        shared = ["--network", "host", f"--mount=type=bind,source={self._hosts},target=/etc/hosts,readonly"]
        if not spec.get("hostNetwork"):
            # As Calico leaves a pod, though its node forwards.
            names = self._service_names(metadata["namespace"])
            address = self._addresses[name] = next(self._next_addresses)
            self._engine.run("ip", "route", "del", address, "dev", GRAVE, check=False)
            self._docker("run", "--detach", "--name", self.container(name, "pause"), "--label", f"{LABEL}={name}",
                         "--network", POD_NETWORK, "--ip", address, "--hostname", name,
                         "--sysctl", "net.ipv4.ip_forward=0",
                         "--stop-signal", "KILL", "--cap-drop", "ALL", *names, BASE_IMAGE, "sleep",
                         "infinity")  # fmt: skip
            self._resolver.write_text(f"nameserver {CLUSTER_DNS}\n")
            resolver = f"--mount=type=bind,source={self._resolver},target=/etc/resolv.conf,readonly"
            shared = ["--network", f"container:{self.container(name, 'pause')}", resolver]
        pod["status"] = {"phase": "Pending", "hostIP": self.address, "podIP": self._pod_address(pod)}
        if not self._initialise(pod, shared):
            return
        for container in spec["containers"]:
            if not self.has_local_images and "/" not in container["image"]:
                continue
            self._docker("run", "--detach", "--name", self.container(name, container["name"]), "--label",
                         f"{LABEL}={name}", *shared, *self._options(pod, container), container["image"],
                         *container.get("command", [])[1:], *container.get("args", []))  # fmt: skip
            if "readinessProbe" in container:
                self._warn(pod, "Unhealthy", "Readiness probe failed: ")  # the first, as a real one's often does

    def _initialise(self, pod: Document, shared: list[str]) -> bool:
        """Run the containers that must have ended before the others start; one that fails is run again later."""
        name = pod["metadata"]["name"]
        for container in pod["spec"].get("initContainers", []) if self.has_local_images else []:
            run = self._docker("run", "--name", self.container(name, container["name"]), "--label", f"{LABEL}={name}",
                               *shared, *self._options(pod, container, restart=False), container["image"],
                               *container.get("command", [])[1:])  # fmt: skip
            if run.returncode != 0:
                status = {
                    "name": container["name"], "ready": False, "restartCount": 1, "image": container["image"],
                    "imageID": "", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": run.returncode, "reason": "Error",
                                                 "message": run.stdout + run.stderr}},
                }  # fmt: skip
                self._remove(name)
                self._api.put(pod | {"status": pod["status"] | {"initContainerStatuses": [status]}})
                return False
        return True

    def _options(self, pod: Document, container: Document, restart: bool = True) -> Iterator[str]:
        """What `docker run` must be told for a container to be as the kubelet makes it."""
        security = container.get("securityContext", {})
        if restart and pod["spec"].get("restartPolicy", "Always") == "Always":
            yield "--restart=always"
        if command := container.get("command"):
            yield f"--entrypoint={command[0]}"
        if "runAsUser" in security:
            group = pod["spec"].get("securityContext", {}).get("fsGroup")
            yield f"--user={security['runAsUser']}:0"
            yield from [f"--group-add={group}"] if group is not None else []
        yield from (f"--cap-drop={name}" for name in security.get("capabilities", {}).get("drop", []))
        yield from (f"--cap-add={name}" for name in security.get("capabilities", {}).get("add", []))
        if security.get("readOnlyRootFilesystem"):
            yield "--read-only"
        if security.get("allowPrivilegeEscalation") is False:
            yield "--security-opt=no-new-privileges"
        if memory := container.get("resources", {}).get("limits", {}).get("memory"):
            yield f"--memory={memory.lower().removesuffix('i')}"
        for variable in container.get("env", []):
            yield f"--env={variable['name']}={_value(pod, variable)}"
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            volume = volumes[mount["name"]]
            if "emptyDir" in volume:
                yield f"--tmpfs={mount['mountPath']}:exec,mode=1777"
                continue
            source = volume["hostPath"]["path"] if "hostPath" in volume else self._folder(pod, mount["name"])
            read_only = ",readonly" if mount.get("readOnly") else ""
            yield f"--mount=type=bind,source={source},target={mount['mountPath']}{read_only}"

    def _write_volumes(self, pod: Document) -> None:
        """Bring Secrets and ConfigMaps to the pod's folders, also while it runs."""
        namespace = pod["metadata"]["namespace"]
        nested = {mount["mountPath"] for container in _containers(pod) for mount in
                  container.get("volumeMounts", [])}  # fmt: skip
        for volume in pod["spec"].get("volumes", []):
            if "secret" in volume:
                source = volume["secret"]
                data = self._api.get("Secret", source["secretName"], namespace).get("data") or {}
                contents = {key: base64.b64decode(value) for key, value in data.items()}
            elif "configMap" in volume:
                source = volume["configMap"]
                contents = {key: value.encode() for key, value in
                            self._api.get("ConfigMap", source["name"], namespace)["data"].items()}  # fmt: skip
            else:
                continue
            folder = self._folder(pod, volume["name"])
            folder.mkdir(parents=True, exist_ok=True)
            for path in nested:  # a mount inside of a mount gets its folder
                for outer in nested:
                    if path.startswith(f"{outer}/") and volume["name"] == _volume_at(pod, outer):
                        (folder / path.removeprefix(f"{outer}/")).mkdir(exist_ok=True)
            mode = source.get("defaultMode", 0o644)
            items = source.get("items") or [{"key": key, "path": key} for key in contents]
            group = pod["spec"].get("securityContext", {}).get("fsGroup", 0)
            for item in items:
                _write(folder / item["path"], contents[item["key"]], item.get("mode", mode), group)
            for path in folder.iterdir():
                if path.is_file() and path.name not in {item["path"] for item in items}:
                    path.unlink()

    def _report(self, pod: Document) -> None:
        """Write a pod's status: its address, its phase, and whether its probes succeed."""
        name = pod["metadata"]["name"]
        states = []
        containers = pod["spec"]["containers"]
        inspected = self._docker(
            "container", "inspect", *(self.container(name, container["name"]) for container in containers)
        )
        known = {found["Name"].removeprefix("/"): found for found in json.loads(inspected.stdout or "[]")}
        for container in containers:
            found = known.get(self.container(name, container["name"]), {})
            state = found.get("State", {}) | {"RestartCount": found.get("RestartCount", 0)}
            if not found:
                state["waiting"] = {"reason": "ImagePullBackOff", "message": f"Back-off pulling {container['image']}"}
            states.append((container, state))
        exited = [state["ExitCode"] for _, state in states if state.get("Status") == "exited"]
        if len(exited) == len(states) and pod["spec"].get("restartPolicy") == "Never":
            phase = "Failed" if any(exited) else "Succeeded"
        else:
            phase = "Running"
        ready = [phase == "Running" and self._is_healthy(name, container, state) for container, state in states]
        conditions = [{"type": kind, "status": str(all(ready))} for kind in ("Ready", "ContainersReady")]
        status = {
            "phase": phase, "hostIP": self.address, "podIP": self._pod_address(pod), "conditions": conditions,
            "podIPs": [{"ip": self._pod_address(pod)}],
            "containerStatuses": [
                {"name": container["name"], "ready": is_ready, "restartCount": state.get("RestartCount", 0),
                 "image": container["image"], "imageID": "", "lastState": self._last_state(name, container, state),
                 "state": {"waiting": state["waiting"]} if "waiting" in state else {"running": {}}}
                for (container, state), is_ready in zip(states, ready, strict=True)
            ],
        }  # fmt: skip
        if pod.get("status") != status:
            with suppress(Refusal):  # deleted meanwhile
                self._api.get("Pod", name, pod["metadata"]["namespace"])
                self._api.put(pod | {"status": status})

    def _wait(self, pod: Document, reason: str, message: str) -> None:
        """What a pod says that cannot be started yet."""
        self._warn(pod, reason, message)
        if pod["metadata"]["name"] not in self._running:
            state = {"ready": False, "restartCount": 0, "imageID": "", "lastState": {},
                     "state": {"waiting": {"reason": "ContainerCreating"}}}  # fmt: skip
            states = [state | {"name": one["name"], "image": one["image"]} for one in pod["spec"]["containers"]]
            with suppress(Refusal):  # deleted meanwhile
                self._api.get("Pod", pod["metadata"]["name"], pod["metadata"]["namespace"])
                self._api.put(pod | {"status": {"phase": "Pending", "containerStatuses": states}})

    def _warn(self, pod: Document, reason: str, message: str) -> None:
        """Leave an event, which outlasts what it is about; a kubelet says it again and again."""
        metadata = pod["metadata"]
        if (metadata["uid"], reason) in self._warned:
            return
        self._warned.add((metadata["uid"], reason))
        about = {"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]}
        named = {
            "name": f"{metadata['name']}.{metadata['uid'][:8]}-{reason.lower()}",
            "namespace": metadata["namespace"],
        }
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with suppress(Refusal):  # its namespace has gone
            self._api.put({
                "apiVersion": "v1", "kind": "Event", "metadata": named, "involvedObject": about, "type": "Warning",
                "reason": reason, "message": message, "lastTimestamp": now,
            })  # fmt: skip

    def _last_state(self, pod: str, container: Document, state: Document) -> Document:
        """How a container that was started again had ended; its log is its message, as its policy says."""
        if not state["RestartCount"]:
            return {}
        log = self._docker("logs", "--tail", "5", self.container(pod, container["name"]))
        fallback = container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        message = log.stdout + log.stderr if fallback else ""
        return {"terminated": {"exitCode": state["ExitCode"], "reason": "Error", "message": message}}

    def _is_healthy(self, pod: str, container: Document, state: Document) -> bool:
        """Whether a container runs and its probes succeed; one that did succeed is not probed at every look."""
        if state.get("Status") != "running":
            return False
        started = self.container(pod, container["name"]), state["StartedAt"]
        if time.monotonic() < self._healthy_until.get(started, 0):
            return True
        kinds = ("startupProbe", "livenessProbe", "readinessProbe")
        probes = {tuple(container[kind]["exec"]["command"]) for kind in kinds if "exec" in container.get(kind, {})}
        healthy = all(self._docker("exec", started[0], *probe).returncode == 0 for probe in probes)
        if healthy:
            self._healthy_until[started] = time.monotonic() + SECONDS_BETWEEN_PROBES
        return healthy

    def _pod_address(self, pod: Document) -> str:
        return self._addresses.get(pod["metadata"]["name"], self.address)

    def _folder(self, pod: Document, volume: str) -> Path:
        return self._mac.home / "kubelet" / str(pod["metadata"]["name"]) / volume

    def _remove(self, pod: str) -> None:
        """End a pod. What a Service still sends to its address gets no answer, until another pod has it."""
        del self._running[pod]
        own = self._docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}={pod}").stdout.split()
        self._docker("stop", "--time", "10", *own)
        self._docker("rm", "--force", *own)
        if address := self._addresses.pop(pod, None):
            self._engine.run("ip", "neighbour", "replace", address, "lladdr", "02:00:00:00:00:01", "dev", GRAVE)
            self._engine.run("ip", "route", "replace", address, "dev", GRAVE)

    # The proxy of Services, and Docker Desktop's load balancer.

    @property
    def _resolver(self) -> Path:
        return self._hosts.with_name("resolv.conf")

    @property
    def _hosts(self) -> Path:
        """The name server of pods in the node's own network, as far as it knows pods: a file of hosts."""
        return self._mac.home / "kubelet-hosts"

    def _name_pods(self) -> None:
        lines = ["127.0.0.1 localhost"]
        for service in self._api.find("Service"):
            metadata, spec = service["metadata"], service["spec"]
            if spec.get("clusterIP") == "None":
                pods = self._api.find("Pod", metadata["namespace"])
                lines += [
                    f"{pod['status']['podIP']} {metadata['name']}.{metadata['namespace']}.svc"
                    for pod in pods
                    if spec["selector"].items() <= pod["metadata"].get("labels", {}).items()
                    and pod.get("status", {}).get("podIP")
                ]
        self._hosts.write_text("\n".join([*lines, ""]))

    def _service_names(self, namespace: str) -> Iterator[str]:
        for service in self._api.find("Service", namespace):
            if service["spec"]["clusterIP"] != "None":
                yield f"--add-host={service['metadata']['name']}.{namespace}:{service['spec']['clusterIP']}"

    def _forward(self, service: Document) -> None:
        metadata, spec = service["metadata"], service["spec"]
        if spec["clusterIP"] == "None":
            return
        selector = spec.get("selector")
        pods = [
            pod for pod in sorted(self._api.find("Pod", metadata["namespace"]), key=lambda pod: pod["metadata"]["name"])
            if selector and selector.items() <= pod["metadata"].get("labels", {}).items() and _is_ready(pod)
        ]  # fmt: skip
        if not pods:
            return
        address = pods[0]["status"]["podIP"]
        for port in spec["ports"]:
            target, protocol = _target_port(pods[0], port), port.get("protocol", "TCP").lower()
            at = f"{spec['clusterIP']}:{port['port']}/{protocol}"
            if self._forwarded.get(at) != f"{address}:{target}":
                self._forwarded[at] = f"{address}:{target}"
                self._engine.run(
                    "iptables", "-t", "nat", "-I", "PREROUTING", "1", "-d", spec["clusterIP"], "-p", protocol,
                    "--dport", str(port["port"]), "-j", "DNAT", "--to-destination", f"{address}:{target}",
                )  # fmt: skip
                # A pod may ask for a Service that is itself, or beside it on the same bridge.
                self._engine.run("iptables", "-t", "nat", "-I", "POSTROUTING", "1", "-d", address, "-m", "conntrack",
                                 "--ctstate", "DNAT", "-j", "MASQUERADE")  # fmt: skip
        if spec.get("type") == "LoadBalancer" and not service.get("status", {}).get("loadBalancer"):
            for port in spec["ports"]:
                self._publish(port["port"], port.get("protocol", "TCP"), spec["clusterIP"])
            self._api.put(service | {"status": {"loadBalancer": {"ingress": [{"hostname": "localhost"}]}}})

    def _publish(self, port: int, protocol: str, address: str) -> None:
        listen, published = f"{protocol}4-LISTEN", f"127.0.0.1:{port}:{port}/{protocol.lower()}"
        self._published[port] = address
        self._docker("run", "--detach", "--name", f"k8s-balancer-{port}", "--network", POD_NETWORK, "--publish",
                     published, BALANCER_IMAGE, "socat", f"{listen}:{port},fork,reuseaddr",
                     f"{protocol}4:{address}:{port}")  # fmt: skip

    def _docker(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self._mac.run("docker", *command, check=False)


def _containers(pod: Document) -> list[Document]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def _revision(pod: Document) -> object:
    return pod["metadata"]["labels"][REVISION]


def _pod_of(owner: Document, name: str, revision: str) -> Document:
    template = owner["spec"]["template"]
    metadata = template["metadata"] | {
        "name": name,
        "namespace": owner["metadata"]["namespace"],
        "labels": template["metadata"]["labels"] | {REVISION: revision},
        "ownerReferences": [
            {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
             "uid": owner["metadata"]["uid"], "controller": True}
        ],
    }  # fmt: skip
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def _is_ready(pod: Document) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _value(pod: Document, variable: Document) -> object:
    """A container's variable: given, or taken from a field of the pod."""
    if "value" in variable:
        return variable["value"]
    value: Any = pod
    for name in variable["valueFrom"]["fieldRef"]["fieldPath"].split("."):
        value = value[name]
    return value


def _target_port(pod: Document, port: Document) -> int:
    """The number behind a Service's target port."""
    wanted: Any = port.get("targetPort", port["port"])
    named: dict[Any, Any] = {own["name"]: own["containerPort"] for container in pod["spec"]["containers"] for own in
             container.get("ports", []) if "name" in own}  # fmt: skip
    return int(named.get(wanted, wanted))


def _volume_at(pod: Document, path: str) -> str | None:
    for container in _containers(pod):
        for mount in container.get("volumeMounts", []):
            if mount["mountPath"] == path:
                return str(mount["name"])
    return None


def _write(path: Path, content: bytes, mode: int, group: int) -> None:
    if path.exists() and path.read_bytes() == content:
        return
    beside = path.with_name(f"..{path.name}")
    beside.write_bytes(content)
    beside.chmod(mode)
    os.chown(beside, 0, group)
    beside.replace(path)
