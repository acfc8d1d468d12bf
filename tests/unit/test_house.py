"""The architecture of the scripts' library: what docs/development.md promises of it."""

import base64
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

import pytest
from devkit import vpn
from devkit.answers import Answers, read_answers
from devkit.files import File
from devkit.keys.model import Client, Generation
from devkit.material.changes import add_clients, ensure_material, revoke_client, rotate
from devkit.material.state import first_profiles, problems, read_generation
from devkit.report.access import access_table, make_access
from rich.console import Console

from tests import house
from tests.conftest import REPOSITORY

NOW = datetime.now(UTC).replace(microsecond=0)


def test_picture_in_the_documents_is_of_the_code() -> None:
    (drawn,) = re.findall(r"```text\n(.*?)\n```", (REPOSITORY / "docs/development.md").read_text(), re.DOTALL)
    assert drawn == house.picture()


def test_rooms_that_import_each_other_are_no_house() -> None:
    with pytest.raises(ValueError, match=r"import each other: \['a', 'b'\]"):
        house.floors({"a": {"b"}, "b": {"a"}, "c": set()})


def test_nothing_but_the_lanes_own_room_says_openvpn() -> None:
    scripts = REPOSITORY / "scripts"
    saying = {
        str(path.relative_to(scripts))
        for path in scripts.rglob("*.py")
        if "openvpn" in path.read_text().lower() and "devkit/vpn/openvpn/" not in str(path)
    }
    # The registration, and a service's name in projects of before.
    assert saying == {"devkit/vpn/__init__.py", "devkit/sites/ownership.py"}


# ------------------------------------------------------------------------------------------- a lane that does nothing


def pem(content: bytes) -> bytes:
    return b"-----BEGIN Third key-----\n" + base64.b64encode(content) + b"\n-----END Third key-----\n"


def client_files(generation: Generation, client: Client, answers: Answers, readable: str) -> Iterator[File]:
    yield File(PurePosixPath(f"{client.name}.third"), client.keys["third"])


THIRD = replace(
    vpn.LANES[0],
    name="third",
    key_label="Third ",
    new_server_key=lambda: pem(b"server"),
    new_client_key=lambda server_key, _: pem(b"client of " + server_key),
    parse_server_key=lambda found: found,
    accepts=lambda server_key, client_key: client_key == pem(b"client of " + server_key),
    server_key=PurePosixPath("third.key"),
    server_files=lambda generation: iter([File(PurePosixPath("third.key"), generation.keys["third"])]),
    read_at_start=(PurePosixPath("third.key"),),
    read_later=(PurePosixPath("third"),),
    admission_file=lambda name: PurePosixPath("third") / name,
    admitted=lambda _: [],
    client_files=client_files,
    profile_suffix=".third",
    bundle_suffixes=(),
    opening_steps=lambda profile, _: (f"open {profile} by nothing",),
)


def test_further_lane_is_one_registration(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All else follows: its keys are made, kept, read back, renewed, revoked and shown with those of the others."""
    monkeypatch.setattr(vpn, "LANES", (*vpn.LANES, THIRD))
    shutil.rmtree(project / "local")
    answers = read_answers(project)
    ensure_material(project, answers, NOW)
    add_clients(project, answers, ["alice"], NOW)
    current = project / "local/pki/current"
    assert (current / "configs/third.key").read_bytes() == pem(b"server")
    assert (current / "configs/third/alice").exists()
    assert (project / "local/clients/alice.third").read_bytes() == pem(b"client of " + pem(b"server"))
    assert (project / "local/docker-for-mac.third").exists()
    assert "<tls-crypt-v2>" in (project / "local/clients/alice.ovpn").read_text()
    assert set(read_generation(project).clients[0].keys) == {"openvpn", "third"}
    access = make_access(answers, first_profiles(project, answers), read_generation(project), NOW)
    said = io.StringIO()
    Console(file=said, width=120).print(access_table(access, [], "Linux", project))
    assert "local/docker-for-mac.ovpn" in said.getvalue()
    assert "open local/docker-for-mac.third by nothing" in said.getvalue()
    assert list(problems(project, answers)) == []
    rotate(project, answers, "all", True, NOW)
    revoke_client(project, answers, "alice", NOW)
    assert [path.name for path in current.resolve().rglob("*alice*")] == ["alice.pem"]  # to know whom to refuse
    (current / "configs/third.key").write_bytes(pem(b"another"))
    with pytest.raises(Exception, match=r"third\.key or .*docker-for-mac\.pem is damaged"):
        read_generation(project)
