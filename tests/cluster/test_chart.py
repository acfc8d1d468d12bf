"""What the Helm chart renders, with old and new Helm, and what it refuses."""

import base64
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.bad_answers import BAD_ANSWERS, NOT_TEXTS
from tests.conftest import copy_project
from tests.docker_desktop.cache import helm_and_kubectl

OLDEST, NEWEST = "1.31", "1.37"

# One of each is set beside the generated values.
MATERIAL = {
    "secret": [],
    "existing secret": ["existingSecret=our-own"],
    "folders": ["dirPaths.local=/Users/me/devkit/local", "dirPaths.data=/Users/me/devkit/server"],
    "configs only": ["dirPaths.configs=/Users/me/devkit/local/configs"],
}
MATRIX = list(itertools.product(
    MATERIAL.values(),
    (["dockerNetworks=true"], ["dockerNetworks=false"]),
    (["service.type=LoadBalancer", "service.loadBalancerSourceRanges={192.0.2.0/24}"],
     ["service.type=NodePort", "vpn.port=30094"], ["service.type=ClusterIP"]),
    (["replicas=1"], ["replicas=3", "image.digest=sha256:" + "0" * 64]),
))  # fmt: skip


VALUES_OF_ANSWERS = {
    "routes": ("vpn", "routes"),
    "vpn_port": ("vpn", "port"),
    "vpn_protocol": ("vpn", "protocol"),
    "vpn_subnet": ("vpn", "subnet"),
    "service_type": ("service", "type"),
    "image_registry": ("image", "repository"),
}


@pytest.fixture(params=[3, 4], ids=["helm-3", "helm-4"])
def helm(request: pytest.FixtureRequest) -> Path:
    """Each major version of Helm in turn."""
    return helm_and_kubectl(request.param)[0]


def newest_helm() -> Path:
    return helm_and_kubectl(4)[0]


def render(
    helm: Path, project: Path, *settings: str, values: bool = True, more: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `helm template` with the generated values, more files of values, and these settings."""
    command = [helm, "template", "devkit", "./chart", "--namespace", "docker-for-mac"]
    if values:
        command += ["--values", "local/values.yaml"]
    options = [word for setting in settings for word in ("--set", setting)]
    options += [word for file in more for word in ("--values", file)]
    return subprocess.run([*map(str, command), *options], cwd=project, check=False, capture_output=True, text=True)


def rendered(helm: Path, project: Path, *settings: str) -> list[dict[str, Any]]:
    """The manifests."""
    run = render(helm, project, *settings)
    assert run.returncode == 0, run.stderr
    return [document for document in yaml.safe_load_all(run.stdout) if document]


def the(kind: str, documents: list[dict[str, Any]], name: str = "devkit") -> dict[str, Any]:
    """The one manifest of a kind and name."""
    (found,) = [one for one in documents if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def test_generated_values_pass_lint_and_need_nothing_edited(helm: Path, project: Path) -> None:
    for settings in [(), *MATRIX]:
        options = [word for setting in itertools.chain(*settings) for word in ("--set", setting)]
        lint = [str(helm), "lint", "--strict", "./chart", "--values", "local/values.yaml", *options]
        run = subprocess.run(lint, cwd=project, check=False, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout
        assert "1 chart(s) linted, 0 chart(s) failed" in run.stdout


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_every_manifest_of_the_matrix_is_valid_kubernetes(helm: Path, tmp_path: Path, protocol: str) -> None:
    project = copy_project(tmp_path / "devkit", vpn_protocol=protocol)
    for settings in MATRIX[:: 1 if (helm, protocol) == (newest_helm(), "tcp") else 3]:
        for document in rendered(helm, project, *itertools.chain(*settings)):
            for version in (OLDEST, NEWEST):
                kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(
    ("kubernetes", "docker_networks", "service"),
    [
        ("none", False, "LoadBalancer"),
        ("docker-desktop", True, "LoadBalancer"),
        ("kind", False, "ClusterIP"),
        ("k3s", False, "LoadBalancer"),
    ],
)
def test_cluster_sets_the_values(tmp_path: Path, kubernetes: str, docker_networks: bool, service: str) -> None:
    project = copy_project(tmp_path / "devkit", kubernetes=kubernetes, image_registry="registry.example.org:5000/team")
    documents = rendered(newest_helm(), project)
    pod = the("StatefulSet", documents)["spec"]["template"]["spec"]
    assert "hostNetwork" not in pod
    assert any(document["kind"] == "DaemonSet" for document in documents) is docker_networks
    assert the("Service", documents)["spec"]["type"] == service
    assert {one["image"] for one in pod["containers"]} == {"registry.example.org:5000/team/d4m-devkit-gateway:latest"}
    compose = yaml.safe_load((project / "compose.yaml").read_text())
    assert compose["services"]["vpn"]["image"] == "registry.example.org:5000/team/d4m-devkit-gateway"


def mounted(documents: list[dict[str, Any]], volume_name: str) -> dict[str, tuple[bytes, int]]:
    """Content and mode of each file of a pod's Secret volume, as the kubelet writes it."""
    volumes = the("StatefulSet", documents)["spec"]["template"]["spec"]["volumes"]
    (volume,) = [volume["secret"] for volume in volumes if volume["name"] == volume_name]
    data = the("Secret", documents, volume["secretName"])["data"]
    items = volume.get("items") or [{"key": key, "path": key, "mode": volume["defaultMode"]} for key in data]
    return {item["path"]: (base64.b64decode(data[item["key"]]), item["mode"]) for item in items}


def test_pod_mounts_what_compose_mounts_byte_for_byte(helm: Path, tmp_path: Path) -> None:
    # Names that YAML might take for something else.
    project = copy_project(tmp_path / "devkit", client_name="1e5")
    add = [sys.executable, "scripts/client.py", "add", "on", "null", "0x1f", "12", "y", "N"]
    subprocess.run(add, cwd=project, check=True, capture_output=True)
    documents = rendered(helm, project)
    configs, clients = mounted(documents, "configs"), mounted(documents, "clients")
    shared = configs | {f"ccd/{name}": file for name, file in clients.items()}
    folder = project / "local/configs"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {name: content for name, (content, _) in shared.items()} == files
    assert set(clients) == {"1e5", "on", "null", "0x1f", "12", "y", "N"}
    # As root reads the keys, and nobody the rest.
    assert {name for name, (_, mode) in shared.items() if mode == 0o400} == {"server.key", "tls-crypt-v2.key"}
    assert {mode for _, mode in shared.values()} == {0o400, 0o444}


def test_with_a_secret_of_ones_own_the_material_can_be_left_out(helm: Path, project: Path) -> None:
    run = render(helm, project, "existingSecret=our-own", "material=null")
    assert run.returncode == 0, run.stderr
    assert "PRIVATE KEY" not in run.stdout
    assert "kind: Secret" not in run.stdout


def test_no_private_key_but_the_servers_is_in_the_values(project: Path) -> None:
    values = (project / "local/values.yaml").read_text()
    for secret in ("authority.key", "clients/docker-for-mac.pem"):
        text = (project / "local/pki/current" / secret).read_text()
        for key in text.split("PRIVATE KEY-----\n")[1::2]:
            assert key.splitlines()[0] not in values
    assert values.count("BEGIN PRIVATE KEY") == 1
    assert (project / "local/pki/current/values.yaml").stat().st_mode & 0o777 == 0o600


def checksum(project: Path) -> str:
    template = the("StatefulSet", rendered(newest_helm(), project))["spec"]["template"]
    return str(template["metadata"]["annotations"]["d4m-devkit/checksum"])


def run_script(project: Path, name: str, *arguments: str) -> None:
    subprocess.run([sys.executable, f"scripts/{name}.py", *arguments], cwd=project, check=True, capture_output=True)


def test_pods_roll_for_a_new_certificate_and_a_revocation_but_not_for_a_new_client(project: Path) -> None:
    first = checksum(project)
    run_script(project, "client", "add", "alice")
    assert checksum(project) == first  # nobody is cut off because somebody comes in
    subprocess.run([sys.executable, "scripts/client.py", "revoke", "alice"], cwd=project, check=False)  # no engine here
    revoked = checksum(project)
    assert revoked != first
    run_script(project, "generate", "--rotate", "leaf")
    assert checksum(project) not in (first, revoked)


@pytest.mark.parametrize(
    ("settings", "named", "why"),
    [
        (["service.type=Foo"], "service.type", "one of"),
        (["vpn.routes={172.16.0.0/12,10.96.0.1/12}"], "vpn.routes",
         '"10.96.0.1/12" has host bits set: the network is 10.96.0.0/12'),
        (["vpn.routes={10.960.0.0/12}"], "vpn.routes", '"10.960.0.0/12" is not an IPv4 network'),
        (["vpn.subnet=10.213.94.7/24"], "vpn.subnet", "host bits set: the network is 10.213.94.0/24"),
        (["vpn.subnet=10.213.0.0/16"], "vpn.subnet", "is not a /24"),
        (["service.loadBalancerSourceRanges={192.0.2.1/24}"], "service.loadBalancerSourceRanges", "host bits"),
        (["vpn.routes="], "vpn.routes", "array"),
        (["vpn.routes={0.0.0.0/0}"], "vpn.routes", "would send all traffic through the VPN"),
        (["vpn.protocol=udp"], "vpn.protocol", '"udp" is not the one in serverConf'),
        (["vpn.subnet=10.9.9.0/24"], "vpn.subnet", '"10.9.9.0/24" is not the one in serverConf'),
        (["service.type=NodePort"], "service.type", "needs a vpn.port from 30000 to 32767, and it is 1194"),
        (["image.tag="], "image.tag", "ength"),
        (["image=null"], "image", "image"),
        (["material=null"], "material.ca.crt is missing", "-f local/values.yaml"),
        (["dirPaths.local=/x", "existingSecret=x"], "existingSecret and dirPaths are both set", "leave one"),
        (["dirPaths.data=/x"], "dirPaths.data", "neither dirPaths.local nor dirPaths.configs"),
        (["dirPaths.local=relative"], "dirPaths.local", "pattern"),
        (["material.crl\\.pem="], "material.crl.pem is missing", "-f local/values.yaml"),
        (["replicas=0"], "replicas", "1"),
        (["replicas=17"], "replicas", "16"),
        (["vpn.protocol=sctp"], "vpn.protocol", "tcp"),
        (["vpn.port=70000"], "vpn.port", "65"),
        (["image.digest=latest"], "image.digest", "sha256"),
        (["dockerNetworks=maybe"], "dockerNetworks", "boolean"),
        (["hostnetwork=true"], "hostnetwork", "not allowed"),
        (["hostNetwork=false"], "hostNetwork is not a value any more", "dockerNetworks"),
    ],
)  # fmt: skip
def test_bad_value_is_refused_with_its_key(
    helm: Path, project: Path, settings: list[str], named: str, why: str
) -> None:
    run = render(helm, project, *settings)
    assert run.returncode != 0
    # Helm 4 writes /vpn/port where Helm 3 writes vpn.port.
    said = run.stderr.replace("at '/", "at '").replace("/", ".") if "at '/" in run.stderr else run.stderr
    assert named in said
    assert why in run.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value) for name, value, _ in BAD_ANSWERS
        # The chart does not know where clients find it.
        if name in VALUES_OF_ANSWERS and "127.0.0.0" not in value
    ],
)  # fmt: skip
def test_chart_refuses_the_same_answers(helm: Path, project: Path, name: str, value: str) -> None:
    section, key = VALUES_OF_ANSWERS[name]
    bad = yaml.safe_load(value) if name in NOT_TEXTS else value
    if name == "image_registry":
        bad += "/d4m-devkit-gateway"
    (project / "bad.yaml").write_text(yaml.safe_dump({section: {key: bad}}))
    run = render(helm, project, more=("bad.yaml",))
    assert run.returncode != 0
    assert key in run.stderr


def test_without_the_generated_values_it_says_which_file_is_missing(helm: Path, project: Path) -> None:
    run = render(helm, project, values=False)
    assert run.returncode != 0
    assert "add `-f local/values.yaml`, which scripts/generate.py writes" in run.stderr


def scan(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `trivy config`; what it finds of severity HIGH or CRITICAL makes it exit with 1."""
    trivy = [
        f"{Path(sys.executable).parent}/trivy", "config", "--skip-check-update", "--skip-version-check",
        "--disable-telemetry", "--severity", "HIGH,CRITICAL", "--exit-code", "1", *arguments,
    ]  # fmt: skip
    return subprocess.run(trivy, cwd=project, check=False, capture_output=True, text=True)


def test_security_scan_finds_nothing_in_the_image(project: Path) -> None:
    run = scan(project, "gateway")
    assert run.returncode == 0, run.stdout
    assert "Detected config files" in run.stderr


@pytest.mark.parametrize("settings", [[], ["dockerNetworks=true"], MATERIAL["folders"]], ids=str)
def test_security_scan_finds_nothing_that_is_not_explained(project: Path, settings: list[str]) -> None:
    options = [word for setting in settings for word in ("--helm-set", setting)]
    run = scan(
        project, "--helm-kube-version", f"{NEWEST}.0", "--ignorefile", "chart/.trivyignore.yaml", "--helm-values",
        "local/values.yaml", *options, "chart",
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert "Detected config files" in run.stderr


def test_ordinary_pod_holds_nothing_of_the_node_but_the_tunnel_device(project: Path) -> None:
    documents = rendered(newest_helm(), project)
    pod = the("StatefulSet", documents)["spec"]["template"]["spec"]
    assert [volume["hostPath"] for volume in pod["volumes"] if "hostPath" in volume] == [
        {"path": "/dev/net/tun", "type": "CharDevice"}
    ]
    assert not pod["automountServiceAccountToken"]
    granted = {}
    for container in (*pod["initContainers"], *pod["containers"]):
        security = container["securityContext"]
        assert not security["allowPrivilegeEscalation"]
        assert security["readOnlyRootFilesystem"]
        assert security["capabilities"]["drop"] == ["ALL"]
        granted[container["name"]] = set(security["capabilities"]["add"])
    assert granted == {"network": {"NET_ADMIN"}, "vpn": {"SETUID", "SETGID"}}
    (rule,) = the("NetworkPolicy", documents)["spec"]["ingress"]
    assert rule == {"ports": [{"protocol": "TCP", "port": "vpn"}]}


def test_docker_networks_add_a_firewall_and_change_nothing_of_the_server(project: Path) -> None:
    without, documents = (rendered(newest_helm(), project, f"dockerNetworks={asked}") for asked in ("false", "true"))
    assert the("StatefulSet", documents) == the("StatefulSet", without)
    assert the("Service", documents) == the("Service", without)
    pod = the("DaemonSet", documents, "devkit-firewall")["spec"]["template"]["spec"]
    assert pod["hostNetwork"]
    assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
    (firewall,) = pod["containers"]
    assert "ports" not in firewall
    assert firewall["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    assert the("Service", documents, "devkit-pods")["spec"]["clusterIP"] == "None"


def test_sessions_are_pinned_where_there_is_a_choice(project: Path) -> None:
    assert "sessionAffinity" not in the("Service", rendered(newest_helm(), project))["spec"]
    assert the("Service", rendered(newest_helm(), project, "replicas=2"))["spec"]["sessionAffinity"] == "ClientIP"


def test_disruption_budget_comes_with_a_second_replica_only(project: Path) -> None:
    assert not [one for one in rendered(newest_helm(), project) if one["kind"] == "PodDisruptionBudget"]
    assert the("PodDisruptionBudget", rendered(newest_helm(), project, "replicas=2"))["spec"]["maxUnavailable"] == 1
