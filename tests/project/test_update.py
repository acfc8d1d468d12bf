"""A real `copier update` of a git-tracked project: rotation, template upgrades, and what must survive them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from devkit.answers import read_answers
from devkit.material.state import read_generation

from tests.conftest import REPOSITORY, snapshot
from tests.whole import BLOCK, assert_whole

COPIER = [sys.executable, "-m", "copier"]

# An answer to every question that is stored, none of them its default; most are asked only after a yes.
OTHER_ANSWERS: dict[str, Any] = {
    "project_name": "shop",
    "client_name": "alice",
    "vpn_host": "192.0.2.7",
    "kubernetes": "k3s",
    "vpn_listen": "192.0.2.8",
    "vpn_port": 30095,
    "vpn_protocol": "udp",
    "vpn_subnet": "10.213.95.0/24",
    "routes": ["192.168.7.0/24", "10.42.0.0/16"],
    "dns_domain": "shop.test",
    "service_type": "NodePort",
    "image_registry": "registry.example.org/team",
    "ingress": "traefik",
    "gateway_api": True,
    "key_type": "ed25519",
    "certificate_days": 90,
    "authority_days": 2000,
}


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "gitconfig").write_text("[user]\nname = Test\nemail = test@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("COPIER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COPIER_SETTINGS_PATH", str(tmp_path / "settings.yml"))


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=os.environ)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed


def git(folder: Path, *command: str) -> str:
    return run(folder, "git", *command).stdout


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--allow-empty", "--message", message)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A clone of this template with a first version."""
    git(tmp_path, "clone", "--quiet", str(REPOSITORY), str(tmp_path / "template"))
    git(tmp_path / "template", "tag", "v1.0.0")
    return tmp_path / "template"


def scaffold(template: Path, project: Path) -> Path:
    """Make a project from the newest version and track it with git."""
    run(template.parent, *COPIER, "copy", "--trust", "--defaults", "--quiet", str(template), str(project))
    git(project, "init", "--quiet")
    commit(project, "devkit")
    return project


def update(project: Path, *options: str) -> str:
    """Update and return what was said; the project must be clean before."""
    return run(project, *COPIER, "update", "--trust", "--defaults", "--quiet", *options).stderr


def archived(project: Path) -> list[str]:
    return sorted(path.name for path in (project / "local/pki/archive").iterdir())


def test_update_takes_the_upgrade_and_rotates_once(template: Path, tmp_path: Path) -> None:
    project = scaffold(template, tmp_path / "devkit")
    readme = template / "template/README.md.jinja"
    readme.write_text(readme.read_text() + "\nA new paragraph.\n")
    commit(template, "Add a paragraph")
    git(template, "tag", "v1.1.0")
    old, files = read_generation(project), snapshot(project / "local/pki/archive/0001")
    said = update(project)
    new = read_generation(project)
    assert archived(project) == ["0001", "0002"]
    assert snapshot(project / "local/pki/archive/0001") == files
    assert new.ca.credential.certificate == old.ca.credential.certificate
    assert not {leaf.serial_number for leaf in new.leaves} & {leaf.serial_number for leaf in old.leaves}
    assert "A new paragraph." in (project / "README.md").read_text()
    assert {line[3:] for line in git(project, "status", "--porcelain").splitlines()} == {
        ".copier-answers.yml", "README.md",
    }  # fmt: skip
    assert_whole(project)
    for old_leaf, new_leaf in zip(old.leaves, new.leaves, strict=True):
        assert f"{old_leaf.serial_number:x}"[-12:] in said
        assert f"{new_leaf.serial_number:x}"[-12:] in said
        assert f"{new_leaf.expiry:%Y-%m-%d}" in said
    assert f"Old profiles work until the next rotation, and no longer than {old.server.expiry:%Y-%m-%d}." in said
    assert "local/docker-for-mac.ovpn" in said
    assert "./scripts/up.py" in said


@pytest.mark.parametrize(
    ("kubernetes", "loads"), [("none", "./scripts/up.py "), ("k3s", "./scripts/up.py --kubernetes ")]
)
def test_update_says_what_it_does_and_what_is_next(template: Path, tmp_path: Path, kubernetes: str, loads: str) -> None:
    project = tmp_path / "devkit"
    copy = [*COPIER, "copy", "--trust", "--defaults", f"--data=kubernetes={kubernetes}"]
    made = run(tmp_path, *copy, str(template), str(project)).stderr
    assert loads.rstrip() in made.splitlines()[-2]
    git(project, "init", "--quiet")
    commit(project, "devkit")
    said = run(project, *COPIER, "update", "--trust", "--defaults", "--vcs-ref=:current:").stderr
    before, after = said.split("Old serial")
    assert "and renews the certificates, unless you gave" in before
    assert "git diff" in after
    assert re.search(rf"^ +{re.escape(loads)} +# loads it", after, re.MULTILINE)


def test_update_to_the_current_version_rotates_and_leaves_git_clean(template: Path, tmp_path: Path) -> None:
    project = scaffold(template, tmp_path / "devkit")
    tracked = {name: entry for name, entry in snapshot(project).items() if not name.startswith(("local", ".git/"))}
    update(project, "--vcs-ref=:current:")
    assert archived(project) == ["0001", "0002"]
    assert git(project, "status", "--porcelain") == ""
    after = {name: entry for name, entry in snapshot(project).items() if not name.startswith(("local", ".git/"))}
    assert after == tracked
    assert_whole(project)


@pytest.mark.parametrize(
    ("options", "generations", "authorities", "words"),
    [
        (["--data=rotate=none"], 1, 1, "The certificates are there"),
        pytest.param(["--data=rotate=all"], 2, 2, "Old profiles know only the old CA", marks=pytest.mark.further),
        pytest.param(["--data=revoke=now"], 2, 1, "Old profiles are refused", marks=pytest.mark.further),
        (["--data=rotate=all", "--data=revoke=now"], 2, 1, "Old profiles are refused"),
    ],
)
def test_rotation_is_chosen_for_one_update_and_not_remembered(
    template: Path, tmp_path: Path, options: list[str], generations: int, authorities: int, words: str
) -> None:
    project = scaffold(template, tmp_path / "devkit")
    said = update(project, "--vcs-ref=:current:", *options)
    assert words in said
    assert len(archived(project)) == generations
    assert len(read_generation(project).cas) == authorities
    assert git(project, "status", "--porcelain") == ""
    update(project, "--vcs-ref=:current:")
    assert len(archived(project)) == generations + 1
    assert len(read_generation(project).cas) == 1


def test_new_project_name_leaves_old_and_new_profiles_working(template: Path, tmp_path: Path) -> None:
    project = scaffold(template, tmp_path / "devkit")
    update(project, "--vcs-ref=:current:", "--data=project_name=another")
    assert "another" in (project / "compose.yaml").read_text()
    for generation in ("0001", "0002"):
        profile = (project / f"local/pki/archive/{generation}/profiles/docker-for-mac.ovpn").read_text()
        assert profile.count("verify-x509-name server.d4m-devkit name\n") == profile.count("verify-x509-name") == 1
    assert read_generation(project).server_name == "server.d4m-devkit"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data=rotate=sideways"], "sideways"),
        (["--data=rotate=none", "--data=revoke=now"], '"now" needs rotate=leaf or rotate=all'),
        (["--data=rotate=none", "--data=revoke=now", "--data=routes=[10.9.0.0/16]"], "needs rotate=leaf or rotate=all"),
    ],
)
def test_rotation_that_there_is_not_is_refused_before_anything_is_written(
    template: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    project = scaffold(template, tmp_path / "devkit")
    before = snapshot(project)
    command = [*COPIER, "update", "--trust", "--defaults", "--quiet", *options]
    refusal = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert refusal.returncode != 0
    assert words in refusal.stderr.splitlines()[-1]
    after = snapshot(project)
    assert {name: after[name] for name in after if not name.startswith(".git/")} == {
        name: before[name] for name in before if not name.startswith(".git/")
    }


def test_port_is_published_where_a_new_host_is(template: Path, tmp_path: Path) -> None:
    project = scaffold(template, tmp_path / "devkit")

    def answer(*data: str) -> str:
        update(project, "--vcs-ref=:current:", "--data=rotate=none", *(f"--data={each}" for each in data))
        commit(project, "Other answers")
        return str(read_answers(project).vpn_listen)

    for data, listen in [
        (["vpn_host=192.0.2.7"], "192.0.2.7"),
        (["vpn_host=vpn.example.org"], "0.0.0.0"),
        (["vpn_host="], "127.0.0.1"),
        (["vpn_listen=192.0.2.8"], "192.0.2.8"),
        (["vpn_host=192.0.2.7"], "192.0.2.8"),  # one's own answer stays
    ]:
        assert answer(*data) == listen
        published = "${D4M_LISTEN:-127.0.0.1}" if data == ["vpn_host="] else listen
        assert f'ports: ["{published}:1194:1194/tcp"]' in (project / "compose.yaml").read_text()


def stored(project: Path) -> dict[str, Any]:
    """The answers that are in their file."""
    document: dict[str, Any] = yaml.safe_load((project / ".copier-answers.yml").read_text())
    return {name: value for name, value in document.items() if not name.startswith("_")}


def as_data(answers: dict[str, Any]) -> list[str]:
    return [
        f"--data={name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in answers.items()
    ]


def test_every_answer_that_was_given_survives_every_update(template: Path, tmp_path: Path) -> None:
    project = tmp_path / "devkit"
    run(tmp_path, *COPIER, "copy", "--trust", "--defaults", *as_data(OTHER_ANSWERS), str(template), str(project))
    git(project, "init", "--quiet")
    assert stored(project) == OTHER_ANSWERS
    questions = yaml.safe_load((REPOSITORY / "copier.yml").read_text())
    not_stored = {"more_questions", "rotate", "revoke"}
    assert {name for name in questions if not name.startswith("_")} == OTHER_ANSWERS.keys() | not_stored
    for data in ([], ["--data=more_questions=yes"], ["--data=vpn_port=30096"], ["--data=ingress=none"], []):
        commit(project, "Before an update")
        update(project, "--vcs-ref=:current:", "--data=rotate=none", *data)
    assert stored(project) == {
        **{name: value for name, value in OTHER_ANSWERS.items() if name != "gateway_api"},  # which is Traefik's
        "vpn_port": 30096,
        "ingress": "none",
    }


def test_every_answer_that_an_update_is_given_is_stored(template: Path, tmp_path: Path) -> None:
    project = scaffold(template, tmp_path / "devkit")
    by_default = stored(project)
    given: dict[str, Any] = {}
    names = list(OTHER_ANSWERS)
    for part in (names[:8], names[8:]):
        now = {name: OTHER_ANSWERS[name] for name in part}
        given |= now
        update(project, "--vcs-ref=:current:", "--data=rotate=none", *as_data(now))
        assert stored(project) == by_default | given
        commit(project, "Further answers")


def test_answers_of_before_questions_were_left_out_survive_the_update(template: Path, tmp_path: Path) -> None:
    newest = git(template, "rev-parse", "HEAD").strip()
    changes = git(template, "log", "--format=%H", "-S", "more_questions", "--", "copier.yml").split()
    git(template, "tag", "--force", "v1.0.0", f"{changes[-1]}^")
    git(template, "tag", "v2.0.0", newest)
    project = tmp_path / "devkit"
    copy = [*COPIER, "copy", "--trust", "--defaults", "--vcs-ref=v1.0.0", *as_data(OTHER_ANSWERS)]
    run(tmp_path, *copy, str(template), str(project))
    git(project, "init", "--quiet")
    commit(project, "devkit")
    assert stored(project) == OTHER_ANSWERS
    update(project)
    assert "v2.0.0" in (project / ".copier-answers.yml").read_text()
    assert stored(project) == OTHER_ANSWERS


@pytest.mark.parametrize(
    ("before", "data", "said"),
    [
        ({"routes": ["10.9.0.0/16", "172.16.0.0/12"]}, "vpn_subnet=10.9.1.0/24", "drop 10.9.0.0/16"),
        pytest.param(
            {"vpn_subnet": "192.0.2.0/24"},
            "vpn_host=192.0.2.7",
            "not 192.0.2.0/24: vpn_host is in it",
            marks=pytest.mark.further,
        ),
        pytest.param(
            {"authority_days": 2000}, "certificate_days=3000", "use 3000 to 36500, not 2000", marks=pytest.mark.further
        ),
    ],
)
def test_stored_answer_that_another_makes_wrong_is_refused_and_not_replaced_by_the_default(
    template: Path, tmp_path: Path, before: dict[str, Any], data: str, said: str
) -> None:
    project = tmp_path / "devkit"
    run(tmp_path, *COPIER, "copy", "--trust", "--defaults", *as_data(before), str(template), str(project))
    git(project, "init", "--quiet")
    commit(project, "devkit")
    command = [
        *COPIER,
        "update",
        "--trust",
        "--defaults",
        "--vcs-ref=:current:",
        "--data=rotate=none",
        f"--data={data}",
    ]
    refusal = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert refusal.returncode != 0
    assert said in refusal.stderr.splitlines()[-1]
    assert git(project, "status", "--porcelain") == ""
    assert stored(project).items() >= before.items()


def test_conflict_that_an_update_leaves_is_named_and_gets_into_no_profile(template: Path, tmp_path: Path) -> None:
    project = scaffold(template, tmp_path / "devkit")
    for folder, path in ((template, "template/client/client.conf.jinja"), (project, "client/client.conf")):
        text = (folder / path).read_text()
        (folder / path).write_text(text.replace("connect-retry 1 5", f"connect-retry 1 {len(path)}"))
        commit(folder, "Wait for another time")
    git(template, "tag", "v1.1.0")
    before = snapshot(project / "local")
    command = [*COPIER, "update", "--trust", "--defaults", "--quiet"]
    refusal = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    (line,) = (
        number
        for number, text in enumerate((project / "client/client.conf").read_text().splitlines(), start=1)
        if text.startswith("<<<<<<<")
    )
    assert refusal.returncode != 0
    assert f"client/client.conf:{line} holds a conflict marker of a merge" in refusal.stderr
    assert snapshot(project / "local") == before
    git(project, "checkout", "--theirs", "client/client.conf")
    commit(project, "Settled")
    update(project, "--vcs-ref=:current:")
    assert archived(project) == ["0001", "0002"]
    assert_whole(project)


def test_new_routes_reach_every_profile(template: Path, tmp_path: Path) -> None:
    project = scaffold(template, tmp_path / "devkit")
    run(project, sys.executable, "scripts/client.py", "add", "alice")
    routes = "--data=routes=[172.16.0.0/12, 192.168.7.0/24]"
    said = update(project, "--vcs-ref=:current:", "--data=rotate=none", routes)
    for name in ("docker-for-mac", "alice"):
        assert "route 192.168.7.0 255.255.255.0" in (project / f"local/clients/{name}.ovpn").read_text()
    assert "The profiles have changed: run `./scripts/up.py`, then import them again." in said
    commit(project, "More routes")
    registry = "--data=image_registry=registry.example.org"
    said = update(project, "--vcs-ref=:current:", "--data=rotate=none", "--data=kubernetes=k3s", registry)
    assert "The profiles have changed" in said  # cluster.local is asked through the tunnel now
    commit(project, "A cluster")
    said = update(project, "--vcs-ref=:current:", "--data=rotate=none", "--data=routes=[172.16.0.0/12]")
    assert "The profiles have changed: run `./scripts/up.py --kubernetes`, then import them again." in said
    assert archived(project) == ["0001"]
    assert_whole(project)


def test_command_for_routes_leaves_what_an_update_would(template: Path, tmp_path: Path) -> None:
    project = tmp_path / "devkit"
    copy = [*COPIER, "copy", "--trust", "--defaults", "--data=kubernetes=k3s", "--data=vpn_listen=192.0.2.7"]
    run(tmp_path, *copy, str(template), str(project))
    (project / "client/client.conf").write_text(
        (project / "client/client.conf").read_text() + "route 10.9.9.0 255.255.255.0\n"
    )
    (project / "compose.yaml").write_text("# ours\n" + (project / "compose.yaml").read_text())
    git(project, "init", "--quiet")
    commit(project, "devkit")
    for change, routes in [
        (
            ["add", "192.168.7.0/24", "10.0.0.0/9"],
            "[172.16.0.0/12, 10.42.0.0/16, 10.43.0.0/16, 192.168.7.0/24, 10.0.0.0/9]",
        ),
        (["remove", "10.42.0.0/16", "172.16.0.0/12"], "[10.43.0.0/16, 192.168.7.0/24, 10.0.0.0/9]"),
    ]:
        updated = shutil.copytree(project, tmp_path / f"updated-{change[0]}", symlinks=True)
        update(updated, "--vcs-ref=:current:", "--data=rotate=none", f"--data=routes={routes}")
        before = snapshot(project)
        run(project, sys.executable, "scripts/routes.py", *change)
        assert files(project) == files(updated)
        changed = {name for name, entry in files(project).items() if entry != before[name]}
        generation = "local/pki/archive/0001"
        assert changed == {
            ".copier-answers.yml", "client/client.conf", "compose.yaml", f"{generation}/values.yaml",
            f"{generation}/profiles/docker-for-mac.ovpn",
            f"{generation}/profiles/docker-for-mac.tblk/Contents/Resources/config.ovpn",
        }  # fmt: skip
        commit(project, "Other routes")
    update(project, "--vcs-ref=:current:", "--data=rotate=none")
    assert git(project, "status", "--porcelain") == ""


def files(project: Path) -> dict[str, tuple[int, bytes]]:
    """All that is in a project, but for what git keeps and Python compiled."""
    found = snapshot(project)
    return {name: entry for name, entry in found.items() if not name.startswith(".git/") and "__pycache__" not in name}


def test_project_of_an_older_commit_updates_to_the_newest_and_loses_nothing(tmp_path: Path) -> None:
    template = tmp_path / "template"
    git(tmp_path, "clone", "--quiet", str(REPOSITORY), str(template))
    # Generations are what a project must have to be updated; the commit that brought them is the oldest that counts.
    oldest = git(template, "log", "--diff-filter=A", "--format=%H", "--", "scripts/devkit/generation.py").split()[-1]
    newest = git(template, "rev-parse", "HEAD").strip()
    git(template, "tag", "v1.0.0", oldest)
    git(template, "checkout", "--quiet", "v1.0.0")
    project = scaffold(template, tmp_path / "devkit")
    git(template, "checkout", "--quiet", newest)
    git(template, "commit", "--quiet", "--allow-empty", "--message", "The newest")
    git(template, "tag", "v2.0.0")
    run(project, sys.executable, "scripts/client.py", "add", "alice")
    # Above all else, where no version of the template has anything.
    (project / "README.md").write_text("Our own notes.\n\n" + (project / "README.md").read_text())
    (project / "server/server.conf").write_text((project / "server/server.conf").read_text() + "\nmax-clients 7\n")
    (project / "notes.txt").write_text("ours")
    commit(project, "Our own edits")
    before = snapshot(project / "local/pki/archive")
    update(project)
    after = snapshot(project / "local/pki/archive")
    assert before.keys() <= after.keys()
    # What is made from texts that the new version brings may be other in them; keys, certificates and lists may not.
    rendered = ("0001/profiles/", "0001/values.yaml")
    kept = {name: entry for name, entry in before.items() if not name.startswith(rendered)}
    assert {name: after[name] for name in kept} == kept
    for name in ("alice", "docker-for-mac"):
        profile = f"0001/profiles/{name}.ovpn"
        assert BLOCK.findall(after[profile][1].decode()) == BLOCK.findall(before[profile][1].decode())
    assert archived(project) == ["0001", "0002"]
    assert {client.name for client in read_generation(project).live_clients} == {"alice", "docker-for-mac"}
    assert "Our own notes." in (project / "README.md").read_text()
    assert "max-clients 7" in (project / "server/server.conf").read_text()
    assert (project / "notes.txt").read_text() == "ours"
    assert not [line for line in git(project, "status", "--porcelain").splitlines() if "U" in line[:2]]
    assert subprocess.run(["git", "grep", "--quiet", "<<<<<<<"], cwd=project, check=False).returncode == 1
    assert_whole(project)
