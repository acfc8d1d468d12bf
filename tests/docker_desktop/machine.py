"""The lab's life: boot, use, tear down."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

from tests.docker_desktop import cache

HERE = Path(__file__).resolve().parent
PREFIX = "d4m-lab-"
BOOT_SECONDS = 60
CGROUPS = Path("/sys/fs/cgroup")
VM_NETWORK = "vm-network"  # a link to the network namespace that the VM has now
ENGINE_HOST, ENGINE_ADDRESS = "engine.example.org", "192.0.2.1"  # of one that shares nothing
# As Docker's documentation advises: else each of the many commands of one script makes a connection of its own.
SSH_KEEPS_CONNECTION = "ControlMaster auto\\nControlPath ~/.ssh/kept-%%C\\nControlPersist 60\\n"
MARK = "D4M_LAB"  # every process of a lab carries the lab's folder in this environment variable

BASE_IMAGE = "debian:trixie-slim"
# No registry is in reach, so these are built.
WEB_IMAGE = "nginx:debian"
REGISTRY_IMAGE = "registry:debian"
BALANCER_IMAGE = "balancer:debian"

# iptables over nf_tables or on its own; or, as an engine without a packet filter of its own sees it, neither.
IptablesBackend = Literal["nft", "legacy", "none"]


class Mac:
    """The user's computer: commands run in its namespaces, with Docker's command line for the engine."""

    def __init__(
        self, folder: Path, home: Path, process_id: int, options: list[str], docker: Mapping[str, str]
    ) -> None:
        self.home = home
        self.process_id = process_id
        self._enter = ("nsenter", f"--net=/proc/{process_id}/ns/net", f"--mount=/proc/{process_id}/ns/mnt")
        self._options = options
        self.environment = os.environ | docker | {MARK: str(folder)}
        # `python` is the one that this runs on, with what the scripts need.
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"

    def command(self, *command: str | Path, cwd: Path | None = None) -> list[str]:
        """The command as it is run from outside of the lab, in a folder or else in the home."""
        return [*self._enter, f"--wdns={cwd or self.home}", "--", *map(str, command)]

    def run(
        self, *command: str | Path, cwd: Path | None = None, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and capture what it prints.

        Raises subprocess.CalledProcessError when `check` and the exit code is not 0.
        """
        return _captured(self.command(*command, cwd=cwd), check, timeout, self.environment)

    def start(self, *command: str | Path, output: IO[str]) -> subprocess.Popen[str]:
        """Start a command that goes on; the caller ends it, or else it dies with the lab."""
        return subprocess.Popen(
            [*self._options, *self.command(*command)],
            env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True,
            start_new_session=True,
        )  # fmt: skip


class Engine:
    """The virtual machine with the Docker engine: commands run inside it as root."""

    def __init__(
        self,
        lab_folder: Path,
        docker_data: Path,
        suite: cache.EngineSuite,
        store: cache.ImageStore | Literal["podman"],
        backend: IptablesBackend,
        options: list[str],
        shares: bool = True,
    ) -> None:
        self._folder = lab_folder
        self._shares = shares
        self._root_filesystem = cache.machine(suite)
        self._store = store
        self._backend = backend
        self._options = options
        self._docker_data = docker_data
        self._process: subprocess.Popen[bytes] | None = None
        self._uplink: subprocess.Popen[bytes] | None = None

    @property
    def process_id(self) -> int:
        """The process whose network namespace is the VM's."""
        assert self._process is not None, "the VM is not running"
        return self._process.pid

    def boot(self) -> None:
        """Start the VM and wait until its engine answers.

        Raises RuntimeError with the engine's log when it does not.
        """
        for name in ("root", "upper", "work"):
            (self._folder / name).mkdir(exist_ok=True)
        log = self._folder / "engine.log"
        self._process = _spawn(
            self._folder,
            self._options,
            ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--propagation",
             "private", "sh", HERE / "boot-vm.sh", self._folder, self._root_filesystem, self._docker_data,
             self._backend, self._store, "shared" if self._shares else "alone"],
            "engine.log",
        )  # fmt: skip
        (self._folder / VM_NETWORK).unlink(missing_ok=True)
        (self._folder / VM_NETWORK).symlink_to(f"/proc/{self._process.pid}/ns/net")
        _wait_for(lambda: _has_own_network(self.process_id), self._process, log)
        self._uplink = _spawn(
            self._folder,
            self._options,
            ["slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", "--netns-type=path",
             f"/proc/{self._process.pid}/ns/net", "tap0"],
            "uplink.log",
        )  # fmt: skip
        _wait_for(self.answers, self._process, log)

    def answers(self) -> bool:
        """Whether the engine answers inside the VM."""
        return self._children() != [] and self.run("docker", "version", check=False).returncode == 0

    def run(self, *command: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command in the VM's host namespaces and capture what it prints."""
        enter = ["nsenter", f"--target={self._first_process()}", "--net", "--mount", "--pid", "--ipc", "--uts", "--"]
        return _captured([*enter, *command], check, timeout)

    def kill(self) -> None:
        """Pull the VM's plug: every process in it dies at once."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Have the engine started anew while its machine runs on, and wait until it answers."""
        ended = self.run("cat", "/run/docker.pid").stdout
        self.run("kill", ended)
        assert self._process is not None, "the VM is not running"
        _wait_for(
            lambda: self.run("cat", "/run/docker.pid", check=False).stdout not in ("", ended) and self.answers(),
            self._process,
            self._folder / "engine.log",
        )

    def shut_down(self) -> None:
        """Stop the engine in an orderly way, so that its data folder can be copied."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process and self._process.poll() is None:
            # The first process, not unshare: unshare ends when the whole PID namespace is empty.
            with suppress(ProcessLookupError):
                os.kill(self._first_process() if self._children() else self.process_id, how)
            self._process.wait(timeout=BOOT_SECONDS)
        if self._uplink:
            self._uplink.kill()
            self._uplink.wait()

    def _first_process(self) -> int:
        return self._children()[0]

    def _children(self) -> list[int]:
        """The VM's first process; none while unshare has not got that far."""
        children = Path(f"/proc/{self.process_id}/task/{self.process_id}/children").read_text().split()
        return [int(child) for child in children]


@contextmanager
def lab(
    iptables: IptablesBackend = "nft",
    suite: cache.EngineSuite = cache.NEWEST,
    store: cache.ImageStore | None = None,
    docker_data: Path | None = None,
    keep: bool = False,
) -> Iterator[tuple[Mac, Engine]]:
    """Boot a Mac and the engine of a Debian suite; tear both down at the end, however it comes.

    With `keep` a body that succeeds leaves the lab running, until `remove_lab`.
    """
    store = store or cache.image_store(suite)
    if not docker_data:
        cache.prepare(suite, store, _fill_docker_data)
    with _folder(keep) as (folder, teardown):
        if not docker_data:
            docker_data = folder / "docker"
            cache.copy_docker_data(suite, store, docker_data)
        engine = Engine(folder, docker_data, suite, store, iptables, _lifetime(keep))
        teardown.callback(engine.kill)
        engine.boot()
        yield _boot_mac_before(folder, teardown, keep), engine


class Podman(Engine):
    """A virtual machine with a rootful Podman: it serves Docker's API at its own place, and where the Mac sees it."""

    def __init__(self, lab_folder: Path, data: Path, options: list[str]) -> None:
        super().__init__(lab_folder, data, cache.NEWEST, "podman", "nft", options)
        self._root_filesystem = cache.PODMAN

    def answers(self) -> bool:
        """Whether the engine answers inside the VM."""
        asked = ("podman", "--url", f"unix://{self._folder}/shared/docker.sock", "version")
        return self._children() != [] and self.run(*asked, check=False).returncode == 0


@contextmanager
def podman_lab(data: Path | None = None) -> Iterator[tuple[Mac, Engine]]:
    """Boot a Mac, whose user has Docker's command line, and a VM with Podman; tear both down at the end."""
    if not data:
        cache.prepare_podman(_fill_podman_images)
    with _folder(keep=False) as (folder, teardown):
        if not data:
            data = folder / "podman"
            data.mkdir()
        engine = Podman(folder, data, _lifetime(keep=False))
        teardown.callback(engine.kill)
        engine.boot()
        yield _boot_mac_before(folder, teardown, keep=False), engine


class RemoteEngine(Engine):
    """An engine on a machine of its own, ENGINE_HOST, which shares no folder with the computers of its users.

    They reach it by ssh, in Docker's context `engine`, or by TLS, in the context `engine-tls`. The first computer's ssh
    keeps its connection for the next command, the others' is as it comes.
    """

    def __init__(self, lab_folder: Path, docker_data: Path, store: cache.ImageStore, options: list[str]) -> None:
        super().__init__(lab_folder, docker_data, cache.NEWEST, store, "nft", options, shares=False)
        self._users: list[Mac] = []

    def boot(self) -> None:
        """Start the machine with its sshd, and its network with all its users' computers."""
        super().boot()
        self.run("ip", "link", "add", "lan", "type", "bridge")
        self.run("ip", "address", "add", f"{ENGINE_ADDRESS}/24", "dev", "lan")
        self.run("ip", "link", "set", "lan", "up")
        self.run("sh", "-c", "mkdir -p /run/sshd && /usr/sbin/sshd")
        for number, mac in enumerate(self._users, start=1):
            self._plug_in(mac, number)

    def let_in(self, mac: Mac) -> None:
        """Put one more computer on the network, and let its user log in as root, which is Docker's current context."""
        self._users.append(mac)
        self._plug_in(mac, len(self._users))
        mac.run("sh", "-c", f"echo '{ENGINE_ADDRESS} {ENGINE_HOST}' >> /etc/hosts")
        mac.run("sh", "-c", "mkdir -p -m 0700 ~/.ssh && rm -f ~/.ssh/*"
                " && echo 'StrictHostKeyChecking accept-new' > ~/.ssh/config"
                " && ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519")  # fmt: skip
        if len(self._users) == 1:
            mac.run("sh", "-c", f"printf '{SSH_KEEPS_CONNECTION}' >> ~/.ssh/config")
        key = mac.run("sh", "-c", "cat ~/.ssh/id_ed25519.pub").stdout.strip()
        self.run("sh", "-c", f"mkdir -p /root/.ssh && echo '{key}' >> /root/.ssh/authorized_keys")
        mac.run("docker", "context", "create", "engine", "--docker", f"host=ssh://root@{ENGINE_HOST}")
        mac.run("docker", "context", "use", "engine")
        keys = self._folder / "tls"
        tls = f"host=tcp://{ENGINE_HOST}:2376,ca={keys}/ca.pem,cert={keys}/client.pem,key={keys}/client.key"
        mac.run("docker", "context", "create", "engine-tls", "--docker", tls)

    def _plug_in(self, mac: Mac, number: int) -> None:
        plug = f"computer-{number}"
        mac.run("ip", "link", "add", "en1", "type", "veth", "peer", "name", plug, "netns", str(self.process_id))
        mac.run("ip", "address", "add", f"192.0.2.{10 + number}/24", "dev", "en1")
        mac.run("ip", "link", "set", "en1", "up")
        self.run("ip", "link", "set", plug, "master", "lan", "up")
        mac.run("sh", "-c", "rm -f ~/.ssh/kept-*")  # a connection to the machine as it was before it was booted anew


def _make_tls_keys(folder: Path) -> None:
    """Make the keys of Docker's own TLS: an authority's certificate, and a pair for server and client."""
    from devkit.keys import x509  # noqa: PLC0415 -- the demo needs none of this, and does not find it

    now = datetime.now(UTC)
    authority = x509.new_ca("lab", "ecdsa-p256", 1, now)
    pairs = {
        "server": x509.issue(authority, x509.SERVER, [ENGINE_HOST], "ecdsa-p256", 1, now),
        "client": x509.issue(authority, x509.CLIENT, ["team"], "ecdsa-p256", 1, now),
    }
    folder.mkdir()
    (folder / "ca.pem").write_bytes(authority.certificate_pem)
    for name, pair in pairs.items():
        (folder / f"{name}.pem").write_bytes(pair.certificate_pem)
        (folder / f"{name}.key").write_bytes(pair.key_pem)


@contextmanager
def remote_lab(computers: int) -> Iterator[tuple[RemoteEngine, list[Mac]]]:
    """Boot an engine on a machine of its own, and computers beside it on one network."""
    cache.prepare(cache.NEWEST, cache.STORE, _fill_docker_data)
    with _folder(keep=False) as (folder, teardown):
        cache.copy_docker_data(cache.NEWEST, cache.STORE, folder / "docker")
        _make_tls_keys(folder / "tls")
        engine = RemoteEngine(folder, folder / "docker", cache.STORE, _lifetime(keep=False))
        teardown.callback(engine.kill)
        engine.boot()
        macs = []
        for number in range(1, computers + 1):
            home = folder / f"computer-{number}"
            home.mkdir()
            macs.append(_boot_mac(folder, home, teardown, False, ["sleep", "infinity"], _docker_command_line(home)))
            engine.let_in(macs[-1])
        yield engine, macs


@contextmanager
def mac_alone() -> Iterator[Mac]:
    """Boot a Mac without any engine."""
    with _folder(keep=False) as (folder, teardown):
        home = folder / "shared"
        path = {"PATH": f"{home}/bin:{os.environ['PATH']}"}
        yield _boot_mac(folder, home, teardown, False, ["sleep", "infinity"], path)


@contextmanager
def mac_beside_this_machine(engine_socket: Path, keep: bool = False) -> Iterator[Mac]:
    """Boot a Mac whose virtual machine is this machine itself, with the Docker engine that runs on it."""
    with _folder(keep) as (folder, teardown), Path("/proc/self/ns/net").open() as network:
        (folder / VM_NETWORK).symlink_to(f"/proc/self/fd/{network.fileno()}")  # as the forwarder inherits it
        home, forward = folder / "shared", _forwarder(folder, engine_socket)
        yield _boot_mac(folder, home, teardown, keep, forward, {}, (network.fileno(),))


def _boot_mac_before(folder: Path, teardown: ExitStack, keep: bool) -> Mac:
    """Boot a Mac that shares its home with the lab's VM."""
    home = folder / "shared"
    docker = {**_docker_command_line(home), "DOCKER_HOST": f"unix://{home}/docker.sock"}
    return _boot_mac(folder, home, teardown, keep, _forwarder(folder, home / "docker.sock"), docker)


def _forwarder(folder: Path, engine_socket: Path) -> list[str | Path]:
    return [sys.executable, HERE / "port_forwarder.py", engine_socket, folder / VM_NETWORK]


def _boot_mac(
    folder: Path,
    home: Path,
    teardown: ExitStack,
    keep: bool,
    command: list[str | Path],
    docker: Mapping[str, str],
    inherit: tuple[int, ...] = (),
) -> Mac:
    process = _spawn(
        folder,
        _lifetime(keep),
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", HERE / "boot-mac.sh",
         folder / f"changes-{home.name}", *command],
        "mac.log",
        inherit,
    )  # fmt: skip
    teardown.callback(process.wait)
    teardown.callback(process.kill)
    _wait_for(lambda: _has_own_network(process.pid) and _has_default_route(process.pid), process, folder / "mac.log")
    return Mac(folder, home, process.pid, _lifetime(keep), docker)


def _docker_command_line(home: Path) -> Mapping[str, str]:
    """Put the VM's own Docker command line on the Mac, and give the environment that leads to it."""
    root = cache.machine(cache.NEWEST)
    plugins = root / "usr/libexec/docker/cli-plugins"
    (home / ".docker").mkdir()
    (home / ".docker/config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(plugins)]}))
    (home / "bin").mkdir()
    (home / "bin/docker").symlink_to(root / "usr/bin/docker")
    return {
        "DOCKER_CONFIG": str(home / ".docker"),
        "PATH": f"{home}/bin:{os.environ['PATH']}",
    }


def _lifetime(keep: bool) -> list[str]:
    """What makes a process die with this one, unless it is to be kept."""
    return [] if keep else ["setpriv", "--pdeathsig", "KILL"]


@contextmanager
def _folder(keep: bool) -> Iterator[tuple[Path, ExitStack]]:
    """Give a lab its folder and the stack of what to undo, which is undone unless the lab is kept."""
    _remove_abandoned_labs()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with ExitStack() as teardown:
        # Owned to the end, or another lab would take it for abandoned and remove it at the same time.
        teardown.enter_context(_owned(folder))
        teardown.callback(remove_lab, folder)
        (folder / "shared").mkdir()
        yield folder, teardown
        if keep:
            (folder / "kept").touch()
            teardown.pop_all()


def kept_labs() -> list[Path]:
    """The folders of the labs that were kept."""
    return [mark.parent for mark in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/kept")]


def processes_of(folder: Path) -> list[int]:
    """The process numbers of a lab: the Mac's, the VM's, and all that was started in them."""
    mark = f"{MARK}={folder}".encode()
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if mark in _environment(entry)]


def _environment(process: Path) -> list[bytes]:
    with suppress(OSError):
        return (process / "environ").read_bytes().split(b"\0")
    return []


def _fill_docker_data(suite: cache.EngineSuite, store: cache.ImageStore) -> None:
    """Load the base image into a new engine and build the images that every lab has."""
    finished = cache.docker_data(suite, store)
    unfinished = finished.with_name(f"unfinished-{finished.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    print(f"lab: loading the images into Engine {cache.ENGINES[suite]} (once)", flush=True)
    with lab(suite=suite, store=store, docker_data=unfinished) as (mac, engine):
        _build_images(mac, {"web": WEB_IMAGE, "registry": REGISTRY_IMAGE, "balancer": BALANCER_IMAGE})
        engine.shut_down()
    os.rename(unfinished, finished)


def _fill_podman_images() -> None:
    """Do the same for Podman."""
    unfinished = cache.PODMAN_IMAGES.with_name(f"unfinished-{cache.PODMAN_IMAGES.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    print("lab: loading the images into Podman (once)", flush=True)
    with podman_lab(data=unfinished) as (mac, _):
        mac.environment["DOCKER_BUILDKIT"] = "0"
        _build_images(mac, {"web": WEB_IMAGE})
    os.rename(unfinished, cache.PODMAN_IMAGES)


def _build_images(mac: Mac, images: Mapping[str, str]) -> None:
    """Import the base image, and build these, by the folders that say how, and the project's own."""
    path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    mac.run("docker", "import", "--change", path, cache.BASE_IMAGE, BASE_IMAGE)
    for folder, name in images.items():
        mac.run("docker", "build", "--tag", name, HERE / folder)
    project = shutil.copytree(cache.REPOSITORY / "template", mac.home / "devkit")
    for number, target in enumerate(("gateway", "names", "proxy")):
        dockerfile = project / "gateway/Dockerfile"
        # It stays under this name: else each lab's first build would unpack all layers again, or Podman's run them.
        mac.run("docker", "build", "--tag", f"cache:{number}", "--target", target, "--file", dockerfile, project)


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold the lock that tells a lab in use from one whose owner was killed."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_abandoned_labs() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not (folder / "kept").exists():
                remove_lab(folder)


def remove_lab(folder: Path) -> None:
    """End what still runs of a lab, and remove its control groups and its folder."""
    while processes := processes_of(folder):
        for process_id in processes:
            with suppress(ProcessLookupError):
                os.kill(process_id, signal.SIGKILL)
        time.sleep(0.05)
    for groups in (CGROUPS / folder.name, *CGROUPS.glob(f"*/{folder.name}")):
        for group, _, _ in os.walk(groups, topdown=False):
            _remove_when_empty(Path(group))
    shutil.rmtree(folder)


def _remove_when_empty(group: Path) -> None:
    """Remove a control group, whose last processes may still be ending."""
    for _ in range(600):
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(0.05)
    group.rmdir()


def _spawn(
    folder: Path, options: list[str], command: list[str | Path], log: str, inherit: tuple[int, ...] = ()
) -> subprocess.Popen[bytes]:
    """Start one of the lab's processes in a session of its own, where a Ctrl-C at the terminal does not reach."""
    with (folder / log).open("a") as output:
        return subprocess.Popen(
            [*options, *map(str, command)],
            env=os.environ | {MARK: str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=inherit,
        )


def _captured(
    command: list[str],
    check: bool,
    timeout: float,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    completed = subprocess.run(
        command,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check and completed.returncode != 0:
        sys.stderr.write(completed.stdout + completed.stderr)
        completed.check_returncode()
    return completed


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            if condition():
                return
        time.sleep(0.05)
    raise RuntimeError(f"lab: {process.args!r} did not come up: {log.read_text()[-2000:]}")


def _has_own_network(process_id: int) -> bool:
    network = os.stat(f"/proc/{process_id}/ns/net").st_ino
    return network != os.stat("/proc/self/ns/net").st_ino


def _has_default_route(process_id: int) -> bool:
    return "00000000" in Path(f"/proc/{process_id}/net/route").read_text()
