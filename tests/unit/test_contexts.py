"""Where Docker's context leads, and what kind of engine is there."""

import json
from pathlib import Path

import pytest
from devkit.sites import docker
from devkit.sites.docker import Docker, host_of_context

ENDPOINTS = {
    "unix:///var/run/docker.sock": None,
    "unix:///Users/u/.docker/run/docker.sock": None,  # Docker Desktop's desktop-linux
    "unix:///Users/u/.colima/default/docker.sock": None,
    "unix:///Users/u/.rd/docker.sock": None,  # Rancher Desktop
    "unix:///run/podman/podman.sock": None,
    "npipe:////./pipe/docker_engine": None,
    "npipe:////./pipe/podman-machine-default": None,
    # A virtual machine of this computer's.
    "ssh://core@127.0.0.1:53685/run/podman/podman.sock": None,
    "ssh://root@localhost:53685": None,
    "tcp://127.0.0.1:2375": None,
    "tcp://[::1]:2375": None,
    "ssh://root@engine.example.org": "engine.example.org",
    "ssh://root@engine.example.org:2222/run/podman/podman.sock": "engine.example.org",
    "tcp://192.0.2.7:2376": "192.0.2.7",
    "tcp://localhost.example.org:2376": "localhost.example.org",
}
DOCKER = """#!/bin/sh
here=$(dirname "$0")
case "$1" in
context) cat "$here/context" ;;
info) cat "$here/info" ;;
version) echo "version" >> "$here/asked"; cat "$here/version" ;;
esac
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stand-in for Docker's command line, which prints what is in the files beside it."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    leads_to(tmp_path, "unix:///s")
    docker.endpoint.cache_clear()
    return tmp_path


def leads_to(engine: Path, endpoint: str) -> None:
    """Have Docker's context lead there."""
    (engine / "context").write_text(json.dumps([{"Endpoints": {"docker": {"Host": endpoint}}}]))


def is_(engine: Path, components: str, **info: object) -> None:
    """Have the engine say this of itself."""
    (engine / "info").write_text(json.dumps({"ServerVersion": "5.8.6", "Name": "vm", **info}))
    (engine / "version").write_text(components)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_endpoint_names_another_machine_or_this_computer(engine: Path, endpoint: str) -> None:
    leads_to(engine, endpoint)
    assert host_of_context() == (ENDPOINTS[endpoint] or "127.0.0.1")
    (engine / "info").write_text(
        json.dumps({"ServerVersion": "29.0.0", "IndexServerAddress": "https://index.example.org"})
    )
    assert Docker(engine).engine().host == ENDPOINTS[endpoint]


def test_podman_is_known_by_what_it_consists_of(engine: Path, tmp_path: Path) -> None:
    is_(engine, "Podman Engine,Conmon,OCI Runtime (crun),Engine,", ID="1", IndexServerAddress="")
    docker = Docker(tmp_path)
    assert docker.engine().is_podman
    assert not docker.engine().is_rootless
    assert docker.identity() == "vm"  # its ID is another each time
    is_(engine, "Engine,containerd,runc,docker-init,", ID="1")
    docker = Docker(tmp_path)
    assert not docker.engine().is_podman
    assert docker.identity() == "1"


def test_docker_need_not_be_asked_whether_it_is_podman(engine: Path, tmp_path: Path) -> None:
    is_(engine, "", IndexServerAddress="https://index.example.org/")
    assert not Docker(tmp_path).engine().is_podman
    assert not (engine / "asked").exists()


@pytest.mark.parametrize("options", [["name=seccomp,profile=builtin", "name=rootless"], ["name=rootless"]])
def test_rootless_engine_says_so(engine: Path, tmp_path: Path, options: list[str]) -> None:
    is_(engine, "Podman Engine,", SecurityOptions=options)
    assert Docker(tmp_path).engine().is_rootless
