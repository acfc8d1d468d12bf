"""What a project's secrets are, and what of them is not as it should be."""

import hashlib
import shutil
from pathlib import Path

import pytest
import yaml
from devkit.errors import UserError
from devkit.material import state
from devkit.material.changes import add_clients, ensure_material, rotate

from tests.unit.made import DOCUMENT, NOW, answers


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in its first generation."""
    project = tmp_path_factory.mktemp("made") / "devkit"
    for name in ("client/client.conf", "server/server.conf", "compose.yaml"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(f"# {name}\n")
    (project / ".copier-answers.yml").write_text(yaml.safe_dump(DOCUMENT))
    ensure_material(project, answers(), NOW)
    return project


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "devkit", symlinks=True)


def problems(project: Path) -> list[str]:
    return [problem.removeprefix(f"{project}/local/") for problem in state.problems(project, answers())]


def test_project_has_a_generation_even_if_it_is_lost(project: Path, tmp_path: Path) -> None:
    assert state.has_generation(project)
    shutil.rmtree(project / "local/pki/archive")
    assert state.has_generation(project)
    assert not state.has_generation(tmp_path / "other")


def test_client_is_found_or_it_is_said_where_all_are(project: Path) -> None:
    generation = state.read_generation(project)
    assert state.find_client(generation, "laptop").name == "laptop"
    with pytest.raises(UserError, match=r"there is no client 'bob': `./scripts/client.py list` shows all"):
        state.find_client(generation, "bob")


def test_profiles_are_where_users_import_them_from(project: Path) -> None:
    assert state.profiles(project, "bob") == (project / "local/clients/bob.ovpn",)
    assert state.first_profiles(project, answers()) == (project / "local/laptop.ovpn",)


def test_profile_is_read_as_it_is_on_disk_unless_it_is_not_what_it_should_be(project: Path) -> None:
    add_clients(project, answers(), ["bob"], NOW)
    path = project / "local/clients/bob.ovpn"
    assert state.read_profile(project, answers(), "bob") == path.read_text()
    (project / "local/clients/laptop.ovpn").write_text("another's")
    assert state.read_profile(project, answers(), "bob") == path.read_text()
    path.write_text("remote somewhere.else\n")
    with pytest.raises(
        UserError, match=r"profiles/bob.ovpn is not what it should be: `./scripts/generate.py` writes it"
    ):
        state.read_profile(project, answers(), "bob")


def test_whole_project_has_no_problem(project: Path) -> None:
    assert problems(project) == []


CURRENT = "pki/archive/0001"
ANEW = "`./scripts/generate.py` writes it anew."


def test_each_file_that_follows_from_others_and_is_not_what_it_should_be_is_named(project: Path) -> None:
    folder = project / "local" / CURRENT
    (folder / "configs/ccd/laptop").unlink()
    (folder / "values.yaml").write_text("x")
    (folder / "profiles/laptop.ovpn").chmod(0o644)
    (project / "local/configs").unlink()
    assert problems(project) == [
        f"{CURRENT}/profiles/laptop.ovpn should have the mode 0600: `./scripts/generate.py` sets it.",
        f"{CURRENT}/values.yaml is not what it should be: {ANEW}",
        f"{CURRENT}/configs/ccd/laptop is not what it should be: {ANEW}",
        "configs is no longer the link that it was: `./scripts/generate.py` makes it anew.",
    ]


def test_modes_are_no_problem_where_the_disk_has_none(project: Path) -> None:
    (project / "local").chmod(0o777)
    (project / "local" / CURRENT / "profiles/laptop.ovpn").chmod(0o777)
    assert problems(project) == []


@pytest.mark.parametrize("text", [None, "x"])
def test_servers_list_comes_first_since_the_others_follow_from_it(project: Path, text: str | None) -> None:
    path = project / "local" / CURRENT / "configs/crl.pem"
    path.unlink()
    if text:
        path.write_text(text)
    assert problems(project) == [f"{CURRENT}/configs/crl.pem is missing or damaged: {ANEW}"]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("compose.yaml", "git"), ("server/server.conf", "git"), ("local/configs/ca.crt", "your backup"),
        ("local/configs/server.crt", "your backup"), ("local/configs/server.key", "your backup"),
        ("local/configs/tls-crypt-v2.key", "your backup"),
    ],
)  # fmt: skip
def test_services_start_anew_when_what_they_read_has_changed(project: Path, name: str, source: str) -> None:
    before = state.fingerprint(project)
    assert len(before) == 16
    assert before == state.fingerprint(project)
    (project / name).write_text("changed")
    assert state.fingerprint(project) != before
    (project / name).unlink()
    with pytest.raises(UserError, match=f"{Path(name).name} is missing: restore it from {source}"):
        state.fingerprint(project)


def test_services_of_existing_projects_are_not_restarted_by_an_update(project: Path) -> None:
    names = ("compose.yaml", "server/server.conf", "local/configs/ca.crt", "local/configs/server.crt",
             "local/configs/server.key", "local/configs/tls-crypt-v2.key")  # fmt: skip
    digests = b"".join(hashlib.sha256((project / name).read_bytes()).digest() for name in names)
    assert state.fingerprint(project) == hashlib.sha256(digests).hexdigest()[:16]


def test_admitting_a_client_restarts_nothing(project: Path) -> None:
    before = state.fingerprint(project)
    add_clients(project, answers(), ["bob"], NOW)
    assert state.fingerprint(project) == before


def test_charts_values_follow_from_the_files_now(project: Path) -> None:
    assert state.chart_values(project, answers()) == (project / "local/values.yaml").read_bytes()
    (project / "server/server.conf").write_text("# another\n")
    assert yaml.safe_load(state.chart_values(project, answers()))["serverConf"] == "# another\n"


def test_all_certificates_that_the_server_has_had_are_its_own(project: Path) -> None:
    serials = [f"{state.read_generation(project).server.serial_number:x}"]
    for _ in range(2):
        rotate(project, answers(), "leaf", False, NOW)
        serials.append(f"{state.read_generation(project).server.serial_number:x}")
    assert state.server_serial_numbers(project) == [*serials, serials[-1]]
    (project / "local/pki/archive/0001/configs/server.crt").write_text("x")
    shutil.rmtree(project / "local/pki/archive/0002")
    assert state.server_serial_numbers(project) == [serials[-1], serials[-1]]
