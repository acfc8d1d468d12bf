"""A Kubernetes cluster, through its user's own `kubectl` and `helm`: the one module that touches one.

What they refuse is raised as UserError.
"""

import json
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from pathlib import Path
from typing import Any, cast

import yaml

from devkit import management
from devkit.answers import CHANGE_ANSWER, Answers, Kubernetes
from devkit.cluster_report import no_load_balancer
from devkit.errors import UserError, most_telling
from devkit.facts import Cluster, ClusterEndpoint, ClusterNode, Pod, Service, Session

NAMESPACE = "docker-for-mac"
RELEASE = "devkit"
OWN = f"app.kubernetes.io/instance={RELEASE}"
SERVERS = f"{OWN},app.kubernetes.io/name=d4m-devkit"
POD_SECURITY = "pod-security.kubernetes.io/enforce"
# The label by which `uninstall` knows a namespace of ours; in any other it removes the release alone.
OURS = {"app.kubernetes.io/managed-by": "d4m-devkit"}
FINGERPRINT = "d4m-devkit/fingerprint"  # an annotation of the StatefulSet
ANSWER_SECONDS = 20
READY_SECONDS = 180
MOST_RESTARTS = 3  # of a container that does not become ready; then waiting longer helps nobody
VALID_RANGE = re.compile(r"range of valid IPs is ([0-9.]+/[0-9]+)")
# All that Helm says when the time is up; in a longer sentence the same words are about something else, as a webhook.
TIME_IS_UP = re.compile(
    r"^(Error: )?((INSTALLATION|UPGRADE) FAILED: )?(client rate limiter Wait returned an error: )?"
    r"(context deadline exceeded|timed out waiting for the condition)$",
    re.MULTILINE,
)


class ClusterTools:
    """helm and kubectl, for one context."""

    def __init__(self, project: Path, context: str | None) -> None:
        for program in ("kubectl", "helm"):
            if not shutil.which(program):
                raise UserError(f"{program} is not installed here (there is no `{program}` command): install it first.")
        self._project = project
        self._context = context
        current = context or self._kubectl("config", "current-context", check=False).stdout.strip()
        if not current:
            raise UserError("kubectl has no current context: choose one with `kubectl config use-context NAME`.")
        self.context = current  # its name in the kubeconfig
        known = self._run(["kubectl", "config", "get-contexts", "--output", "name"]).stdout.splitlines()
        if current not in known:
            choice = f"choose one of {', '.join(sorted(known))}" if known else "kubectl knows none"
            raise UserError(f"the context {current} does not exist: {choice}.")

    def cluster(self) -> Cluster:
        """Ask the cluster who it is. Raises UserError when it does not answer."""
        answer = self._kubectl("version", "--output", "json", f"--request-timeout={ANSWER_SECONDS}s", check=False)
        version = json.loads(answer.stdout).get("serverVersion", {}) if answer.stdout.startswith("{") else {}
        if not version:
            said = _last_line(answer.stderr)
            raise UserError(f"the cluster of the context {self.context} does not answer ({said}): start it, or choose "
                            "another with --context NAME.")  # fmt: skip
        nodes = tuple(_node(item) for item in self._items("nodes"))
        kubeadm = self._kubeadm_networking()
        return Cluster(
            context=self.context,
            version=str(version["gitVersion"]).removeprefix("v"),
            nodes=nodes,
            pod_networks=pod_networks(nodes, kubeadm.get("podSubnet", "")),
            service_networks=self._service_networks(kubeadm.get("serviceSubnet", "")),
        )

    @property
    def context_option(self) -> str:
        """What a command that the user is told to type must have, to go to this cluster and no other."""
        return f" --context {shlex.quote(self._context)}" if self._context else ""

    def services(self) -> tuple[Service, ...]:
        """All Services with an address inside the cluster, by namespace and name."""
        found = (_service(item) for item in self._items("services", "--all-namespaces"))
        return tuple(sorted((service for service in found if service), key=lambda one: (one.namespace, one.name)))

    def pods(self) -> tuple[Pod, ...]:
        """All running pods with an address of their own, by namespace and name."""
        found = (_pod(item) for item in self._items("pods", "--all-namespaces"))
        return tuple(sorted((pod for pod in found if pod), key=lambda one: (one.namespace, one.name)))

    def sessions(self) -> tuple[Session, ...]:
        """The connected clients of all replicas. Raises UserError when one that is ready cannot be asked."""
        exec_ = self._kubectl_command("exec", "--stdin", "--namespace", NAMESPACE, "--container", "vpn")
        names = [pod["metadata"]["name"] for pod in self._own_pods(SERVERS) if _is_ready(pod) and not _leaves(pod)]
        return tuple(session for name in names for session in management.sessions([*exec_, name, "--"]))

    def endpoint(self) -> ClusterEndpoint | None:
        """Where the server's Service is reached, or None when it is not installed."""
        service = self._get("service", RELEASE, "--namespace", NAMESPACE)
        nodes = [node.address for node in map(_node, self._items("nodes"))]
        return _endpoint(service, nodes, self.context_option) if service else None

    def fingerprint(self) -> str | None:
        """The fingerprint of the values that are installed, or None when it is not known."""
        found = self._get("statefulset", RELEASE, "--namespace", NAMESPACE)
        return found["metadata"].get("annotations", {}).get(FINGERPRINT) if found else None

    def check_namespace(self) -> None:
        """Raise UserError when our namespace lets no pod in that makes a tunnel."""
        namespace = self._get("namespace", NAMESPACE)
        level = namespace["metadata"].get("labels", {}).get(POD_SECURITY, "privileged") if namespace else "privileged"
        if level != "privileged":
            raise UserError(
                f"the namespace {NAMESPACE} enforces the Pod Security level {level!r}, under which no pod may make a "
                f"tunnel: allow it with `kubectl label namespace {NAMESPACE} {POD_SECURITY}=privileged --overwrite"
                f"{self.context_option}`."
            )

    def install(self, answers: Answers, settings: Mapping[str, str], values: Sequence[Path]) -> Iterator[str]:
        """Install the chart or upgrade it, and wait until it is ready; give what the pods are doing meanwhile.

        `settings` are values by their dotted names; `values` are files of the user's own. Raises UserError with what
        Helm says or, when the pods do not become ready, with what keeps them from it.
        """
        self._make_namespace()
        options = [option for path in ("local/values.yaml", *values) for option in ("--values", str(path))]
        options += [option for name, value in settings.items() for option in ("--set-string", f"{name}={value}")]
        command = self._helm_command(
            "upgrade", "--install", RELEASE, "./chart", "--namespace", NAMESPACE, *options, "--wait", "--timeout",
            f"{READY_SECONDS}s", "--history-max", "1",
        )  # fmt: skip
        before, warned_before = self._own_pods(), self._warnings()
        known, restarts_before = {_identity(pod) for pod in before}, _restarts(before)
        hopeless = False
        with tempfile.TemporaryFile("w+") as output:
            helm = subprocess.Popen(command, cwd=self._project, stdout=output, stderr=output)
            try:
                while helm.poll() is None and not hopeless:
                    time.sleep(1)
                    pods = self._own_pods()
                    yield "; ".join(_states(pods)) or "waiting for the pods"
                    restarted = (more - restarts_before[one] for one, more in _restarts(pods).items())
                    new = (pod for pod in pods if _identity(pod) not in known)
                    hopeless = max(restarted, default=0) >= MOST_RESTARTS or any(map(_has_no_image, new))
            finally:
                helm.terminate()  # it then marks the release as failed
                helm.wait()
            output.seek(0)
            said = output.read()
        if helm.returncode == 0:
            self._forget_earlier_revisions()
        elif hopeless or TIME_IS_UP.search(said):
            pods = sorted(self._own_pods(), key=lambda pod: _identity(pod) in known)  # those of this run first
            warnings = [event for identity, event in self._warnings().items() if identity not in warned_before]
            reason = self._what_is_missing(answers, settings, pods, warnings) or self._helm_error(said)
            within = "" if hopeless else f" within {READY_SECONDS} seconds"
            raise UserError(f"Helm could not install the chart{within}: {reason}")
        else:
            raise UserError(f"Helm could not install the chart: {self._helm_error(said)}")

    def uninstall(self) -> bool:
        """Remove the release, and the namespace if it is ours; return whether there was one. Raises UserError."""
        there = self._run(self._helm_command("status", RELEASE, "--namespace", NAMESPACE), check=False).returncode == 0
        if there:
            self._run(self._helm_command("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"))
        namespace = self._get("namespace", NAMESPACE)
        if namespace and OURS.items() <= namespace["metadata"].get("labels", {}).items():
            self._kubectl("delete", "namespace", NAMESPACE)
        return there

    def _make_namespace(self) -> None:
        found = self._kubectl("get", "namespace", NAMESPACE, check=False)
        if "(NotFound)" in found.stderr:  # who may not even look may still be let in: Helm will say
            labels = OURS | {POD_SECURITY: "privileged"}
            self._apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})

    def _forget_earlier_revisions(self) -> None:
        """Delete what Helm keeps of them, which holds the server's keys: it keeps one more than it is told to."""
        others = f"owner=helm,name={RELEASE},status!=deployed"
        self._kubectl("delete", "secrets", "--namespace", NAMESPACE, "--selector", others)

    def _what_is_missing(
        self,
        answers: Answers,
        settings: Mapping[str, str],
        pods: Sequence[Mapping[str, Any]],
        warnings: Sequence[Mapping[str, Any]],
    ) -> str | None:
        """What keeps the release from becoming ready, as far as the cluster says."""
        if not answers.image_registry and any(map(_has_no_image, pods)):
            return _how_to_load(f"{answers.image}:{settings['image.tag']}", answers.kubernetes, self.context)
        for line in (line for pod in pods for line in _waits_for(pod)):
            return line
        if warnings:
            newest = max(warnings, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
            return f"{newest['involvedObject']['name']}: {newest.get('message', '')}"
        endpoint = self.endpoint()
        if endpoint and not endpoint.hosts:
            return no_load_balancer(answers)
        return "; ".join(_states(pods)) or None

    def _warnings(self) -> Mapping[tuple[str, str], dict[str, Any]]:
        """The warnings in our namespace; one that is said again has another identity."""
        events = self._items("events", "--namespace", NAMESPACE, "--field-selector", "type=Warning")
        return {(event["metadata"]["uid"], event["metadata"]["resourceVersion"]): event for event in events}

    def _helm_error(self, text: str) -> str:
        """What Helm says behind the last `Error:`, on one line, and the way out where there is one."""
        _, found, said = text.rpartition("Error: ")
        words = " ".join((said if found else text).split()).removesuffix(" Use --debug flag to render out invalid YAML")
        if "another operation" in words:  # an earlier run was killed, and Helm with it
            down = f"python scripts/down.py --kubernetes{self.context_option}"
            words += f": if none is running, start over with `{down}`."
        return words or "it said nothing"

    def _own_pods(self, selector: str = OWN) -> list[dict[str, Any]]:
        return self._items("pods", "--namespace", NAMESPACE, "--selector", selector)

    def _kubeadm_networking(self) -> Mapping[str, str]:
        """What kubeadm was told about networks, where it made the cluster."""
        found = self._get("configmap", "kubeadm-config", "--namespace", "kube-system")
        configuration = yaml.safe_load(found["data"].get("ClusterConfiguration", "")) if found else None
        return (configuration or {}).get("networking") or {}

    def _service_networks(self, kubeadm: str) -> tuple[IPv4Network, ...]:
        declared = [cidr for item in self._items("servicecidrs") for cidr in item["spec"]["cidrs"]]
        if not declared and not kubeadm:
            # Before 1.33 the server says it only to who asks for an address that cannot be.
            spec = {"clusterIP": "192.0.2.1", "ports": [{"port": 1}]}
            probe = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "d4m-devkit-probe"}, "spec": spec}
            command = self._kubectl_command("create", "--dry-run=server", "--namespace", "default", "--filename", "-")
            declared = VALID_RANGE.findall(self._run(command, check=False, given=json.dumps(probe)).stderr)
        return _ipv4_networks(declared or kubeadm.split(","))

    def _items(self, *what: str) -> list[dict[str, Any]]:
        """All objects of a kind; none where the cluster does not have the kind, or its user may not list it."""
        limit = f"--request-timeout={ANSWER_SECONDS}s"
        run = self._kubectl("get", *what, "--output", "json", limit, check=False)
        if run.returncode == 0:
            return cast("list[dict[str, Any]]", json.loads(run.stdout)["items"])
        if "Forbidden" in run.stderr or "doesn't have a resource type" in run.stderr:
            return []
        raise UserError(f"kubectl refused: {_last_line(run.stderr)}")

    def _get(self, *what: str) -> dict[str, Any] | None:
        """One object, or None where it is not there or its user may not see it."""
        run = self._kubectl("get", *what, "--output", "json", check=False)
        return cast("dict[str, Any]", json.loads(run.stdout)) if run.returncode == 0 else None

    def _apply(self, document: Mapping[str, object]) -> None:
        self._run(self._kubectl_command("apply", "--filename", "-"), given=json.dumps(document))

    def _kubectl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._run(self._kubectl_command(*arguments), check=check)

    def _kubectl_command(self, *arguments: str) -> list[str]:
        return ["kubectl", *([f"--context={self._context}"] if self._context else []), *arguments]

    def _helm_command(self, *arguments: str) -> list[str]:
        return ["helm", *([f"--kube-context={self._context}"] if self._context else []), *arguments]

    def _run(
        self, command: Sequence[str], check: bool = True, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        run = subprocess.run(command, cwd=self._project, input=given, check=False, capture_output=True, text=True)
        if check and run.returncode != 0:
            raise UserError(f"{command[0]} refused: {_last_line(run.stderr)}")
        return run


def pod_networks(nodes: Iterable[ClusterNode], kubeadm: str) -> tuple[IPv4Network, ...]:
    """The networks that pods get their addresses from: what kubeadm was told, or else what the nodes have.

    By default a node gets a /24 of a /16, and the next node another: the whole /16 counts.
    """
    told = _ipv4_networks(kubeadm.split(","))
    if told:
        return told
    own = [network for node in nodes for network in node.pod_networks]
    return tuple(collapse_addresses(network.supernet(new_prefix=min(network.prefixlen, 16)) for network in own))


def _ipv4_networks(cidrs: Iterable[str]) -> tuple[IPv4Network, ...]:
    return tuple(IPv4Network(cidr.strip(), strict=False) for cidr in cidrs if "." in cidr)


def _node(item: Mapping[str, Any]) -> ClusterNode:
    status = item["status"]
    found = status.get("addresses", [])
    addresses = {one["type"]: one["address"] for one in found if ":" not in one["address"]}  # no IPv6
    return ClusterNode(
        name=item["metadata"]["name"],
        address=addresses.get("ExternalIP") or addresses.get("InternalIP", ""),
        architecture=status.get("nodeInfo", {}).get("architecture", ""),
        pod_networks=_ipv4_networks(item["spec"].get("podCIDRs") or [item["spec"].get("podCIDR", "")]),
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
    containers = item["spec"]["containers"]
    ports = tuple(
        f"{port['containerPort']}/{port.get('protocol', 'TCP').lower()}"
        for container in containers
        for port in container.get("ports", [])
    )
    return Pod(item["metadata"]["namespace"], item["metadata"]["name"], IPv4Address(address), ports)


def _endpoint(service: Mapping[str, Any], node_addresses: Sequence[str], context_option: str) -> ClusterEndpoint:
    kind, (port,) = service["spec"]["type"], service["spec"]["ports"]
    command = f"kubectl port-forward{context_option} --namespace {NAMESPACE} service/{RELEASE} {port['port']}"
    match kind:
        case "LoadBalancer":
            given = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
            hosts = tuple(entry.get("ip") or entry.get("hostname", "") for entry in given)
            return ClusterEndpoint(kind, hosts, port["port"], None)
        case "NodePort":
            return ClusterEndpoint(kind, tuple(node_addresses), port["nodePort"], None)
    if port.get("protocol") == "UDP":  # which `kubectl port-forward` does not carry
        return ClusterEndpoint(kind, (service["spec"]["clusterIP"],), port["port"], None)
    return ClusterEndpoint(kind, ("127.0.0.1",), port["port"], command)


def _waits_for(pod: Mapping[str, Any]) -> Iterator[str]:
    """What a pod that is not ready waits for, or what its containers said when they ended.

    Nothing where the cluster has not said it yet: a container that is being created is no reason. Nothing either of a
    pod that makes way for another.
    """
    if _leaves(pod):
        return
    name, status = pod["metadata"]["name"], pod.get("status", {})
    for container in _statuses(pod):
        ended = container.get("lastState", {}).get("terminated", {}).get("message", "")
        waiting = container.get("state", {}).get("waiting", {})
        if container.get("ready"):
            continue
        if ended:
            yield f"{name}: {container['name']} ended with: {most_telling(ended)}"
        elif waiting.get("message"):
            yield f"{name}: {waiting.get('reason', '')}: {waiting['message']}"
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            yield f"{name}: {condition.get('message', 'not scheduled')}"


def _states(pods: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What each pod is doing that is not ready."""
    for pod in pods:
        if _is_ready(pod):
            continue
        waiting = (one.get("state", {}).get("waiting", {}).get("reason") for one in _statuses(pod))
        state = next(filter(None, waiting), pod.get("status", {}).get("phase", "Pending"))
        if _leaves(pod):
            state = "Terminating"
        plain = f"{pod['metadata']['name']}: {'not ready yet' if state == 'Running' else state}"
        yield next(_waits_for(pod), plain)


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def _identity(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["uid"])


def _leaves(pod: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _has_no_image(pod: Mapping[str, Any]) -> bool:
    return any(one.get("state", {}).get("waiting", {}).get("reason") == "ImagePullBackOff" for one in _statuses(pod))


def _statuses(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How a pod's containers are, those that must end before the others start among them."""
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _how_to_load(image: str, kubernetes: Kubernetes, context: str) -> str:
    """What to do where the nodes do not see the image that is built here."""
    if kubernetes == "k3s":
        load = f", or load the image into each with `docker save {image} | sudo k3s ctr images import -`"
    elif kubernetes == "kind" or context == "docker-desktop" or context.startswith("kind-"):
        name = "desktop" if context == "docker-desktop" else context.removeprefix("kind-")
        load = f", or load the image into them with `kind load docker-image {image} --name {name}`"
    else:
        load = ""
    return (
        f"its nodes do not have the image {image}, which is built here and in no registry: name a registry that they "
        f"pull from with `{CHANGE_ANSWER} image_registry=HOST/PATH`{load}, and run this again."
    )


def _restarts(pods: Iterable[Mapping[str, Any]]) -> Counter[tuple[str, str]]:
    """How often each container of a pod that stays was started again, by its pod's identity and its name."""
    return Counter(
        {
            (_identity(pod), container["name"]): container.get("restartCount", 0)
            for pod in pods
            if not _leaves(pod)
            for container in _statuses(pod)
        }
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1].strip().rstrip(".")
