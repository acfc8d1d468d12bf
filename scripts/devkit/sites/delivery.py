"""What the services read, copied to volumes of an engine that does not see the project's folder."""

import io
import os
import secrets
import tarfile
from collections.abc import Mapping
from pathlib import Path

from devkit import layout
from devkit.errors import UserError, most_telling
from devkit.facts import Container
from devkit.files import BESIDE, PRIVATE, READABLE, replace_all, write
from devkit.inventory import PROJECT_LABEL
from devkit.layout import Layout
from devkit.material.state import server_serial_numbers
from devkit.material.store import locked
from devkit.sites.docker import Docker, explained
from devkit.sites.image import Image

VOLUME_LABEL = "com.docker.compose.volume"
DELIVERED_LABEL = "d4m-devkit.delivered"
LAST = ".last"  # gateway/receive.sh takes no archive without it


class Delivery:
    """The volumes of a project; they are there only where the engine does not see its folder."""

    def __init__(self, project: Path, project_name: str, docker: Docker, image: Image, https: bool) -> None:
        self._project = project
        self._paths = Layout(project)
        self._project_name = project_name
        self._docker = docker
        self._image = image
        self._https = https

    @property
    def is_needed(self) -> bool:
        """Whether an engine has a copy of its own, as far as this computer knows."""
        return self._paths.delivered.exists()

    def begin(self, server: Container | None) -> bool:
        """Find out whether the engine sees the folder; return whether it needs a copy, and remember it.

        A `server` that has read what is in the folder now, through a mount of it, has seen it; else it is tried.
        """
        configs = self._paths.configs.resolve()
        if (server and configs in [Path(path).resolve() for path in server.binds]) or self._sees_folder():
            self._paths.delivered.unlink(missing_ok=True)
            return False
        replace_all([(self._paths.delivered, self._docker.identity().encode(), PRIVATE)])
        os.environ["D4M_SOURCE"] = "volume"
        os.environ |= {f"D4M_{name.upper()}_SOURCE": name for name in self._folders()}
        return True

    @explained()
    def deliver(self) -> None:
        """Copy what the services read to the engine, as it is now. Raises UserError."""
        if self._paths.delivered.read_text() != self._docker.identity():
            raise UserError(
                "Docker's context leads to an engine that is not the server's: choose the context of the server's."
            )
        volumes = self._docker.client.volume
        with locked(self._paths):  # or an older state might replace a newer one
            for name, folder in self._folders().items():
                volume = f"{self._project_name}_{name}"
                if not volumes.exists(volume):
                    serial = server_serial_numbers(self._project)[-1]
                    labels = {PROJECT_LABEL: self._project_name, VOLUME_LABEL: name, DELIVERED_LABEL: serial}
                    volumes.create(volume, labels=labels)
                mount = f"--mount=type=volume,source={volume},target=/delivered"
                received = self._image.run(mount, "receive.sh", "/delivered", given=archive(folder.resolve()))
                if received.returncode != 0:
                    raise UserError(f"the engine did not take {folder}: {most_telling(received.stderr.decode())}.")

    def volume_of_others(self) -> str | None:
        """The name of a volume that is not ours and has the name of one of ours."""
        own = server_serial_numbers(self._project)
        found = self._docker.volumes(*(f"{self._project_name}_{name}" for name in self._folders()))
        return next((name for name, labels in found.items() if labels.get(DELIVERED_LABEL) not in own), None)

    @explained()
    def remove(self) -> None:
        """Remove what was delivered, under whatever project name."""
        own = server_serial_numbers(self._project)
        for volume in self._docker.client.volume.list(filters=[("label", DELIVERED_LABEL)]):
            if (volume.labels or {}).get(DELIVERED_LABEL) in own:
                self._docker.client.volume.remove(volume)

    def forget(self) -> None:
        """Remember that no engine has a copy any more."""
        self._paths.delivered.unlink(missing_ok=True)

    def _folders(self) -> Mapping[str, Path]:
        """What the services read, by the volumes' names in compose.yaml."""
        paths = self._paths
        of_https = {"https": paths.https / layout.PROXY.name} if self._https else {}
        return {"server": paths.server_conf.parent, "configs": paths.configs} | of_https

    def _sees_folder(self) -> bool:
        configs = self._paths.configs
        token = configs / f"{BESIDE}probe"
        token.unlink(missing_ok=True)
        write(token, secrets.token_bytes(16), READABLE)
        try:
            mount = f"--mount=type=bind,source={configs.resolve()},target=/probe,readonly"
            return self._image.run(mount, "cat", f"/probe/{token.name}").stdout == token.read_bytes()
        finally:
            token.unlink()


def archive(folder: Path) -> bytes:
    """A tar archive of a folder's files, with their modes and root as the owner; unfinished files are left out."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as tar:
        for path in sorted(folder.rglob("*")):
            if not path.name.startswith(BESIDE):
                entry = tar.gettarinfo(path, str(path.relative_to(folder)))
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = "root"
                with path.open("rb") if path.is_file() else io.BytesIO() as content:
                    tar.addfile(entry, content)
        tar.addfile(tarfile.TarInfo(LAST))
    return packed.getvalue()
