"""`routes.py`: the routes are changed wherever they are named, or nothing is."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from devkit.answers import read_answers
from devkit.layout import Layout
from devkit.material.changes import revoke_client
from devkit.tracked import with_lines

from tests.conftest import RunHere, copy_project, snapshot

ADDED = "192.168.7.0/24"
LINE = "route 192.168.7.0 255.255.255.0\n"


def routes(project: Path) -> list[str]:
    return [str(route) for route in read_answers(project).routes]


def profile(project: Path) -> str:
    return (project / "local/docker-for-mac.ovpn").read_text()


def test_added_route_is_reached_until_it_is_removed(project: Path, run_here: RunHere) -> None:
    before = snapshot(project)
    added = run_here(project, "routes", "add", ADDED)
    assert added.returncode == 0
    assert added.stderr == (
        f"The routes are 172.16.0.0/12, {ADDED} now: run `./scripts/up.py`, then import the profiles again.\n"
    )
    assert run_here(project, "routes", "list").stdout == f"172.16.0.0/12\n{ADDED}\n"
    assert routes(project) == ["172.16.0.0/12", ADDED]
    assert LINE in profile(project)
    services = yaml.safe_load((project / "compose.yaml").read_text())["services"]
    assert {service["environment"]["ROUTES"] for service in services.values()} == {f"172.16.0.0/12 {ADDED}"}
    values = yaml.safe_load((project / "local/values.yaml").read_text())
    assert values["vpn"]["routes"] == ["172.16.0.0/12", ADDED]
    removed = run_here(project, "routes", "remove", ADDED)
    assert removed.returncode == 0
    assert "The routes are 172.16.0.0/12 now: run `./scripts/up.py`" in removed.stderr
    after = snapshot(project)
    assert {name: after[name] for name in before} == before


def test_what_is_there_is_added_no_second_time(project: Path, run_here: RunHere) -> None:
    assert run_here(project, "routes", "add", ADDED, ADDED).returncode == 0
    before = snapshot(project)
    again = run_here(project, "routes", "add", "172.16.0.0/12", ADDED)
    assert again.returncode == 0
    assert again.stderr == f"The routes are 172.16.0.0/12, {ADDED} already: nothing has changed.\n"
    assert snapshot(project) == before
    assert profile(project).count(LINE) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "10.96.0.1/12"], "'10.96.0.1/12' has host bits set: the network is 10.96.0.0/12"),
        (["add", ADDED, "300.1.1.1/24"], "'300.1.1.1/24' is not an IPv4 network"),
        (["add", "fd00::/8"], "'fd00::/8' is not an IPv4 network"),
        (["add", "10.213.0.0/16"], "'10.213.0.0/16' overlaps the VPN's own subnet 10.213.94.0/24"),
        (["add", "127.0.0.0/8"], "'127.0.0.0/8' contains the VPN's own endpoint 127.0.0.1"),
        (["add", "0.0.0.0/0"], "'0.0.0.0/0' would send all traffic through the VPN"),
        (["remove", ADDED], f"'{ADDED}' is not among the routes: `./scripts/routes.py list` shows them."),
        (["remove", "172.16.0.0/12", ADDED], f"'{ADDED}' is not among the routes"),
        (["remove", "172.16.0.0/12"], "no route would be left: add another with `./scripts/routes.py add NETWORK`"),
    ],
)
def test_refused_change_changes_nothing(project: Path, run_here: RunHere, arguments: list[str], said: str) -> None:
    run_here(project, "status")  # makes the lock, if anything does
    before = snapshot(project)
    refusal = run_here(project, "routes", *arguments)
    assert refusal.returncode == 1
    assert refusal.stderr.startswith("error: ")
    assert said in refusal.stderr
    assert len(refusal.stderr.splitlines()) == 1
    assert snapshot(project) == before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("client/client.conf", "route 172.16.0.0 255.240.0.0\n", "route 172.16.0.0 255.255.0.0\n"),
        ("compose.yaml", "ROUTES: 172.16.0.0/12", "ROUTES: 172.17.0.0/16"),
    ],
)
def test_routes_that_the_user_wrote_otherwise_are_left_to_a_merge(
    project: Path, run_here: RunHere, name: str, old: str, new: str
) -> None:
    text = (project / name).read_text()
    assert old in text
    (project / name).write_text(text.replace(old, new))
    before = snapshot(project)
    refusal = run_here(project, "routes", "add", ADDED)
    assert refusal.returncode == 1
    assert f"{name} does not name the routes line by line as .copier-answers.yml has them" in refusal.stderr
    assert f"--data rotate=none --data 'routes=[172.16.0.0/12, {ADDED}]'`" in refusal.stderr
    assert snapshot(project) == before


def test_lines_and_line_ends_of_the_users_own_stay(project: Path, run_here: RunHere) -> None:
    names = ("client/client.conf", "compose.yaml", ".copier-answers.yml")
    for name in names:
        ours = (project / name).read_bytes().replace(b"\n", b"\r\n") + b"# ours\r\n"
        (project / name).write_bytes(ours)
    before = snapshot(project)
    assert run_here(project, "routes", "add", ADDED).returncode == 0
    changed = (project / "client/client.conf").read_bytes()
    assert changed.replace(LINE.encode().replace(b"\n", b"\r\n"), b"") == before["client/client.conf"][1]
    assert run_here(project, "routes", "remove", ADDED).returncode == 0
    after = snapshot(project)
    assert {name: after[name] for name in names} == {name: before[name] for name in names}


def test_file_that_the_user_removed_stays_away(project: Path, run_here: RunHere) -> None:
    (project / "compose.yaml").unlink()  # who has a cluster alone
    assert run_here(project, "routes", "add", ADDED).returncode == 0
    assert not (project / "compose.yaml").exists()
    assert LINE in profile(project)


def test_command_that_is_next_goes_to_the_cluster_and_names_profiles_only_if_there_are_any(
    tmp_path: Path, run_here: RunHere
) -> None:
    project = copy_project(tmp_path / "devkit", kubernetes="k3s")
    revoke_client(project, read_answers(project), "docker-for-mac", datetime.now(UTC))
    said = run_here(project, "routes", "add", ADDED).stderr
    assert said.endswith(" now: run `./scripts/up.py --kubernetes`.\n")


def test_project_without_certificates_is_left_alone(project: Path, run_here: RunHere) -> None:
    shutil.rmtree(project / "local")
    before = snapshot(project)
    refusal = run_here(project, "routes", "add", ADDED)
    assert refusal.returncode == 1
    assert "has no certificates, as after" in refusal.stderr
    assert snapshot(project) == before


def test_damaged_certificates_stop_the_change_before_anything_is_written(project: Path, run_here: RunHere) -> None:
    (Layout(project).configs / "server.crt").write_text("damaged")
    before = snapshot(project)
    assert run_here(project, "routes", "add", ADDED).returncode == 1
    assert snapshot(project) == before


def test_lines_that_stand_twice_are_not_guessed_at() -> None:
    with pytest.raises(ValueError, match="not there once"):
        with_lines(b"a\nb\na\n", ["a"], ["c"])
    assert with_lines(b"x\na\nb\ny", ["a", "b"], ["c"]) == b"x\nc\ny"


def test_client_conf_that_is_missing_stops_the_change_before_anything_is_written(
    project: Path, run_here: RunHere
) -> None:
    (project / "client/client.conf").unlink()
    before = snapshot(project)
    refusal = run_here(project, "routes", "add", "192.168.7.0/24")
    assert refusal.returncode == 1
    assert "client/client.conf" in refusal.stderr
    assert snapshot(project) == before
