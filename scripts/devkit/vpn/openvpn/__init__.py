"""OpenVPN: the lane."""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from devkit.answers import CLIENT_NAME
from devkit.files import READABLE, File
from devkit.keys.model import Generation
from devkit.vpn.lane import Lane
from devkit.vpn.openvpn import handshake, management, profile, reading, tls_crypt
from devkit.vpn.openvpn.profile import NAME

ADMITTED = PurePosixPath("ccd")  # client-config-dir: with ccd-exclusive the server refuses clients without a file there
KEY = PurePosixPath("tls-crypt-v2.key")
TRUSTED = PurePosixPath("ca.crt")


def _server_files(generation: Generation) -> Iterator[File]:
    yield File(TRUSTED, generation.trusted_pem, READABLE)
    yield File(KEY, generation.keys[NAME])


def _admitted(configs: Path) -> Iterable[str]:
    # Our own files are empty; what the system leaves anywhere, such as Thumbs.db, is not.
    ours = (path for path in (configs / ADMITTED).glob("*") if CLIENT_NAME.fullmatch(path.name) and path.is_file())
    return (path.name for path in ours if not path.stat().st_size)


OPENVPN = Lane(
    name=NAME,
    key_label="OpenVPN ",
    new_server_key=tls_crypt.new_server_key,
    new_client_key=tls_crypt.new_client_key,
    parse_server_key=tls_crypt.parse_server_key,
    accepts=tls_crypt.accepts,
    server_key=KEY,
    server_files=_server_files,
    read_at_start=(TRUSTED, PurePosixPath("server.crt"), PurePosixPath("server.key"), KEY),
    read_later=(ADMITTED,),
    admission_file=lambda name: ADMITTED / name,
    admitted=_admitted,
    client_files=profile.client_files,
    profile_suffix=".ovpn",
    bundle_suffixes=(".tblk",),
    opening_steps=profile.opening_steps,
    names=profile.names,
    facts=reading.facts,
    handshake=handshake.handshake,
    sessions=management.sessions,
    contests=management.contests,
    rejections=management.rejections,
    end_sessions=management.end_sessions,
)
