"""The project's own images: built, pushed, run for one command, removed."""

import hashlib
import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from devkit.errors import UserError, most_telling
from devkit.inventory import UNSAID
from devkit.layout import Layout
from devkit.sites.docker import Docker, explained

SOURCES_LABEL = "d4m-devkit.sources"  # in compose.yaml
MOST_SECONDS = 300
ENDING_SECONDS = 20  # how long the containers of a deleted pod may still use its image
RUN_OPTIONS = (
    "--rm",
    "--interactive",
    "--pull=never",
    "--log-driver=none",
    "--user=root",
    "--cap-drop=ALL",
    "--read-only",
)


class Image:
    """The image of `gateway/`, under its name and all its tags. Everything raises UserError."""

    def __init__(self, docker: Docker, name: str, project: Path) -> None:
        self.name = name
        self._docker = docker
        self._project = project

    @explained()
    def tag_by_content(self) -> str:
        """Give it a tag of its own, so that no node mistakes an older image for it; return the tag.

        The tag comes from the layers, which the build's cache keeps, not from the image's ID, which may hold the time.
        """
        image = self._docker.client.image.inspect(self.name)
        tag = hashlib.sha256(repr(image.root_fs.layers).encode()).hexdigest()[:12]
        self._docker.client.image.tag(image, f"{self.name}:{tag}")
        return tag

    def push(self, platforms: Sequence[str]) -> Iterator[str]:
        """Build it for these platforms (linux/arm64), push it, and give what the build prints."""
        stream = self._docker.client.buildx.build(
            self._project,
            file=Layout(self._project).dockerfile,
            target="gateway",
            tags=self.name,
            platforms=list(platforms),
            push=True,
            stream_logs=True,
        )
        with explained():
            yield from (line.strip() for line in cast("Iterator[str]", stream) if line.strip())

    def pushed_digest(self) -> str:
        """The digest of what the registry has under its name: sha256 and 64 hexadecimal digits."""
        inspect = [*self._docker.command, "buildx", "imagetools", "inspect", self.name]
        answer = subprocess.run(inspect, capture_output=True, text=True, check=False)
        found = re.search(r"^Digest: +(sha256:[0-9a-f]{64})$", answer.stdout, re.MULTILINE)
        if not found:
            raise UserError(f"the registry does not show {self.name}: {most_telling(answer.stderr)}.")
        return found[1]

    def run(self, option: str, *command: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
        """Run a command in it, as root without capabilities, so with root's own files only; nothing is logged."""
        network = [] if option.startswith("--network") else ["--network=none"]
        words = [*self._docker.command, "run", *RUN_OPTIONS, *network, option, self.name, *command]
        return subprocess.run(words, input=given, capture_output=True, check=False)

    @contextmanager
    def running(self, *command: str) -> Iterator[str]:
        """Have a container run it on the engine's default network, and give its name; it is removed at the end."""
        name = f"d4m-devkit-example-{secrets.token_hex(4)}"  # others may look at the same engine
        options = ("--detach", "--rm", "--pull=never", "--cap-drop=ALL", "--read-only", f"--name={name}")
        limited = ("timeout", str(MOST_SECONDS), *command)  # it ends also where nobody removes it
        run = subprocess.run(
            [*self._docker.command, "run", *options, self.name, *limited], capture_output=True, text=True, check=False
        )
        if run.returncode != 0:
            raise UserError(f"Docker refused: {most_telling(run.stderr)}")
        try:
            yield name
        finally:
            subprocess.run([*self._docker.command, "rm", "--force", name], capture_output=True, check=False)

    @explained()
    def exists(self) -> bool:
        """Whether the engine has it."""
        return self._docker.client.image.exists(self.name)

    @explained()
    def remove(self) -> None:
        """Remove it from the engine, under all its tags."""
        for image in self._docker.client.image.list(self.name):
            for name in image.repo_tags or []:
                if UNSAID.sub("", name).startswith(f"{self.name}:"):  # the user may have given it other names
                    self._remove(name)

    def _remove(self, name: str) -> None:
        deadline = time.monotonic() + ENDING_SECONDS
        while True:
            try:
                with explained():
                    self._docker.client.image.remove(name)
                break
            except UserError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)


def are_built(docker: Docker, project: Path, images: Iterable[Image]) -> bool:
    """Whether the engine has these images, from what is in the project's folder now."""
    label = f'{{{{index .Config.Labels "{SOURCES_LABEL}"}}}}'
    words = [*docker.command, "image", "inspect", "--format", label, *(image.name for image in images)]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    return run.returncode == 0 and {*run.stdout.split()} == {_digest_of_sources(project)}


def build(docker: Docker, project: Path, services: Iterable[str], anew: bool) -> Iterator[str]:
    """Build the images of these services, and give what the build prints line by line.

    With `anew` they are built from nothing, with the packages of today.
    """
    # An attestation holds the time, so each build would give another image, which would replace the services and drop
    # every session.
    os.environ |= {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1", "D4M_SOURCES": _digest_of_sources(project)}
    if docker.engine().is_podman:  # it builds by itself, and knows nothing of Docker's builder
        os.environ["DOCKER_BUILDKIT"] = "0"
    yield from docker.compose("build", "--progress=plain", *(["--no-cache"] if anew else []), *services)


def _digest_of_sources(project: Path) -> str:
    """A digest of all that the engine is shown to build from."""
    paths = Layout(project)
    patterns = [line[1:] for line in paths.dockerignore.read_text().splitlines() if line.startswith("!")]
    files = sorted({path for pattern in patterns for path in project.glob(pattern)})
    content = [(str(path.relative_to(project)), path.read_bytes()) for path in (paths.dockerfile, *files)]
    return hashlib.sha256(repr(content).encode()).hexdigest()
