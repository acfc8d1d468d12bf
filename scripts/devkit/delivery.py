"""What the services read, packed for an engine that does not see the project's folder."""

import io
import tarfile
from pathlib import Path

from devkit.files import BESIDE

LAST = ".last"  # gateway/receive.sh takes no archive without it


def archive(folder: Path) -> bytes:
    """A tar archive of a folder's files, with their modes, as root's; unfinished files are left out."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as tar:
        for path in sorted(folder.rglob("*")):
            if not path.name.startswith(BESIDE):
                entry = tar.gettarinfo(path, str(path.relative_to(folder)))
                entry.uid = entry.gid = 0
                entry.uname = entry.gname = "root"
                with path.open("rb") if path.is_file() else io.BytesIO() as content:
                    tar.addfile(entry, content)
        tar.addfile(tarfile.TarInfo(LAST))
    return packed.getvalue()
