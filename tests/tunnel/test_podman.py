"""A rootful Podman behind the user's `docker` and Compose: the whole story, and what is different there."""

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_desktop import WEB_IMAGE, Engine, Mac, podman_lab
from tests.tunnel.test_names_end_to_end import ask, soon
from tests.vpn import connected, eventually, fetch, place, script, start_client, up, web

PROFILE = "local/docker-for-mac.ovpn"
SOON = 15  # the firewall looks every five seconds


@pytest.fixture(scope="module")
def machines() -> Iterator[tuple[Mac, Engine]]:
    with podman_lab() as (mac, engine):
        yield mac, engine


def traces(mac: Mac, engine: Engine) -> dict[str, list[str]]:
    """What there is of a devkit, and which devices of the engine's machine forward nothing."""
    kinds = ("container", "network", "volume", "image")
    listed = {kind: sorted(mac.run("docker", kind, "ls", "--quiet").stdout.split()) for kind in kinds}
    rules = engine.run("sh", "-c", "nft list ruleset; iptables-save").stdout
    ours = [line for line in rules.splitlines() if re.search("d4m", line, re.IGNORECASE)]
    forwarding = engine.run("sh", "-c", "grep --with-filename . /proc/sys/net/ipv4/conf/podman*/forwarding").stdout
    return listed | {"rules": ours, "forwarding": forwarding.splitlines()}


def started(mac: Mac) -> dict[str, str]:
    """When each container of the project was started."""
    listed = mac.run("docker", "ps", "--all", "--quiet", "--filter", "name=d4m-devkit").stdout.split()
    return {one["Name"]: one["State"]["StartedAt"] for one in json.loads(mac.run("docker", "inspect", *listed).stdout)}


def test_whole_story(machines: tuple[Mac, Engine], pristine: Path) -> None:
    mac, engine = machines
    for options in (["user-defined"], ["--internal", "internal"]):
        mac.run("docker", "network", "create", *options)
    pages = {name: web(mac, "--name", name, "--network", network) for name, network in
             (("web", "podman"), ("other", "user-defined"), ("inner", "internal"))}  # fmt: skip
    web(mac, "--name", "on-host", "--network", "host")
    before = traces(mac, engine)

    # Its networks are not where Docker has them: the report has the command that adds them.
    project = place(pristine, mac)
    first = script(mac, project, "up")
    assert "0 of 4 containers reached" in first.stdout, first.stderr
    assert re.search(r"^Engine +Podman 5\.", first.stdout, re.MULTILINE)
    (advice,) = re.findall(r"^  \./(scripts/routes\.py add 10\.88\.0\.0/15)$", first.stdout, re.MULTILINE)
    mac.run(sys.executable, *advice.split(), cwd=project)
    facts = up(mac, project)
    answered = {one["name"]: [place["answered"] for place in one["addresses"]] for one in facts["containers"]}
    assert answered == {"web": [True], "other": [True], "inner": [True], "on-host": [False]}
    assert facts["missed"] == []

    with connected(mac, project / PROFILE) as client:
        assert {name: fetch(mac, page) for name, page in pages.items()} == dict.fromkeys(pages, "200")
        assert {name: ask(mac, f"{name}.d4m.internal") for name in pages} == {name: [pages[name]] for name in pages}
        for name, page in pages.items():
            trusting = ["--cacert", f"{project}/local/https/root.crt", "--resolve", f"{name}.d4m.internal:443:{page}"]
            assert "Welcome to nginx" in mac.run("curl", "--silent", *trusting, f"https://{name}.d4m.internal").stdout
        status = script(mac, project, "status")
        assert status.returncode == 0, status.stdout
        doctor = script(mac, project, "doctor", "http://inner")
        assert doctor.returncode == 0, doctor.stdout
        assert "Podman's packet filter lets the server through" in doctor.stdout

        # What comes later is reached without reconnecting; up.py disturbs nobody.
        late = web(mac, "--name", "late")
        soon(mac, "late.d4m.internal", [late])
        assert fetch(mac, late) == "200"
        mac.run("docker", "rm", "--force", "late")
        soon(mac, "late.d4m.internal", ["NXDOMAIN"])
        as_before = started(mac)
        assert up(mac, project)["containers"] == facts["containers"]
        assert started(mac) == as_before
        assert client.said().count("Initialization Sequence Completed") == 1

        # A server that is started anew leaves the others in a network that is gone: they follow.
        mac.run("docker", "restart", "d4m-devkit-vpn-1")
        client.wait_for("Initialization Sequence Completed", times=2)
        soon(mac, "web.d4m.internal", [pages["web"]], seconds=SOON)
        assert fetch(mac, pages["inner"]) == "200"

        # Nothing leaves the internal network but replies to the server, whatever routes its containers have.
        route = f"ip route add default via {pages['inner'].rpartition('.')[0]}.1"
        leave = f"{route} && exec 3<>/dev/tcp/{pages['web']}/80 && echo out"
        inside = ["docker", "run", "--rm", "--privileged", "--network=internal", WEB_IMAGE, "timeout", "3", "bash"]
        assert mac.run(*inside, "-c", leave, check=False).stdout == ""
        engine.run("nft", "delete", "table", "ip", "d4m")
        eventually(lambda: "jump internal" in engine.run("nft", "list", "ruleset").stdout, SOON)
        assert fetch(mac, pages["inner"]) == "200"
        assert mac.run(*inside, "-c", leave, check=False).stdout == ""

        profile = shutil.copy(project / PROFILE, mac.home / "revoked.ovpn")
        assert script(mac, project, "client", "revoke", "docker-for-mac").returncode == 0
        client.wait_for_end()
    with start_client(mac, Path(profile)) as refused:
        refused.wait_for("AUTH_FAILED")

    down = script(mac, project, "down", "--images")
    assert down.returncode == 0, down.stderr
    assert traces(mac, engine) == before
