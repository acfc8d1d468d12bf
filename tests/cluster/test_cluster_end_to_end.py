"""`up.py --kubernetes` and its kin: from the check of a cluster to a page that a client fetches in it."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from devkit.sites.obstacles import how_to_load

from tests.conftest import copy_project
from tests.docker_desktop import REGISTRY_IMAGE, Engine, Mac
from tests.kubernetes.lab_cluster import CLUSTER_ROUTES, NAMESPACE, Cluster, cluster
from tests.schema import document
from tests.vpn import connected, eventually, fetch, place, script, start_client, web


@pytest.fixture(scope="module")
def running(machines: tuple[Mac, Engine]) -> Iterator[Cluster]:
    with cluster(*machines) as started:
        yield started


@pytest.fixture
def one(running: Cluster) -> Iterator[Cluster]:
    """The cluster, with nothing in it."""
    yield running
    if any(found["metadata"]["name"] == NAMESPACE for found in running.api.find("Namespace")):
        running.api.delete("Namespace", NAMESPACE)
    for kind in ("Pod", "Service"):
        for found in running.api.find(kind, "default"):
            running.api.delete(kind, found["metadata"]["name"], "default")
    eventually(lambda: "k8s-" not in running.mac.run("docker", "ps", "--format", "{{.Names}}").stdout)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("pristine") / "devkit", routes=CLUSTER_ROUTES)


@pytest.fixture
def project(mac: Mac, pristine: Path) -> Iterator[Path]:
    """A project of the test's own, with the routes to the cluster."""
    placed = place(pristine, mac)
    yield placed
    shutil.rmtree(placed)


def run_script(one: Cluster, project: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run one of the project's scripts with --kubernetes."""
    return one.run(sys.executable, f"scripts/{name}.py", "--kubernetes", *options, cwd=project)


def bring_up(one: Cluster, project: Path) -> None:
    """Run `up`, which must find all well behind it."""
    run = run_script(one, project, "up")
    assert run.returncode == 0, run.stdout + run.stderr


def sentence(run: subprocess.CompletedProcess[str]) -> str:
    """What a refused script says: one line on stderr, behind the progress."""
    assert run.returncode == 1, run.stdout + run.stderr
    assert run.stdout == ""
    assert "Traceback" not in run.stderr
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    return line


@contextmanager
def nothing_is_written(one: Cluster) -> Iterator[None]:
    before = len(one.api.requests)
    yield
    asked = [request for _, request in one.api.requests[before:]]
    assert [request for request in asked if request.verb not in ("get", "list", "watch")] == []


def test_up_reports_what_a_client_then_reaches_and_down_leaves_nothing(
    mac: Mac, engine: Engine, one: Cluster, project: Path
) -> None:
    with nothing_is_written(one):
        assert "there is no devkit in the namespace" in sentence(run_script(one, project, "status"))
    pod, service = one.start_web("web"), one.api.get("Service", "web", "default")["spec"]["clusterIP"]
    up = run_script(one, project, "up")
    assert up.returncode == 0, up.stderr
    assert "Cluster       Kubernetes 1.37.0, 1 node (context stand-in)" in up.stdout
    assert "Service       LoadBalancer at localhost, port 1194" in up.stdout
    assert "Pods          10.244.0.0/16: in the routes" in up.stdout
    assert "Services      10.96.0.0/12: in the routes" in up.stdout
    assert re.search(rf"Service +web +{service} +http://{service} +yes", up.stdout)
    assert re.search(rf"Pod +web +{pod} +http://{pod} +yes", up.stdout)
    assert "warning" not in up.stdout
    with nothing_is_written(one):
        said = run_script(one, project, "status")
    assert said.returncode == 3
    assert "problem: this computer is not connected: open the profile in the VPN app, and connect.\n" in said.stdout
    assert said.stdout.count("  not checked\n") == 2
    with connected(mac, project / "local/docker-for-mac.ovpn"):
        assert [fetch(mac, pod), fetch(mac, service)] == ["200", "200"]
        with nothing_is_written(one):
            said = run_script(one, project, "status")
        assert said.returncode == 0, said.stdout
        assert said.stdout.count("  yes\n") == 2
        found = document(run_script(one, project, "doctor", "--json", f"http://{service}").stdout)
        assert found["failed"] is None, found
        found = document(run_script(one, project, "doctor", "--json", f"http://{pod}:81").stdout)
        assert found["failed"] == "port"

    # Again, nothing restarts.
    uid = one.pod("devkit-0")["metadata"]["uid"]
    bring_up(one, project)
    assert one.pod("devkit-0")["metadata"]["uid"] == uid

    with nothing_is_written(one):
        facts = document(run_script(one, project, "status", "--json").stdout)
    assert facts["cluster"]["pod_networks"] == ["10.244.0.0/16"]
    assert facts["missed"] == []
    assert {(place["kind"], place["address"]) for place in facts["reached"]} == {("Service", service), ("Pod", pod)}

    script(mac, project, "client", "add", "alice")
    older = "what runs is older than what is in this folder: run `./scripts/up.py --kubernetes` to load it"
    assert older in run_script(one, project, "status").stderr
    bring_up(one, project)
    assert run_script(one, project, "status").stderr == ""

    down = run_script(one, project, "down", "--images")
    assert down.returncode == 0, down.stderr
    assert NAMESPACE not in {found["metadata"]["name"] for found in one.api.find("Namespace")}
    eventually(lambda: "devkit-0" not in mac.run("docker", "ps", "--all", "--format", "{{.Names}}").stdout)
    assert "d4m0" not in engine.run("iptables-save").stdout
    assert "There was no devkit" in run_script(one, project, "down").stderr


def test_edited_server_conf_is_in_force_after_up(mac: Mac, one: Cluster) -> None:
    project = copy_project(mac.home / "edited", routes=CLUSTER_ROUTES, vpn_port=5194)
    with (project / "server/server.conf").open("a") as conf:
        conf.write("max-clients 7\n")
    bring_up(one, project)
    assert "max-clients 7" in one.api.get("ConfigMap", "devkit", NAMESPACE)["data"]["server.conf"]


def test_docker_desktop_reaches_its_docker_networks_through_the_cluster(mac: Mac, one: Cluster) -> None:
    one = replace(one, major=3)
    project = copy_project(mac.home / "desktop", kubernetes="docker-desktop", vpn_port=2194)
    up = run_script(one, project, "up")
    assert up.returncode == 0, up.stderr
    with connected(mac, project / "local/docker-for-mac.ovpn"):
        assert fetch(mac, web(mac)) == "200"
    # The default routes of Docker Desktop are not this cluster's: the report says so, and what to do.
    assert "Pods          10.244.0.0/16: outside the routes" in up.stdout
    assert "  ./scripts/routes.py add 10.244.0.0/16\n" in up.stdout
    assert run_script(one, project, "down").returncode == 0


def test_image_goes_through_the_registry_that_was_named(mac: Mac, one: Cluster) -> None:
    mac.run("docker", "run", "--detach", "--publish", "127.0.0.1:5000:5000", REGISTRY_IMAGE)
    eventually(lambda: fetch(mac, "127.0.0.1:5000/v2/") == "200")
    project = copy_project(
        mac.home / "registry", routes=CLUSTER_ROUTES, image_registry="127.0.0.1:5000/team", vpn_port=3194
    )
    up = run_script(one, project, "up")
    assert up.returncode == 0, up.stderr
    image = one.pod("devkit-0")["spec"]["containers"][0]["image"]
    assert re.fullmatch(r"127\.0\.0\.1:5000/team/d4m-devkit-gateway@sha256:[0-9a-f]{64}", image)
    with connected(mac, project / "local/docker-for-mac.ovpn"):
        assert fetch(mac, one.start_web("for-registry")) == "200"
    assert run_script(one, project, "down").returncode == 0


def test_values_of_ones_own_and_what_the_chart_refuses(one: Cluster, project: Path) -> None:
    (project / "mine.yaml").write_text("service: {type: Foo}\n")
    assert "/service/type" in sentence(run_script(one, project, "up", "--values", "mine.yaml"))
    assert "missing.yaml does not exist" in sentence(run_script(one, project, "up", "--values", "missing.yaml"))


def test_server_that_does_not_start_is_quoted_before_the_time_is_up(one: Cluster, project: Path) -> None:
    conf = (project / "server/server.conf").read_text() + "no-such-option\n"
    (project / "broken.yaml").write_text(json.dumps({"serverConf": conf}))
    said = sentence(run_script(one, project, "up", "--values", "broken.yaml"))
    assert "devkit-0: vpn ended with: " in said
    assert "no-such-option" in said
    bring_up(one, project)  # mended, it goes on


def test_helms_own_error_comes_before_what_the_cluster_said_earlier(one: Cluster, project: Path) -> None:
    bring_up(one, project)
    assert "Readiness probe failed" in {event["message"].strip(": ") for event in one.api.find("Event", NAMESPACE)}
    (project / "hostile.yaml").write_text("vpn: {port: 99999}\n")
    assert "/vpn/port" in sentence(run_script(one, project, "up", "--values", "hostile.yaml"))
    (project / "former.yaml").write_text("hostNetwork: true\n")
    said = sentence(run_script(one, project, "up", "--values", "former.yaml"))
    assert "hostNetwork is not a value any more: remove it, and set dockerNetworks to true" in said


def test_end_of_the_time_says_what_this_run_has_met(mac: Mac, one: Cluster) -> None:
    project = copy_project(mac.home / "slow", routes=CLUSTER_ROUTES)
    (project / "nothing.yaml").write_text("existingSecret: not-there\n")
    bring_up(one, project)  # it leaves "Readiness probe failed" behind
    release = project / "scripts/devkit/sites/release.py"
    release.write_text(release.read_text().replace("READY_SECONDS = 180", "READY_SECONDS = 10"))
    up = run_script(one, project, "up", "--values", "nothing.yaml")
    said = sentence(up)
    assert "within 10 seconds: devkit-0: MountVolume.SetUp failed" in said
    assert '"not-there" not found' in said
    # Nobody watches, and still it says what it waits for: once.
    assert up.stderr.count("Installing the chart in stand-in: devkit-0: ContainerCreating\n") == 1


def test_earlier_run_that_was_cut_short_is_named_with_the_way_out(mac: Mac, one: Cluster, project: Path) -> None:
    bring_up(one, project)
    helm = ("helm", "upgrade", "devkit", "./chart", "--namespace", NAMESPACE, "--reuse-values", "--wait",
            "--set-string", "image.tag=other")  # fmt: skip
    environment = [f"{name}={value}" for name, value in one.environment.items()]
    with (mac.home / "helm.log").open("w") as output:
        killed = mac.start("env", "--chdir", project, *environment, *helm, output=output)
        eventually(lambda: "pending-upgrade" in {status(secret) for secret in one.api.find("Secret", NAMESPACE)})
        killed.kill()
        killed.wait()
    said = sentence(run_script(one, project, "up", "--context", "stand-in"))
    assert "another operation" in said
    assert "start over with `./scripts/down.py --kubernetes --context stand-in`" in said
    assert run_script(one, project, "down").returncode == 0
    bring_up(one, project)


def status(secret: dict[str, Any]) -> str:
    return str(secret["metadata"].get("labels", {}).get("status", ""))


def test_user_who_may_do_nothing_in_the_namespace_reads_it(one: Cluster, project: Path) -> None:
    one.run("kubectl", "config", "set-context", "guest", "--cluster", "stand-in", "--user", "guest")
    config = yaml.safe_load(one.api.kubeconfig.read_text())
    config["users"].append({"name": "guest", "user": {"as": "system:serviceaccount:default:guest"}})
    one.api.kubeconfig.write_text(yaml.safe_dump(config))
    said = sentence(run_script(one, project, "up", "--context", "guest"))
    assert 'secrets is forbidden: User "system:serviceaccount:default:guest" cannot list resource "secrets"' in said
    assert 'in the namespace "docker-for-mac"' in said
    revoke = (sys.executable, "scripts/client.py", "revoke", "docker-for-mac", "--context", "guest")
    revoked = one.run(*revoke, cwd=project)
    assert revoked.returncode == 1
    assert "may still be connected, because kubectl refused" in revoked.stderr


@pytest.mark.parametrize("major", [pytest.param(3, marks=pytest.mark.further), 4])
def test_helm_keeps_the_keys_of_the_last_revision_only(one: Cluster, project: Path, major: Literal[3, 4]) -> None:
    one = replace(one, major=major)
    for _ in range(2):
        bring_up(one, project)
    kept = [secret for secret in one.api.find("Secret", NAMESPACE) if secret["metadata"]["name"].startswith("sh.helm")]
    assert [status(secret) for secret in kept] == ["deployed"]


def test_clients_of_a_cluster_are_listed_and_what_ends_their_sessions_is_said(mac: Mac, one: Cluster) -> None:
    project = copy_project(mac.home / "sessions", routes=CLUSTER_ROUTES, kubernetes="k3s")
    listing = [sys.executable, "scripts/client.py", "list"]
    bring_up(one, project)
    script(mac, project, "client", "add", "alice")
    bring_up(one, project)
    with connected(mac, project / "local/docker-for-mac.ovpn"):
        for options in ([], ["--kubernetes"], ["--kubernetes", "--context", "stand-in"]):
            listed = one.run(*listing, *options, cwd=project)
            assert re.search(r"docker-for-mac .* UTC .* 10\.213\.94\.2$", listed.stdout, re.MULTILINE), listed.stderr
            assert listed.stderr == ""
    unknown = one.run(*listing, "--kubernetes", "--context", "elsewhere", cwd=project)
    assert "It is not known who is connected: the context elsewhere does not exist" in unknown.stderr


def test_client_is_let_in_and_thrown_out_without_an_image_being_built(mac: Mac, one: Cluster, project: Path) -> None:
    client = (sys.executable, "scripts/client.py")
    nobody = one.run(*client, "revoke", "docker-for-mac", "--kubernetes", cwd=project)
    assert "There is no devkit in stand-in, so there was no session to end there." in nobody.stderr
    script(mac, project, "client", "add", "docker-for-mac")
    (project / "own.yaml").write_text("nodeSelector: {kubernetes.io/os: linux}\n")
    assert run_script(one, project, "up", "--values", "own.yaml").returncode == 0
    image = one.pod("devkit-0")["spec"]["containers"][0]["image"]
    assert one.run(*client, "add", "erin", "--kubernetes", cwd=project).returncode == 0
    known = ("docker", "exec", one.node.container("devkit-0", "vpn"), "ls", "/etc/vpn/configs/ccd")
    eventually(lambda: "erin" in mac.run(*known).stdout)
    with start_client(mac, project / "local/clients/erin.ovpn") as erin:
        erin.wait_for("Initialization Sequence Completed")
        sessions = document(one.run(*client, "list", "--json", "--kubernetes", cwd=project).stdout)["clients"]
        assert [one["name"] for one in sessions if one["sessions"]] == ["erin"]
        revoked = one.run(*client, "revoke", "erin", "--kubernetes", cwd=project)
        assert "erin is refused in stand-in, too" in revoked.stderr
        assert revoked.returncode == 0
        erin.wait_for("AUTH_FAILED", seconds=60)
    pod = one.pod("devkit-0")["spec"]
    assert pod["containers"][0]["image"] == image
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux"}  # what the user had given stays
    assert "older than what is in this folder" not in run_script(one, project, "status").stderr
    # A cluster is no place to load keys of another project into, nor half of what has changed.
    other = one.run(*client, "revoke", "docker-for-mac", "--kubernetes", cwd=copy_project(mac.home / "other"))
    assert other.returncode == 1
    assert "may still be connected, because the devkit in stand-in is another project's" in other.stderr
    with (project / "chart/values.yaml").open("a") as values:
        values.write("# ours\n")
    late = one.run(*client, "add", "frank", "--kubernetes", cwd=project)
    assert late.returncode == 1
    assert "run `./scripts/up.py --kubernetes`. (what runs in stand-in is older in more than" in late.stderr


def test_session_that_could_not_be_ended_is_not_passed_over(mac: Mac, one: Cluster) -> None:
    """Where the answers know of a cluster, the server may be on the engine all the same."""
    project = copy_project(mac.home / "both", kubernetes="kind", routes=CLUSTER_ROUTES)
    assert one.run(sys.executable, "scripts/up.py", cwd=project).returncode == 0
    mac.run("docker", "exec", "d4m-devkit-vpn-1", "rm", "/run/management")
    revoked = one.run(sys.executable, "scripts/client.py", "revoke", "docker-for-mac", cwd=project)
    assert revoked.returncode == 1
    assert "docker-for-mac may still be connected, because the server does not answer" in revoked.stderr
    assert one.run(sys.executable, "scripts/down.py", cwd=project).returncode == 0


def test_client_of_a_cluster_with_keys_of_ones_own_is_not_said_to_be_thrown_out(one: Cluster, project: Path) -> None:
    (project / "own.yaml").write_text(f"dirPaths: {{local: {project}/local, data: {project}/server}}\nmaterial: null\n")
    assert run_script(one, project, "up", "--values", "own.yaml").returncode == 0
    refusal = one.run(sys.executable, "scripts/client.py", "revoke", "docker-for-mac", "--kubernetes", cwd=project)
    assert refusal.returncode == 1
    assert "docker-for-mac may still be connected, because the server in stand-in reads the folder" in refusal.stderr
    added = one.run(sys.executable, "scripts/client.py", "add", "grace", "--kubernetes", cwd=project)
    assert added.returncode == 0, added.stderr


def test_namespace_that_lets_no_tunnel_in_is_named(one: Cluster, project: Path) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    one.api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    with nothing_is_written(one):
        said = sentence(run_script(one, project, "up"))
    assert "enforces the Pod Security level 'restricted', under which no pod may make a tunnel" in said
    assert "`kubectl label namespace docker-for-mac pod-security.kubernetes.io/enforce=privileged --overwrite`" in said
    run_script(one, project, "down")
    # It is not ours, so it stays.
    assert one.api.get("Namespace", NAMESPACE)["metadata"]["labels"] == labels


def test_subnet_of_the_clusters_own(mac: Mac, one: Cluster) -> None:
    project = copy_project(mac.home / "overlap", vpn_subnet="10.100.7.0/24")
    with nothing_is_written(one):
        said = sentence(run_script(one, project, "up"))
    assert "vpn_subnet 10.100.7.0/24 overlaps the cluster's own network 10.96.0.0/12" in said


def test_nodes_that_do_not_see_the_image(mac: Mac, one: Cluster) -> None:
    """As kind's; and what there is to be typed is for the context that was named, not for the current one."""
    one.run("kubectl", "config", "set-context", "kind-lab", "--cluster", "stand-in", "--user", "admin")
    project = copy_project(mac.home / "kind", routes=CLUSTER_ROUTES, kubernetes="kind", vpn_port=6194)
    named = ("--context", "kind-lab")
    one.node.has_local_images = False
    said = sentence(run_script(one, project, "up", *named))
    image = re.search(r"d4m-devkit-gateway:[0-9a-f]{12}", said)
    assert image
    assert f"its nodes do not have the image {image[0]}, which is built here and in no registry" in said
    assert "--data image_registry=HOST/PATH`" in said
    assert f"`kind load docker-image {image[0]} --name lab`" in said
    one.node.has_local_images = True
    run_script(one, project, "down", *named)
    assert "up.py --kubernetes --context kind-lab`" in sentence(run_script(one, project, "status", *named))
    up = run_script(one, project, "up", *named)
    assert up.returncode == 0, up.stderr
    assert one.pod("devkit-0")["spec"]["containers"][0]["image"] == image[0]  # the same build has the same tag
    command = "kubectl port-forward --context kind-lab --namespace docker-for-mac service/devkit 6194"
    assert f"keep this running:  {command}" in up.stdout
    assert run_script(one, project, "down", *named).returncode == 0


def test_image_is_loaded_as_the_cluster_takes_it() -> None:
    assert "| sudo k3s ctr images import -`, and run" in how_to_load("gateway:1", "k3s", "default")
    assert "`kind load docker-image gateway:1 --name desktop`" in how_to_load("gateway:1", "none", "docker-desktop")
    assert "--name renamed`" in how_to_load("gateway:1", "kind", "renamed")
    assert "HOST/PATH`, and run this again" in how_to_load("gateway:1", "none", "shared")


def test_computer_that_is_the_engines_host_and_a_node_itself(mac: Mac, one: Cluster, project: Path) -> None:
    own = {"docker0": "172.17.0.1/16", "cni0": "10.244.0.1/24"}
    for device, address in own.items():
        mac.run("ip", "link", "add", device, "type", "bridge")
        mac.run("ip", "address", "add", address, "dev", device)
    up = run_script(one, project, "up")
    for device in own:
        mac.run("ip", "link", "del", device)
    assert up.returncode == 0, up.stderr


def test_node_port_is_reported_at_the_nodes_addresses(mac: Mac, one: Cluster) -> None:
    project = copy_project(mac.home / "node-port", routes=CLUSTER_ROUTES, service_type="NodePort", vpn_port=30094)
    node = one.api.get("Node", "node")
    internal = [{"type": "InternalIP", "address": address} for address in (one.node.address, "fd00::2")]
    one.api.put(node | {"status": node["status"] | {"addresses": internal}})
    up = run_script(one, project, "up")
    assert up.returncode == 0, up.stderr
    assert f"Service       NodePort at {one.node.address}, port 30094" in up.stdout
    change = f"--data vpn_host={one.node.address} --data vpn_port=30094"
    assert change in " ".join(up.stdout.split())
    # A cluster in a virtual machine whose ports are forwarded to this computer: nothing is to be changed.
    listen = [
        sys.executable,
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(project / "client"),
        "30094",
    ]
    with (mac.home / "listen.log").open("w") as output:
        forwarded = mac.start(*listen, output=output)
    eventually(lambda: "warning" not in run_script(one, project, "status").stdout)
    forwarded.terminate()
    forwarded.wait()
    assert "warning" in run_script(one, project, "status").stdout
    assert one.api.get("Service", "devkit", NAMESPACE)["spec"]["ports"][0]["nodePort"] == 30094
    one.api.put(one.api.get("Node", "node") | {"status": node["status"]})


def test_networks_of_a_cluster_that_has_no_object_for_them(one: Cluster, project: Path) -> None:
    """Before Kubernetes 1.33 there is no ServiceCIDR: kubeadm left a note, and else a refusal says it."""
    declared = one.api.get("ServiceCIDR", "kubernetes")
    one.api.delete("ServiceCIDR", "kubernetes")
    bring_up(one, project)
    probed = document(run_script(one, project, "status", "--json").stdout)["cluster"]
    assert probed["service_networks"] == ["10.96.0.0/12"]
    networking = "networking:\n  podSubnet: 10.240.0.0/13,fd00::/48\n  serviceSubnet: 10.98.0.0/16\n"
    one.api.put({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kubeadm-config", "namespace": "kube-system"},
        "data": {"ClusterConfiguration": networking},
    })  # fmt: skip
    told = document(run_script(one, project, "status", "--json").stdout)["cluster"]
    assert (told["pod_networks"], told["service_networks"]) == (["10.240.0.0/13"], ["10.98.0.0/16"])
    one.api.delete("ConfigMap", "kubeadm-config", "kube-system")
    one.api.put({name: value for name, value in declared.items() if name != "metadata"}
                | {"metadata": {"name": "kubernetes"}})  # fmt: skip


def test_no_cluster_answers(mac: Mac, one: Cluster, project: Path) -> None:
    nobody = one.api.kubeconfig.with_name("nobody")
    nobody.write_text(re.sub(r"http://127.0.0.1:\d+", "http://127.0.0.1:9", one.api.kubeconfig.read_text()))
    said = sentence(
        one.run("env", f"KUBECONFIG={nobody}", sys.executable, "scripts/up.py", "--kubernetes", cwd=project)
    )
    assert "the cluster of the context stand-in does not answer" in said
    assert "the connection to the server 127.0.0.1:9 was refused" in said.lower()
    said = sentence(run_script(one, project, "up", "--context", "elsewhere"))
    assert re.search("the context elsewhere does not exist: choose one of .*stand-in", said)
    nobody.write_text("")
    said = sentence(
        one.run("env", f"KUBECONFIG={nobody}", sys.executable, "scripts/up.py", "--kubernetes", cwd=project)
    )
    assert "kubectl has no current context" in said


def test_no_kubectl_here(mac: Mac, project: Path) -> None:
    run = mac.run("env", "PATH=/nowhere", sys.executable, "scripts/up.py", "--kubernetes", cwd=project, check=False)
    assert "kubectl is not installed here" in sentence(run)


def test_context_without_kubernetes_is_wrong_usage(mac: Mac, project: Path) -> None:
    run = mac.run(sys.executable, "scripts/up.py", "--context", "elsewhere", cwd=project, check=False)
    assert run.returncode == 2
    assert "--context and --values go with --kubernetes" in run.stderr
