"""Where Docker's context leads."""

import json
from pathlib import Path

import pytest
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
esac
"""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stand-in for Docker's command line, which prints what is in the files beside it."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    leads_to(tmp_path, "unix:///s")
    return tmp_path


def leads_to(engine: Path, endpoint: str) -> None:
    """Have Docker's context lead there."""
    (engine / "context").write_text(json.dumps([{"Endpoints": {"docker": {"Host": endpoint}}}]))


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_endpoint_names_another_machine_or_this_computer(engine: Path, endpoint: str) -> None:
    leads_to(engine, endpoint)
    assert host_of_context() == (ENDPOINTS[endpoint] or "127.0.0.1")
    (engine / "info").write_text(
        json.dumps({"ServerVersion": "29.0.0", "IndexServerAddress": "https://index.example.org"})
    )
    assert Docker(engine).engine().host == ENDPOINTS[endpoint]
