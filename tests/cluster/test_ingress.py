"""The ingress manifests: as files, with real kubectl, and with real nginx and Traefik behind them."""

import json
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.conftest import REPOSITORY, copy_project
from tests.kubernetes.api import api_server
from tests.kubernetes.kinds import Document
from tests.kubernetes.node import TRAEFIK, Node, Pod
from tests.kubernetes.programs import AGES, Programs
from tests.kubernetes.rbac import ServiceAccount, granted
from tests.kubernetes.store import Api
from tests.project.test_readme import commands
from tests.vpn import eventually

BIN = Path(sys.executable).parent
ANSWERS: dict[str, dict[str, object]] = {
    "traefik": {},
    "gateway-api": {"gateway_api": True},
    "ingress-nginx": {"ingress": "ingress-nginx"},
}
NAMESPACE = "ingress-nginx"
TRAEFIK_ACCOUNT = ServiceAccount(NAMESPACE, "traefik")
GATEWAY_API = "gateway.networking.k8s.io"
# A verb, an API group and a resource.
Right = tuple[str, str, str]


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A project for each of the answers."""
    folder = tmp_path_factory.mktemp("projects")
    return {name: copy_project(folder / name, **answers) for name, answers in ANSWERS.items()}


@pytest.fixture(params=ANSWERS)
def ingress(request: pytest.FixtureRequest, projects: dict[str, Path]) -> Path:
    """The folder ingress-nginx/ of one of them."""
    return projects[request.param] / "ingress-nginx"


@pytest.fixture
def ingress_nginx(projects: dict[str, Path]) -> Path:
    """The folder ingress-nginx/ with the retired controller."""
    return projects["ingress-nginx"] / "ingress-nginx"


def documents(*paths: Path) -> list[Document]:
    """The objects in manifests, and in those of folders."""
    files = [file for path in paths for file in (sorted(path.rglob("*.yaml")) if path.is_dir() else [path])]
    found = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return [document for document in found if document["kind"] not in ("Kustomization", "Component")]


def by_name(objects: Iterable[Document]) -> dict[tuple[str, str, str], Document]:
    return {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]): each for each in objects}


def images(ingress: Path) -> set[str]:
    """What the manifests' pods run."""
    pods = [document["spec"]["template"]["spec"] for document in documents(ingress) if document["kind"] == "Deployment"]
    return {container["image"] for pod in pods for container in pod["containers"]}


def folders_of_the_readme(ingress: Path) -> list[str]:
    """The folders that are applied one after the other."""
    typed = [shlex.split(command) for command in commands(ingress / "README.md")]
    return [words[3] for words in typed if words[:3] == ["kubectl", "apply", "-f"]]


def rights(roles: Iterable[Document]) -> Counter[Right]:
    """What roles grant, each as often as they do."""
    return Counter(
        (verb, group, resource)
        for role in roles
        if role["kind"] in ("ClusterRole", "Role")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


# As files.


@pytest.mark.parametrize("version", AGES)
def test_manifests_are_valid(ingress: Path, version: str) -> None:
    objects = documents(ingress)
    assert len(objects) > 15
    for document in objects:
        if not document["apiVersion"].startswith(GATEWAY_API):
            kubernetes_validate.validate(document, version, strict=True)


def test_manifests_pass_yamllint(ingress: Path) -> None:
    yamllint = [f"{BIN}/yamllint", "--strict", "--config-file", f"{REPOSITORY}/.yamllint.yaml", "ingress-nginx"]
    checked = subprocess.run(yamllint, cwd=ingress.parent, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_images_are_named_in_full(ingress: Path) -> None:
    """Nodes that know several registries, or none by default, refuse short names (CRI-O since 1.34)."""
    hosts = {image.split("/")[0] for image in images(ingress)}
    assert hosts in ({"docker.io"}, {"docker.io", "registry.k8s.io"})


def test_services_are_there_before_the_controller_asks_for_them(ingress: Path) -> None:
    """Without them ingress-nginx ends at once."""
    folders = folders_of_the_readme(ingress)
    assert folders.index("ingress-nginx/services") < folders.index("ingress-nginx/deployments")


def test_every_insecure_setting_is_explained_where_it_is(ingress: Path) -> None:
    offline = ["--skip-check-update", "--skip-version-check", "--disable-telemetry"]
    trivy = [f"{BIN}/trivy", "config", "--quiet", "--severity=HIGH,CRITICAL", "--format=json", *offline, "."]
    report = subprocess.run(trivy, cwd=ingress, capture_output=True, text=True, check=True).stdout
    results = json.loads(report)["Results"]
    assert len(results) > 10
    found = {(each["Target"], fault["ID"]) for each in results for fault in each.get("Misconfigurations", [])}
    explained = {
        (str(file.relative_to(ingress)), name)
        for file in ingress.rglob("*.yaml")
        for name in re.findall(r"# (KSV-\d+) of trivy: \w", file.read_text())
    }
    assert found == explained


def test_kustomization_holds_what_the_folders_hold(ingress: Path, projects: dict[str, Path]) -> None:
    separate = by_name(documents(*(ingress.parent / folder for folder in folders_of_the_readme(ingress))))
    example = by_name(documents(ingress / "example"))
    for version in AGES:
        with api_server(version) as api:
            programs = Programs(api, ingress.parent)
            together = programs.output("kubectl", "kustomize", "ingress-nginx")
            assert by_name(yaml.safe_load_all(together)) == separate
            together = programs.output("kubectl", "kustomize", "ingress-nginx/example")
            assert by_name(yaml.safe_load_all(together)) == example
            assert api.requests == []


def test_second_apply_changes_nothing(ingress: Path) -> None:
    """The server fills in what a manifest leaves out; `kubectl apply` takes it for a difference in some places."""
    for version in AGES:
        with api_server(version) as api:
            programs = Programs(api, ingress.parent)
            define_gateway_api(api)
            programs.output("kubectl", "apply", "-k", "ingress-nginx")
            again = programs.output("kubectl", "apply", "-k", "ingress-nginx").splitlines()
            assert [line for line in again if not line.endswith(" unchanged")] == []


def test_none_ships_nothing(tmp_path: Path) -> None:
    assert not (copy_project(tmp_path / "devkit", ingress="none") / "ingress-nginx").exists()


@pytest.mark.parametrize("ingress", ["none", "ingress-nginx"])
def test_gateway_api_needs_traefik(tmp_path: Path, ingress: str) -> None:
    with pytest.raises(ValueError, match=f"needs ingress=traefik, not {ingress}"):
        copy_project(tmp_path / "devkit", ingress=ingress, gateway_api=True)
    assert list(tmp_path.iterdir()) == []


def test_pods_are_as_restricted_as_their_namespaces_demand(ingress: Path) -> None:
    deployments = [document for document in documents(ingress) if document["kind"] == "Deployment"]
    assert len(deployments) == 3
    for deployment in deployments:
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"]["drop"] == ["ALL"]
        assert own["capabilities"].get("add") in (None, ["NET_BIND_SERVICE"])
        assert own.get("readOnlyRootFilesystem", False) is (deployment["metadata"]["name"] != "ingress-nginx")
        assert container["resources"].keys() == {"requests", "limits"}
        controls = deployment["metadata"]["name"] in ("traefik", "ingress-nginx")
        assert pod["automountServiceAccountToken"] is controls
    for namespace in documents(ingress / "namespaces", ingress / "example/namespace.yaml"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


# The retired controller, whose binary cannot be had here.


def test_ingress_nginx_is_pinned_and_has_no_webhook(ingress_nginx: Path) -> None:
    (deployment,) = documents(ingress_nginx / "deployments/ingress-nginx.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    digest = "sha256:594ceea76b01c592858f803f9ff4d2cb40542cae2060410b2c95f75907d659e1"
    assert container["image"] == f"registry.k8s.io/ingress-nginx/controller:v1.15.1@{digest}"
    assert not [argument for argument in container["args"] if "webhook" in argument]
    assert 8443 not in [port["containerPort"] for port in container["ports"]]
    kinds = {document["kind"] for document in documents(ingress_nginx)}
    assert not kinds & {"ValidatingWebhookConfiguration", "Job"}


def test_ingress_nginx_may_do_what_its_source_does(ingress_nginx: Path) -> None:
    # Every call of 1.15.1's source that is made with the arguments of the Deployment.
    informers = [
        ("", "configmaps"), ("", "secrets"), ("", "services"), ("discovery.k8s.io", "endpointslices"),
        ("networking.k8s.io", "ingressclasses"), ("networking.k8s.io", "ingresses"),
    ]  # fmt: skip
    assert rights(documents(ingress_nginx / "rbac")) == Counter(
        [
            *((verb, *informed) for informed in informers for verb in ("list", "watch")),
            ("get", "", "configmaps"),  # its settings, at the start
            ("get", "", "services"),  # the default backend's and its own
            ("get", "", "pods"),  # itself
            ("list", "", "pods"),  # its replicas, at the end
            ("get", "", "nodes"),  # the zone that it is in
            ("create", "", "events"),
            ("patch", "", "events"),
            ("get", "networking.k8s.io", "ingresses"),  # before it writes the status
            ("update", "networking.k8s.io", "ingresses/status"),
            ("create", "coordination.k8s.io", "leases"),
            ("get", "coordination.k8s.io", "leases"),
            ("update", "coordination.k8s.io", "leases"),
        ]
    )


def test_ingress_nginx_routes_the_same_tcp_and_udp_services(ingress_nginx: Path, tmp_path: Path) -> None:
    kustomization = ingress_nginx / "kustomization.yaml"
    overlay = shutil.copytree(ingress_nginx, tmp_path / "ingress-nginx") / kustomization.name
    overlay.write_text(kustomization.read_text().replace("# components:", "components:"))
    with api_server() as api:
        rendered = Programs(api, tmp_path).output("kubectl", "kustomize", "ingress-nginx")
    objects = by_name(yaml.safe_load_all(rendered))
    assert objects["ConfigMap", NAMESPACE, "tcp-services"]["data"] == {"9000": "example/hello:9000"}
    assert objects["ConfigMap", NAMESPACE, "udp-services"]["data"] == {"9053": "example/hello:9053"}
    assert objects["Service", NAMESPACE, "nginx"]["spec"]["ports"][2:] == [
        {"name": "tcp-9000", "port": 9000},
        {"name": "udp-9053", "port": 9053, "protocol": "UDP"},
    ]
    (container,) = objects["Deployment", NAMESPACE, "ingress-nginx"]["spec"]["template"]["spec"]["containers"]
    for protocol in ("tcp", "udp"):
        assert f"--{protocol}-services-configmap=$(POD_NAMESPACE)/{protocol}-services" in container["args"]


# With real kubectl.


@pytest.mark.parametrize("version", AGES)
def test_commands_of_the_readme_work_and_work_again(ingress: Path, version: str) -> None:
    typed = [shlex.split(command)[1:] for command in commands(ingress / "README.md") if command.startswith("kubectl")]
    ours = [words for words in typed if not words[-1].startswith("https://")]
    assert ours[0] == ["apply", "-k", "ingress-nginx"]
    assert [words[0] for words in ours].count("delete") == 2
    with api_server(version) as api:
        define_gateway_api(api)
        programs = Programs(api, ingress.parent)
        before = len(objects_of(api))
        seen: set[str] = set()
        for words in ours:
            for line in programs.output("kubectl", *words).splitlines():
                name, outcome = line.rsplit(" ", 1)
                assert words[0] == "delete" or outcome == ("unchanged" if name in seen else "created"), line
                seen.add(name)
        assert len(objects_of(api)) == before
    assert ("configmap/ingress-nginx-is-retired-since-march-2026" in seen) is ("ingress-nginx" in str(ingress.parent))


def objects_of(api: Api) -> list[Document]:
    return [document for kind in api.kinds for document in api.find(kind.name)]


def define_gateway_api(api: Api) -> None:
    """Stand in for what the README has from upstream: the kinds, without their schemas."""
    kinds = {
        "BackendTLSPolicy": "backendtlspolicies", "GRPCRoute": "grpcroutes", "Gateway": "gateways",
        "GatewayClass": "gatewayclasses", "HTTPRoute": "httproutes", "ReferenceGrant": "referencegrants",
        "TLSRoute": "tlsroutes",
    }  # fmt: skip
    for kind, plural in kinds.items():
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        version = "v1beta1" if kind == "ReferenceGrant" else "v1"
        versions = [{"name": version, "served": True, "storage": True, "schema": schema}]
        scope = "Cluster" if kind == "GatewayClass" else "Namespaced"
        names = {"kind": kind, "plural": plural}
        spec = {"group": GATEWAY_API, "scope": scope, "names": names, "versions": versions}
        metadata = {"name": f"{plural}.{GATEWAY_API}"}
        definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
        api.put(definition | {"metadata": metadata, "spec": spec})


# With real nginx and Traefik.


@dataclass(frozen=True)
class Site:
    """Traefik and what is behind it, with the example and its TCP and UDP services."""

    api: Api
    programs: Programs
    traefik: Pod
    backend: Pod

    def curl(self, command: str) -> tuple[int, str]:
        """Type a command of the README, its ports made to fit: the status and the answer."""
        port = self.traefik.port("https" if "https://" in command else "http")
        options = [
            "--silent",
            "--max-time",
            "10",
            "--write-out",
            "\n%{http_code}",
            "--connect-to",
            f"::127.0.0.1:{port}",
        ]
        typed = subprocess.run([*shlex.split(command), *options], capture_output=True, text=True, check=False)
        body, _, status = typed.stdout.rpartition("\n")
        return int(status), body

    def answers(self, command: str) -> bool:
        """Whether the example does."""
        return self.curl(command) == (200, "hello over HTTP\n")


@contextmanager
def served(project: Path, version: str, folder: Path) -> Iterator[Site]:
    """Apply the README's commands, with the TCP and UDP services, and run what the Deployments say."""
    with ExitStack() as stack:
        api = stack.enter_context(api_server(version))
        node_folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        node_folder.chmod(0o755)
        define_gateway_api(api)
        programs = Programs(api, folder)
        for overlay in ("ingress-nginx", "ingress-nginx/example"):
            programs.output("kubectl", "apply", "-k", str(project / overlay))
        node = Node(api, node_folder)
        backend = stack.enter_context(node.nginx("default-http-backend", NAMESPACE))
        stack.enter_context(node.nginx("hello", "example"))
        address = {"loadBalancer": {"ingress": [{"hostname": "localhost"}]}}  # as Docker Desktop does
        api.put(api.get("Service", "nginx", NAMESPACE) | {"status": address})
        traefik = stack.enter_context(node.traefik("traefik", NAMESPACE))
        for gateway in api.find("Gateway"):  # listeners are at the ports of entry points
            for listener in gateway["spec"]["listeners"]:
                listener["port"] = traefik.port(listener["port"])
            api.put(gateway)
        yield Site(api, programs, traefik, backend)


@pytest.fixture(scope="module", params=[(name, version) for name in ("traefik", "gateway-api") for version in AGES])
def site(
    request: pytest.FixtureRequest, projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A site of each age, without and with the Gateway API."""
    name, version = request.param
    project = shutil.copytree(projects[name], tmp_path_factory.mktemp(name) / "devkit")
    kustomization = project / "ingress-nginx/kustomization.yaml"
    text = kustomization.read_text()
    assert text.splitlines()[-1].startswith("# components:")
    kustomization.write_text(text.replace("# components:", "components:"))
    with served(project, version, project) as site:
        yield site


def test_default_backend_answers_404(site: Site) -> None:
    port = site.backend.port("http")
    answers = [
        subprocess.run(
            ["curl", "--silent", "--write-out", " %{http_code} %{content_type}", f"http://127.0.0.1:{port}{path}"],
            check=True, capture_output=True, text=True,
        ).stdout
        for path in ("/", "/any/path", "/healthz")
    ]  # fmt: skip
    assert answers == [*["default backend - 404 404 text/plain"] * 2, "ok 200 text/plain"]


def test_curl_shows_the_default_backend_and_the_example(site: Site) -> None:
    (default, hello, hello_tls, *by_gateway) = [
        command for command in commands(site.programs.folder / "ingress-nginx/README.md") if command.startswith("curl")
    ]
    eventually(lambda: site.curl(default) == (404, "default backend - 404"))
    eventually(partial(site.answers, hello))
    eventually(partial(site.answers, hello_tls))
    assert bool(by_gateway) is bool(site.api.find("HTTPRoute"))
    for command in by_gateway:
        eventually(partial(site.answers, command))


def test_certificate_of_the_ingress_is_served(site: Site, tmp_path: Path) -> None:
    key, certificate = tmp_path / "hello.key", tmp_path / "hello.crt"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=hello.localhost"
    name = ["-addext", "subjectAltName=DNS:hello.localhost"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *name, *files], check=True, capture_output=True)
    readme = (site.programs.folder / "ingress-nginx/README.md").read_text()
    (words,) = re.findall(r"`kubectl (create secret .*)`", readme)
    words = words.replace("hello.crt", str(certificate)).replace("hello.key", str(key))
    site.programs.output("kubectl", *words.split())

    def is_served() -> bool:
        context = ssl.create_default_context(cafile=certificate)
        address = ("127.0.0.1", site.traefik.port("https"))
        try:
            with (
                socket.create_connection(address, timeout=10) as connection,
                context.wrap_socket(connection, server_hostname="hello.localhost"),
            ):
                return True
        except ssl.SSLError:
            return False

    eventually(is_served)


def test_tcp_and_udp_services_are_routed(site: Site) -> None:
    with socket.create_connection(("127.0.0.1", site.traefik.port(9000)), timeout=10) as tcp:
        assert tcp.recv(100) == b"hello over TCP\n"
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.settimeout(10)
        udp.sendto(b"\n", ("127.0.0.1", site.traefik.port(9053)))
        assert udp.recv(100) == b"hello over UDP\n"
    opened = {
        (port["name"], port["targetPort"]) for port in site.api.get("Service", "nginx", NAMESPACE)["spec"]["ports"]
    }
    assert opened == {("http", "http"), ("https", "https"), ("tcp-9000", 9000), ("udp-9053", 9053)}


def test_traefik_reads_changed_routes_by_itself(site: Site) -> None:
    routes = site.api.get("ConfigMap", "traefik-routes", NAMESPACE)
    shipped = routes["data"]["routes.yaml"]

    def is_greeted(expected: bytes) -> bool:
        with socket.create_connection(("127.0.0.1", site.traefik.port(9000)), timeout=10) as tcp:
            tcp.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return tcp.recv(100).startswith(expected)

    for address, expected in (("hello.example.svc:80", b"HTTP/1.1"), ("hello.example.svc:9000", b"hello")):
        routes["data"]["routes.yaml"] = shipped.replace("hello.example.svc:9000", address)
        routes = site.api.put(routes)
        site.traefik.mount(site.api)
        eventually(partial(is_greeted, expected))


def test_addresses_are_published(site: Site) -> None:
    localhost = {"loadBalancer": {"ingress": [{"hostname": "localhost"}]}}
    eventually(lambda: bool(site.api.get("Ingress", "hello", "example").get("status") == localhost))
    if site.api.find("HTTPRoute"):
        eventually(lambda: conditions(site.api.get("Gateway", "traefik", NAMESPACE)["status"])["Programmed"] == "True")
        eventually(lambda: all(is_accepted(route) for route in site.api.find("HTTPRoute")))


def is_accepted(route: Document) -> bool:
    """Whether its one parent has it, with all that it refers to."""
    parents = [conditions(parent) for parent in route.get("status", {}).get("parents", [])]
    return parents == [{"Accepted": "True", "ResolvedRefs": "True"}]


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in status["conditions"]}


def test_traefik_may_do_what_it_does_and_nothing_else(site: Site) -> None:
    roles = [document for document in objects_of(site.api) if document["kind"].startswith(("ClusterRole", "Role"))]
    used: set[Right] = set()

    def has_used_all() -> bool:
        used.update((each.verb, each.group, each.resource) for each in requests())
        # From 1.32 on a watch brings what a list does, so that Traefik hardly lists any more.
        lists = {right for right in rights(roles) if right[0] == "list" and site.api.version != "1.31"}
        return set(rights(roles)) - used <= lists

    def requests() -> set[Any]:
        return site.api.requests_of(NAMESPACE, TRAEFIK_ACCOUNT.name)

    eventually(has_used_all)
    assert [request for request in requests() if not granted(request, roles, TRAEFIK_ACCOUNT)] == []
    assert max(rights(roles).values()) == 1


def test_traefik_is_the_version_that_is_tested(projects: dict[str, Path]) -> None:
    (deployment,) = documents(projects["traefik"] / "ingress-nginx/deployments/traefik.yaml")
    version = subprocess.run([TRAEFIK, "version"], check=True, capture_output=True, text=True).stdout
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"docker.io/library/traefik:v{re.findall(r'Version: +(.*)', version)[0]}"
