"""The chart's pod runs for real, as the kubelet would run it, and a real client goes through it."""

import base64
import gzip
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from tests.conftest import REPOSITORY, copy_project
from tests.docker_desktop import Engine, Mac
from tests.kubernetes.kubelet import CLUSTER_DNS
from tests.kubernetes.lab_cluster import CLUSTER_ROUTES, NAMESPACE, Cluster, cluster
from tests.project.test_readme import commands
from tests.vpn import connected, eventually, fetch, script, start_client, web


@pytest.fixture(scope="module")
def one(machines: tuple[Mac, Engine]) -> Iterator[Cluster]:
    with cluster(*machines) as running:
        yield running


@pytest.fixture(scope="module")
def project(machines: tuple[Mac, Engine]) -> Path:
    """A project whose image is built."""
    project = copy_project(machines[0].home / "devkit", routes=CLUSTER_ROUTES)
    machines[0].run("docker", "compose", "build", "--quiet", cwd=project)
    return project


def install(cluster: Cluster, project: Path, *settings: str, values: str | None = None) -> str:
    """Install the chart or upgrade it; return what Helm says, the chart's notes included."""
    options = [word for setting in settings for word in ("--set", setting)]
    if values:
        (project / "own.yaml").write_text(values)
        options += ["--values", "own.yaml"]
    run = cluster.run(
        "helm", "upgrade", "--install", "devkit", "./chart", "--namespace", NAMESPACE, "--create-namespace", "--values",
        "local/values.yaml", "--wait", "--timeout", "90s", *options, cwd=project,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def uninstall(cluster: Cluster) -> None:
    run = cluster.run("helm", "uninstall", "devkit", "--namespace", NAMESPACE, "--ignore-not-found")
    assert run.returncode == 0, run.stderr
    eventually(lambda: not cluster.api.find("Pod", NAMESPACE))


def our_rules(engine: Engine) -> list[str]:
    """What of the node's own packet filter is about the VPN."""
    return [line for line in engine.run("iptables-save").stdout.splitlines() if "d4m0" in line or "D4M" in line]


def test_ordinary_pod_opens_pods_and_services(mac: Mac, engine: Engine, project: Path, one: Cluster) -> None:
    notes = install(one, project)
    assert "helm test devkit --namespace docker-for-mac" in notes
    assert "kubectl get service devkit --namespace docker-for-mac" in notes
    pod, service = one.start_web("web"), one.api.get("Service", "web", "default")["spec"]["clusterIP"]
    assert fetch(mac, pod, seconds=2) == "timed out"
    with connected(mac, project / "local/docker-for-mac.ovpn") as client:
        assert fetch(mac, pod) == "200"
        assert fetch(mac, service) == "200"
        assert "WARNING" not in client.said()
        # Not for a client that adds a route by itself.
        mac.run("ip", "route", "add", f"{one.node.address}/32", "via", "10.213.94.1")
        assert mac.run("ping", "-c", "2", "-W", "1", one.node.address, check=False).returncode == 1
        mac.run("ip", "route", "del", f"{one.node.address}/32", "via", "10.213.94.1")
    assert our_rules(engine) == []  # the node's packet filter is not touched


def test_clusters_own_dns_is_asked_through_the_tunnel(mac: Mac, project: Path, one: Cluster) -> None:
    conf = """
        server:
            username: ""
            chroot: ""
            pidfile: ""
            interface: 0.0.0.0
            access-control: 0.0.0.0/0 allow
            local-zone: "cluster.local." static
            local-data: "web.default.svc.cluster.local. A 10.96.7.7"
    """
    serve = f"echo '{conf}' > /tmp/dns.conf && exec unbound -d -c /tmp/dns.conf"
    labels = {"app": "dns"}
    one.api.put({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dns", "namespace": "kube-system", "labels": labels},
        "spec": {"containers": [{"name": "dns", "image": "d4m-devkit-names", "command": ["sh", "-c", serve]}]},
    })  # fmt: skip
    one.api.put({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"type": "ClusterIP", "clusterIP": CLUSTER_DNS, "selector": labels,
                 "ports": [{"port": 53, "protocol": "UDP", "name": "dns"}]},
    })  # fmt: skip
    install(one, project)
    with connected(mac, project / "local/docker-for-mac.ovpn"):
        look = ["dig", "+short", "+tries=1", "+time=2", "@10.213.94.1", "web.default.svc.cluster.local"]
        eventually(lambda: mac.run(*look, check=False).stdout == "10.96.7.7\n")


def helm_test(cluster: Cluster) -> subprocess.CompletedProcess[str]:
    return cluster.run("helm", "test", "devkit", "--namespace", NAMESPACE, "--timeout", "60s")


@pytest.mark.parametrize("major", [3, 4])
def test_helm_test_proves_that_the_port_answers(project: Path, one: Cluster, major: Literal[3, 4]) -> None:
    install(one, project)
    run = helm_test(replace(one, major=major))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "Succeeded" in run.stdout


def test_helm_test_fails_where_no_server_of_this_key_answers(project: Path, one: Cluster) -> None:
    install(one, project)
    secret = one.api.get("Secret", "devkit", NAMESPACE)
    stranger = copy_project(project.parent / "stranger")
    key = base64.b64encode((stranger / "local/configs/tls-crypt-v2.key").read_bytes()).decode()
    one.api.put(secret | {"data": secret["data"] | {"tls-crypt-v2.key": key}})
    run = helm_test(one)
    one.api.put(one.api.get("Secret", "devkit", NAMESPACE) | {"data": secret["data"]})
    assert run.returncode != 0
    assert "devkit-test failed" in run.stderr


def wait_until_known(cluster: Cluster, client: str) -> None:
    """Wait until the running server lets a new client in: a kubelet looks about once a minute."""
    container = cluster.node.container("devkit-0", "vpn")
    known = ["docker", "exec", container, "test", "-e", f"/etc/vpn/configs/ccd/{client}"]
    eventually(lambda: cluster.mac.run(*known, check=False).returncode == 0)


def test_new_client_comes_in_without_a_restart_and_a_revoked_one_is_thrown_out(
    mac: Mac, project: Path, one: Cluster
) -> None:
    install(one, project)
    running = one.pod("devkit-0")["metadata"]["uid"]
    script(mac, project, "client", "add", "alice")
    install(one, project)
    assert one.pod("devkit-0")["metadata"]["uid"] == running
    wait_until_known(one, "alice")
    with start_client(mac, project / "local/clients/alice.ovpn") as client:
        client.wait_for("Initialization Sequence Completed")
        revoked = script(mac, project, "client", "revoke", "alice")
        assert "is revoked" in revoked.stderr
        install(one, project)
        assert one.pod("devkit-0")["metadata"]["uid"] != running
        client.wait_for("AUTH_FAILED", seconds=60)
        client.wait_for_end()
    with connected(mac, project / "local/docker-for-mac.ovpn"):
        pass


def make_secrets(cluster: Cluster, project: Path) -> None:
    """Make the Secrets of one's own, or make them anew, as the documents do."""
    for command in commands(REPOSITORY / "docs/kubernetes.md"):
        if command.startswith("kubectl create secret"):
            run = cluster.run("sh", "-c", command, cwd=project)
            assert run.returncode == 0, run.stderr


def test_secret_of_ones_own(mac: Mac, project: Path, one: Cluster) -> None:
    if not [found for found in one.api.find("Namespace") if found["metadata"]["name"] == NAMESPACE]:
        one.run("kubectl", "create", "namespace", NAMESPACE)
    make_secrets(one, project)
    values = "existingSecret: our-own\nmaterial: null\n"
    install(one, project, values=values)
    secrets = {found["metadata"]["name"]: found for found in one.api.find("Secret", NAMESPACE)}
    assert "devkit" not in secrets
    # What Helm keeps of this revision has no key in it.
    newest = max(
        (name for name in secrets if name.startswith("sh.helm.release")), key=lambda name: int(name.split("v")[-1])
    )
    record = gzip.decompress(base64.b64decode(base64.b64decode(secrets[newest]["data"]["release"])))
    assert b"our-own" in record
    assert b"BEGIN PRIVATE KEY" not in record
    with connected(mac, project / "local/docker-for-mac.ovpn"):
        assert fetch(mac, one.start_web("for-own-secret")) == "200"
    script(mac, project, "client", "add", "carol")
    make_secrets(one, project)
    install(one, project, values=values)
    wait_until_known(one, "carol")
    with start_client(mac, project / "local/clients/carol.ovpn") as client:
        client.wait_for("Initialization Sequence Completed", seconds=60)
        script(mac, project, "client", "revoke", "carol")
        make_secrets(one, project)
        install(one, project, values=values)
        client.wait_for("AUTH_FAILED", seconds=60)
        client.wait_for_end()


def test_replicas_hand_out_their_own_addresses_and_stand_in_for_each_other(
    mac: Mac, project: Path, one: Cluster
) -> None:
    install(one, project, "replicas=3")
    subnets = [
        mac.run("docker", "exec", one.node.container(f"devkit-{number}", "vpn"), "ip", "-4", "-brief", "address",
                "show", "d4m0").stdout.split()[2]
        for number in range(3)
    ]  # fmt: skip
    assert subnets == ["10.213.94.1/26", "10.213.94.65/26", "10.213.94.129/26"]
    web = one.start_web("for-replicas")
    with connected(mac, project / "local/docker-for-mac.ovpn") as client:
        assert fetch(mac, web) == "200"
        assert "10.213.94.2" in mac.run("ip", "-4", "-brief", "address", "show", "type", "tun").stdout
        # The first replica is gone for good: the Service sends the client to another.
        mac.run("docker", "stop", one.node.container("devkit-0", "vpn"))
        client.wait_for("Initialization Sequence Completed", times=2, seconds=90)
        address = mac.run("ip", "-4", "-brief", "address", "show", "type", "tun").stdout.split()[2]
        assert address in ("10.213.94.66/26", "10.213.94.130/26")
        assert fetch(mac, web) == "200"


def test_docker_networks_are_reached_too_and_nothing_is_left_behind(
    mac: Mac, engine: Engine, project: Path, one: Cluster
) -> None:
    folders = [f"dirPaths.local={project}/local", f"dirPaths.data={project}/server"]
    listening_before = listening(engine)
    install(one, project, "dockerNetworks=true", *folders)
    mac.run("docker", "network", "create", "--internal", "walled-in")
    # A Service counts by the address that was asked for, wherever its endpoints are.
    mac.run("docker", "network", "create", "--subnet", "192.168.78.0/24", "outside-the-routes")
    outside = web(mac, "--network", "outside-the-routes")
    engine.run("iptables", "-t", "nat", "-A", "PREROUTING", "-d", "10.96.77.77", "-j", "DNAT", "--to", outside)
    reached = [web(mac), web(mac, "--network", "walled-in"), one.start_web("for-docker-networks"), "10.96.77.77"]
    with connected(mac, project / "local/docker-for-mac.ovpn") as client:
        for address in reached:
            eventually(lambda address=address: fetch(mac, address, seconds=2) == "200")  # type: ignore[misc]  # mypy infers no type for it
        # What is for the one the engine drops by itself; what is for the other, the machine, our packet filters alone.
        machine = engine.run("ip", "-4", "-brief", "address", "show", "tap0").stdout.split()[2].split("/")[0]
        closed = {address: mac.home / f"sampled-{address}" for address in (outside, machine)}
        for address in closed:
            mac.run("ip", "route", "add", f"{address}/32", "via", "10.213.94.1")
        assert fetch(mac, outside, seconds=3) == "timed out"
        # Another pod gains nothing by what is open for the server's.
        other = ["docker", "exec", one.node.container("for-docker-networks", "nginx"), "timeout", "2", "bash", "-c"]
        assert mac.run(*other, f"echo > /dev/tcp/{reached[0]}/80", check=False).returncode == 124
        # Each pod is replaced, the server's with its address: nothing opens meanwhile.
        pings = []
        for address, log in closed.items():
            with log.open("w") as output:
                pings.append(mac.start("ping", "-i", "0.02", address, output=output))
        one.run("kubectl", "delete", "pod", "devkit-firewall-0", "--namespace", NAMESPACE)
        before = one.pod("devkit-0")["metadata"]["uid"]
        one.run("kubectl", "delete", "pod", "devkit-0", "--namespace", NAMESPACE)
        eventually(lambda: pod_exists(one, "devkit-0") and one.pod("devkit-0")["metadata"]["uid"] != before)
        client.wait_for("Initialization Sequence Completed", times=2, seconds=90)
        eventually(lambda: fetch(mac, reached[0], seconds=2) == "200")
        for ping in pings:
            ping.terminate()
            ping.wait()
        for address, log in closed.items():
            assert "bytes from" not in log.read_text(), f"{address} answered"
    # Nothing of the chart listens on the node: the one socket more, if any, is the load balancer's.
    assert listening(engine) <= listening_before | {"127.0.0.1:1194"}
    run = helm_test(one)
    assert run.returncode == 0, run.stdout + run.stderr
    assert our_rules(engine) != []
    uninstall(one)
    eventually(lambda: our_rules(engine) == [])
    assert "d4m0" not in engine.run("ip", "-brief", "link").stdout


def listening(engine: Engine) -> set[str]:
    """Where something listens in the node's own network, for TCP and UDP."""
    return {line.split()[4] for line in engine.run("ss", "-Htuln").stdout.splitlines()}


def pod_exists(cluster: Cluster, name: str) -> bool:
    return any(pod["metadata"]["name"] == name for pod in cluster.api.find("Pod", NAMESPACE))


def test_port_forward_finds_the_server_on_the_pods_loopback(mac: Mac, project: Path, one: Cluster) -> None:
    notes = install(one, project, "service.type=ClusterIP")
    assert "kubectl port-forward service/devkit --namespace docker-for-mac 1194" in notes
    network = f"container:{one.node.container('devkit-0', 'pause')}"
    configs = f"{project}/local/configs:/etc/vpn/configs:ro"
    mac.run("docker", "run", "--rm", "--network", network, "--volume", configs, "--user", "root", "d4m-devkit-gateway",
            "probe.sh", "tcp", "127.0.0.1", "1194")  # fmt: skip


def test_udp(mac: Mac, project: Path, one: Cluster) -> None:
    uninstall(one)  # of another test
    over_udp = copy_project(mac.home / "udp", routes=CLUSTER_ROUTES, vpn_protocol="udp", vpn_port=4194)
    install(one, over_udp)
    with connected(mac, over_udp / "local/docker-for-mac.ovpn"):
        assert fetch(mac, one.start_web("for-udp")) == "200"
    run = helm_test(one)
    assert run.returncode == 0, run.stdout + run.stderr
    uninstall(one)


def test_node_that_does_not_forward_is_named(mac: Mac, project: Path) -> None:
    run = mac.run("docker", "run", "--rm", "--sysctl", "net.ipv4.ip_forward=0", "d4m-devkit-gateway", "firewall.sh",
                  check=False)  # fmt: skip
    assert run.returncode == 1
    assert "net.ipv4.ip_forward is 0" in run.stderr


@pytest.mark.parametrize("script", ["firewall.sh", "network.sh"])
def test_node_that_gives_no_packet_filter_is_named(mac: Mac, project: Path, script: str) -> None:
    """As a kernel without nf_tables does, because a pod may not speak to the older iptables."""
    given = ["--env", "VPN_SUBNET=10.213.94.0/24", "--env", "ROUTES=172.16.0.0/12", "--env", "VPN_PROTOCOL=tcp",
             "--sysctl", "net.ipv4.ip_forward=1"]  # fmt: skip
    run = mac.run("docker", "run", "--rm", "--user", "root", "--cap-drop", "ALL", *given, "d4m-devkit-gateway", script,
                  check=False)  # fmt: skip
    assert run.returncode == 1
    assert "its kernel has no nf_tables" in run.stderr
