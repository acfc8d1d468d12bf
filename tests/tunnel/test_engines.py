"""The whole story on the older engines: the commands on the user's computer are of today, the engine is not."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_desktop import Engine, Mac, lab
from tests.docker_desktop.cache import ENGINES, NEWEST
from tests.tunnel.test_end_to_end import rules
from tests.vpn import connected, eventually, fetch, place, script, start_client, up, web

OLDER = [suite for suite in ENGINES if suite != NEWEST]
KINDS: tuple[list[str], ...] = ([], ["--internal"], ["--opt", "com.docker.network.bridge.enable_icc=false"])


@pytest.fixture(scope="module", params=OLDER, ids=ENGINES.get)
def machines(request: pytest.FixtureRequest) -> Iterator[tuple[Mac, Engine]]:
    with lab(suite=request.param) as (mac, engine):
        assert engine.run("docker", "version", "--format", "{{.Server.Version}}").stdout.startswith(
            ENGINES[request.param]
        )
        yield mac, engine


def test_whole_story(machines: tuple[Mac, Engine], pristine: Path) -> None:
    mac, engine = machines
    before = traces(engine)
    project = place(pristine, mac)
    up(mac, project)
    assert script(mac, project, "client", "add", "alice").returncode == 0
    pages = [web(mac, "--name", "web")]
    for number, options in enumerate(KINDS):
        mac.run("docker", "network", "create", *options, f"kind-{number}")
        pages.append(web(mac, "--network", f"kind-{number}"))
    mac.run("docker", "network", "create", "--subnet", "192.168.7.0/24", "elsewhere")
    outside = web(mac, "--network", "elsewhere")

    with connected(mac, project / "local/docker-for-mac.ovpn") as client:
        assert [fetch(mac, page) for page in pages] == ["200"] * len(pages)
        assert fetch(mac, outside, seconds=2) == "timed out"
        assert "WARNING" not in client.said()
        found = mac.run("dig", "+short", "+time=2", "@10.213.94.1", "web.d4m.internal").stdout.strip()
        assert found == pages[0]
        trusting = ["--cacert", f"{project}/local/https/root.crt", "--resolve", f"web.d4m.internal:443:{found}"]
        eventually(
            lambda: "Welcome to nginx" in mac.run("curl", *trusting, "https://web.d4m.internal", check=False).stdout
        )
        status = script(mac, project, "status")
        assert status.returncode == 0, status.stdout
        connections = client.said().count("Initialization Sequence Completed")
        up(mac, project)  # disturbs nobody
        assert client.said().count("Initialization Sequence Completed") == connections
        assert script(mac, project, "doctor", "web").returncode == 0

    profile = Path(shutil.copy(project / "local/clients/alice.ovpn", mac.home))
    with connected(mac, profile) as alice:
        assert script(mac, project, "client", "revoke", "alice").returncode == 0
        alice.wait_for_end()
    with start_client(mac, profile) as refused:
        refused.wait_for("AUTH_FAILED")

    mac.run("sh", "-c", "docker rm --force $(docker ps --quiet --filter ancestor=nginx:debian)")
    mac.run("docker", "network", "rm", "elsewhere", *(f"kind-{number}" for number in range(len(KINDS))))
    assert script(mac, project, "down", "--images").returncode == 0
    assert traces(engine) == before


def traces(engine: Engine) -> dict[str, list[str]]:
    """What an engine's machine has of a devkit."""
    kinds = ("container", "network", "volume", "image")
    return {kind: sorted(engine.run("docker", kind, "ls", "--quiet").stdout.split()) for kind in kinds} | {
        "rules": rules(engine),
        "devices": [line for line in engine.run("ip", "-brief", "link").stdout.splitlines() if "d4m" in line],
    }


def test_engine_is_shown_nothing_but_what_its_images_are_made_of(machines: tuple[Mac, Engine], pristine: Path) -> None:
    mac, _ = machines
    project = place(pristine, mac, "shown")
    dockerfile, context = mac.home / "Dockerfile", mac.home / "context"
    dockerfile.write_text("FROM scratch\nCOPY . /\n")
    mac.run("docker", "build", "--file", dockerfile, "--output", context, project)
    assert {path.name for path in context.iterdir()} == {"gateway", "scripts"}
    shown = {path.relative_to(context).parts[:2] for path in context.rglob("*") if path.is_file()}
    assert ("scripts", "devkit") in shown
    assert ("scripts", "up.py") not in shown
