"""What is sent to an engine that does not see the project's folder."""

import io
import tarfile
from pathlib import Path

from devkit.sites.delivery import archive


def test_archive_holds_all_finished_files_as_roots_with_their_modes(tmp_path: Path) -> None:
    (tmp_path / "ccd").mkdir(mode=0o755)
    (tmp_path / "ccd/laptop").touch(mode=0o644)
    (tmp_path / "server.key").write_bytes(b"secret")
    (tmp_path / "server.key").chmod(0o600)
    (tmp_path / "linked.crt").symlink_to("server.key")
    (tmp_path / ".new-server.key").write_bytes(b"half")
    with tarfile.open(fileobj=io.BytesIO(archive(tmp_path))) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == ["ccd", "ccd/laptop", "linked.crt", "server.key", ".last"]
        found = {member.name: member for member in members}
        content = {name: tar.extractfile(name) for name in ("ccd/laptop", "linked.crt", "server.key")}
        assert {name: file.read() for name, file in content.items() if file} == {
            "ccd/laptop": b"", "linked.crt": b"secret", "server.key": b"secret",
        }  # fmt: skip
    assert found["ccd"].isdir()
    assert found["linked.crt"].isfile()  # the engine has nothing that it could lead to
    assert {name: found[name].mode for name in ("ccd", "ccd/laptop", "server.key")} == {
        "ccd": 0o755, "ccd/laptop": 0o644, "server.key": 0o600,
    }  # fmt: skip
    assert {(each.uid, each.gid) for each in members} == {(0, 0)}
    assert {(each.uname, each.gname) for each in members if each.name != ".last"} == {("root", "root")}
