"""The ways from the lab's Mac into its VM that are measured: the project's own, and its peers.

A wire of their own leads from one to the other: the lab's port forwarder, a Python stand-in for Docker Desktop's, would
hide the differences.
"""

import base64
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.bench.measurements import LIMIT, OURS, RAW, RECIPE, WIREGUARD
from tests.conftest import copy_project
from tests.docker_desktop import WEB_IMAGE, Engine, Mac
from tests.vpn import connected, up

IMAGE = "bench-peers"
WIRE, VM_ADDRESS, MAC_ADDRESS = "wire", "192.0.2.1", "192.0.2.2"
RELAY_NETWORK, RELAY_SUBNET, RELAY_GATEWAY = "bench-relay", "172.30.0.0/24", "172.30.0.1"
VPN_SUBNET, ROUTE = "10.213.94.0/24", "172.16.0.0/12"
WEB, BIG = "web", "big"  # a container, and the file in it that is worth a download
MEGABYTES = 128
MTUS = (1500, 9000)
WIREGUARD_ADDRESSES = "10.213.95.1", "10.213.95.2"  # the Mac's and the VM's
TUNING = ("tun-mtu", "sndbuf", "rcvbuf", "tcp-nodelay")
# A server for each measurement: one that is still ending a slow way's stream resets the next connection.
PORTS = range(5201, 5212)
SERVERS = " & ".join(f"iperf3 --server --port {port}" for port in PORTS)
# One end. usage: ADDRESS PRIVATE_KEY PEER PEER_ADDRESS [ENDPOINT]
WIREGUARD_END = """
echo "$2" > /run/key
(
    until wg set wg0 listen-port 51820 private-key /run/key peer "$3" allowed-ips "$4/32" ${5:+endpoint "$5"}; do
        sleep 0.1
    done
    ip address add "$1" peer "$4" dev wg0
    ip link set wg0 mtu 1420 up
) 2> /run/errors &
exec wireguard-go --foreground wg0
"""
FarEnds = Mapping[int, str]  # where iperf3's servers are, by the MTU of their network


@dataclass(frozen=True)
class Bench:
    """Where it is measured, and the project whose keys and settings all OpenVPNs share."""

    mac: Mac
    engine: Engine
    project: Path
    web: str  # the address of a container that serves a page and a download

    @property
    def profile(self) -> Path:
        """The project's profile, as it was generated."""
        return self.project / "local/docker-for-mac.ovpn"

    @property
    def in_peers(self) -> list[str]:
        """What runs a command on the Mac in the root filesystem of the image of the peers."""
        root = _peers(self.mac)
        mounts = [f"--rbind /dev {root}/dev", f"-t proc proc {root}/proc", f"-t tmpfs tmpfs {root}/run"]
        script = " && ".join([*(f"mount {mount}" for mount in mounts), f'exec chroot {root} "$@"'])
        return ["unshare", "--mount", "sh", "-c", script, "-"]


@contextmanager
def ours(bench: Bench) -> Iterator[FarEnds]:
    """The project as `up.py` brings it up, its profile unedited."""
    try:
        up(bench.mac, bench.project)
        with connected(bench.mac, bench.profile), containers(bench) as far_ends:
            yield far_ends
    finally:
        bench.mac.run(sys.executable, "scripts/down.py", cwd=bench.project)


@contextmanager
def no_relay(bench: Bench) -> Iterator[FarEnds]:
    """The same server in the engine's host network, on the wire's own address."""
    with (
        server(bench, bench.project / "server", VM_ADDRESS, 1194),
        connected(bench.mac, bench.profile),
        containers(bench) as far_ends,
    ):
        yield far_ends


@contextmanager
def recipe_of_2018(bench: Bench) -> Iterator[FarEnds]:
    """A published port, socat, a server in the host network; defaults of socat, and of OpenVPN on both sides."""
    folder = bench.mac.home / "untuned"
    folder.mkdir(exist_ok=True)
    (folder / "server.conf").write_text(untuned((bench.project / "server/server.conf").read_text()))
    (folder / "client.ovpn").write_text(untuned(bench.profile.read_text()))
    relay = [f"--network={RELAY_NETWORK}", f"--publish={VM_ADDRESS}:1194:1194"]
    socat = ["socat", "TCP-LISTEN:1194,fork", f"TCP:{RELAY_GATEWAY}:11194"]
    with (
        server(bench, folder, RELAY_GATEWAY, 11194),
        container(bench.mac, *relay, IMAGE, *socat),
        connected(bench.mac, folder / "client.ovpn"),
        containers(bench) as far_ends,
    ):
        yield far_ends


@contextmanager
def wireguard(bench: Bench) -> Iterator[FarEnds]:
    """wireguard-go, MTU 1420, point to point with the VM: no container, so it has the same far end for both MTUs."""
    here, there = WIREGUARD_ADDRESSES
    (own, own_public), (other, other_public) = key_pair(), key_pair()
    options = ["--network=host", "--cap-add=NET_ADMIN", "--device=/dev/net/tun", "--tmpfs=/run"]
    run = ["sh", "-c", WIREGUARD_END, "-"]
    with (
        container(bench.mac, *options, IMAGE, *run, there, other, own_public, here),
        container(bench.mac, "--network=host", IMAGE, "sh", "-c", SERVERS),
        (bench.mac.home / "wireguard.log").open("w") as output,
    ):
        end = [here, own, other_public, there, f"{VM_ADDRESS}:51820"]
        process = bench.mac.start(*bench.in_peers, *run, *end, output=output)
        try:
            bench.mac.run("ping", "-c", "1", "-w", "20", there)
            yield dict.fromkeys(MTUS, there)
        finally:
            process.terminate()
            process.wait(timeout=10)


@contextmanager
def raw(bench: Bench) -> Iterator[FarEnds]:
    """No VPN: a route, and the engine's packet filter open for it."""
    with opened(bench.engine, WIRE):
        bench.mac.run("ip", "route", "add", ROUTE, "via", VM_ADDRESS)
        try:
            with containers(bench) as far_ends:
                yield far_ends
        finally:
            bench.mac.run("ip", "route", "del", ROUTE)


# What they say of themselves is printed.
PATHS: Mapping[str, Callable[[Bench], AbstractContextManager[FarEnds]]] = {
    OURS: ours, LIMIT: no_relay, RECIPE: recipe_of_2018, WIREGUARD: wireguard, RAW: raw,
}  # fmt: skip


def untuned(configuration: str) -> str:
    """The configuration with OpenVPN's defaults in the place of ours."""
    return "".join(line for line in configuration.splitlines(True) if not line.startswith(TUNING))


@contextmanager
def server(bench: Bench, configuration: Path, address: str, port: int) -> Iterator[None]:
    """An OpenVPN server in the engine's host network, and the packet filter open for its device."""
    mounts = {configuration: "/etc/vpn/server", (bench.project / "local/configs").resolve(): "/etc/vpn/configs"}
    options = ["--network=host", "--cap-add=NET_ADMIN", "--device=/dev/net/tun", "--tmpfs=/run"]
    options += [f"--volume={folder}:{target}:ro" for folder, target in mounts.items()]
    command = ["openvpn", "--cd", "/etc/vpn/configs", "--config", "/etc/vpn/server/server.conf"]
    command += ["--dev", "d4m0", "--local", address, "--port", str(port)]
    command += ["--status", "/run/status", "1", "--management", "/run/management", "unix"]
    masquerade = f"nat POSTROUTING -s {VPN_SUBNET} -j MASQUERADE"
    with container(bench.mac, *options, IMAGE, *command), opened(bench.engine, "d4m0", masquerade):
        yield


def key_pair() -> tuple[str, str]:
    """A private and its public key, as WireGuard writes them."""
    private = X25519PrivateKey.generate()
    keys = (private.private_bytes_raw(), private.public_key().public_bytes_raw())
    first, second = (base64.b64encode(key).decode() for key in keys)
    return first, second


@contextmanager
def containers(bench: Bench) -> Iterator[FarEnds]:
    """A far end in a network of each MTU. New ones each time: they remember the path MTU of the way before."""
    with ExitStack() as stack:
        yield {
            mtu: stack.enter_context(container(bench.mac, f"--network=mtu-{mtu}", IMAGE, "sh", "-c", SERVERS))
            for mtu in MTUS
        }


@contextmanager
def container(mac: Mac, *options: str) -> Iterator[str]:
    """A container, and its address on a network of its own if it has one."""
    name = mac.run("docker", "run", "--detach", *options).stdout.strip()
    try:
        yield address_of(mac, name)
    finally:
        mac.run("docker", "rm", "--force", name)


def address_of(mac: Mac, name: str) -> str:
    """The address of a container."""
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return mac.run("docker", "inspect", "--format", template, name).stdout.strip()


@contextmanager
def opened(engine: Engine, device: str, *more: str) -> Iterator[None]:
    """The engine's packet filter, open for a device."""
    user = [f"filter DOCKER-USER {direction} {device} -j ACCEPT" for direction in ("-i", "-o")]
    with ExitStack() as undo:
        for rule in (f"raw PREROUTING -i {device} -j ACCEPT", *user, *more):
            table, chain, *match = rule.split()
            engine.run("iptables", "-t", table, "-I", chain, *match)
            undo.callback(engine.run, "iptables", "-t", table, "-D", chain, *match)
        yield


def prepare(mac: Mac, engine: Engine) -> Bench:
    """Lay the wire; make the project, the image, the networks, and a container to fetch from."""
    # Published everywhere: up.py takes the lab's engine for this computer's own, which has not the wire's address.
    answers = {"vpn_host": VM_ADDRESS, "vpn_listen": "0.0.0.0", "vpn_subnet": VPN_SUBNET, "routes": [ROUTE]}
    project = copy_project(mac.home / "devkit", **answers)
    # A veth pair as it comes: MTU 1500, all offloads on.
    mac.run("ip", "link", "add", WIRE, "type", "veth", "peer", "name", WIRE, "netns", str(engine.process_id))
    for machine, address in ((mac, MAC_ADDRESS), (engine, VM_ADDRESS)):
        machine.run("ip", "address", "add", f"{address}/24", "dev", WIRE)
        machine.run("ip", "link", "set", WIRE, "up")
    mac.run("docker", "build", "--tag", IMAGE, Path(__file__).resolve().parent / "peers", timeout=600)
    root = _peers(mac)
    root.mkdir()
    mac.run("sh", "-c", f"docker create --name peers {IMAGE} true && docker export peers | tar -x -C {root}")
    mac.run("docker", "network", "create", "--subnet", RELAY_SUBNET, RELAY_NETWORK)
    for mtu in MTUS:
        mac.run("docker", "network", "create", "--opt", f"com.docker.network.driver.mtu={mtu}", f"mtu-{mtu}")
    serve = f"truncate --size={MEGABYTES}M /var/www/html/{BIG} && exec nginx -g 'daemon off;'"
    mac.run("docker", "run", "--detach", "--name", WEB, f"--network=mtu-{MTUS[0]}", WEB_IMAGE, "sh", "-c", serve)
    return Bench(mac, engine, project, address_of(mac, WEB))


def _peers(mac: Mac) -> Path:
    return mac.home / "peers"
