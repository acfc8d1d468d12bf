"""A server's pod that starts anew: its clients are back soon, and what makes it so costs a slow network nothing."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, copy_project
from tests.docker_desktop import BALANCER_IMAGE, Engine, Mac
from tests.kubernetes.lab_cluster import CLUSTER_ROUTES, NAMESPACE, Cluster, cluster
from tests.vpn import connected, eventually, patience, start_client

DONE = "Initialization Sequence Completed"
# Seconds from when the new pod is ready; how long it takes to be so is the machine's affair. The profile gives up a
# server that has gone after 6, and tries again 1 to 5 later; without that it would be a minute.
SOON = 15.0


@pytest.fixture(scope="module")
def one(machines: tuple[Mac, Engine]) -> Iterator[Cluster]:
    with cluster(*machines) as running:
        running.node.seconds_to_start = 3.0  # as long as a real one takes, in which clients come back to the dying pod
        yield running


@pytest.fixture(scope="module", params=["tcp", "udp"])
def project(request: pytest.FixtureRequest, one: Cluster) -> Iterator[Path]:
    """A project whose chart is installed, with a load balancer that accepts before it connects."""
    project = copy_project(one.mac.home / request.param, routes=CLUSTER_ROUTES, vpn_protocol=request.param)
    one.mac.run("docker", "compose", "build", "--quiet", cwd=project)
    run = one.run(
        "helm", "install", "devkit", "./chart", "--namespace", NAMESPACE, "--create-namespace", "--values",
        "local/values.yaml", "--wait", "--timeout", "90s", cwd=project,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    yield project
    one.run("helm", "uninstall", "devkit", "--namespace", NAMESPACE)
    eventually(lambda: not one.api.find("Pod", NAMESPACE))


def restart(one: Cluster) -> float:
    """Delete the pod, which is then made anew; return when that was ready."""
    pod = ("pod/devkit-0", "--namespace", NAMESPACE)
    assert one.run("kubectl", "delete", *pod).returncode == 0
    ready = ("kubectl", "wait", "--for=condition=Ready", *pod, "--timeout=90s")
    eventually(lambda: one.run(*ready).returncode == 0, seconds=90)  # it fails while there is no pod
    return time.monotonic()


def test_client_is_soon_back_behind_a_forwarder_that_accepts_early(one: Cluster, project: Path) -> None:
    with connected(one.mac, project / "local/docker-for-mac.ovpn") as client:
        ready = restart(one)
        client.wait_for(DONE, times=2, seconds=90)
        took = time.monotonic() - ready
        print(f"{project.name}, forwarder: back after {took:.1f} s")
        assert took < patience(SOON), client.said()


def test_client_is_soon_back_without_a_forwarder(one: Cluster, project: Path) -> None:
    service = one.api.get("Service", "devkit", NAMESPACE)["spec"]["clusterIP"]
    profile = (project / "local/docker-for-mac.ovpn").read_text().replace("remote 127.0.0.1", f"remote {service}")
    (project / "local/direct.ovpn").write_text(f"{profile}route {service} 255.255.255.255 net_gateway\n")
    one.mac.run(
        "docker", "run", "--detach", "--name", "client", "--network", "pods", "--user", "root", "--cap-add",
        "NET_ADMIN", "--device", "/dev/net/tun", "--volume", f"{project}/local/direct.ovpn:/client.ovpn:ro",
        "--entrypoint", "openvpn", "d4m-devkit-gateway", "--config", "/client.ovpn",
    )  # fmt: skip

    def said() -> str:
        return one.mac.run("docker", "logs", "client").stdout

    eventually(lambda: DONE in said())
    ready = restart(one)
    eventually(lambda: said().count(DONE) == 2, seconds=90)
    took = time.monotonic() - ready
    print(f"{project.name}, direct: back after {took:.1f} s")
    log = said()
    one.mac.run("docker", "rm", "--force", "client")
    assert took < patience(SOON), log


def test_network_with_a_delay_of_a_second_each_way(engine: Engine, one: Cluster, project: Path) -> None:
    """The kernel has no netem, so a process delays each packet: the TCP handshake's, too."""
    mac, protocol = one.mac, project.name
    with (mac.home / "slow.log").open("w") as output:
        wire = mac.start(sys.executable, REPOSITORY / "tests/slow_wire.py", "slow0", "1.0", output=output)
        eventually(lambda: mac.run("ip", "link", "show", "slow0", check=False).returncode == 0)
        mac.run("ip", "address", "add", "192.0.2.1/24", "dev", "slow0")
        mac.run("ip", "link", "set", "slow0", "up")
        engine.run("ip", "address", "replace", "192.0.2.1/32", "dev", "lo")  # for the engine to publish on
        service = one.api.get("Service", "devkit", NAMESPACE)["spec"]["clusterIP"]
        mac.run("docker", "run", "--detach", "--network", "pods", "--publish", f"192.0.2.1:1194:1194/{protocol}",
                BALANCER_IMAGE, "socat", f"{protocol}4-listen:1194,fork,reuseaddr",
                f"{protocol}4:{service}:1194")  # fmt: skip
        profile = (project / "local/docker-for-mac.ovpn").read_text().replace("remote 127.0.0.1", "remote 192.0.2.2")
        (project / "local/slow.ovpn").write_text(profile)
        try:
            with start_client(mac, project / "local/slow.ovpn") as client:
                client.wait_for(DONE, seconds=60)
                assert "restarting" not in client.said()  # the first attempt got through
        finally:
            wire.terminate()
            wire.wait()
