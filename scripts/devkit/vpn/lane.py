"""What a VPN protocol is to the rest of the house: all that is particular to one is behind this."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from devkit.answers import Answers
from devkit.facts import Contest, Session
from devkit.files import File
from devkit.host import OperatingSystem
from devkit.keys.model import Client, Generation

Inside = Sequence[str]  # the words that run a program in the server's container, such as `docker exec`


class Names(NamedTuple):
    """Who answers names through the VPN, and in which domains; and the root of the CA for HTTPS (PEM), if there is."""

    server: IPv4Address
    domains: tuple[str, ...]
    https_root: str | None = None


@dataclass(frozen=True)
class Rejection:
    """A client that the server has turned away, why, and how long ago; its certificate's number where that is known."""

    client: str
    reason: str
    seconds: int
    serial_number: int | None = None


@dataclass(frozen=True)
class ProfileFacts:
    """What a profile says of its client and of the way to its server."""

    client: str
    serial_number: int
    expiry: datetime
    authority_expiry: datetime  # of the CA that lasts longest: afterwards the client trusts no server
    host: str
    port: int
    protocol: Literal["tcp", "udp"]
    routes: tuple[IPv4Network, ...]
    mtu: int


Stage = Literal["name", "port", "answer", "server", "client", "passed"]


@dataclass(frozen=True)
class Handshake:
    """How far a client comes with the server that a profile names, and why no further.

    The stage is the one that it did not pass:
    name    the host's name has no address
    port    nobody listens there; over UDP it may also be that the server does not know the profile's key
    answer  somebody listens who is not the server, or it does not know the profile's key
    server  the server's certificate is not the one that the profile trusts
    client  the server does not accept the client's certificate
    passed  all is well so far; that it refuses a client by its name, a server says only once a session would begin
    """

    stage: Stage
    said: str = ""  # in a few words, such as "connection refused" or "certificate has expired"


@dataclass(frozen=True)
class Lane:
    """One VPN protocol. Paths of the server's files are below `configs/`, those of clients' below `profiles/`.

    Keys are PEM. What is damaged raises ValueError; a server that does not answer raises UserError.
    """

    name: str  # a generation keeps the protocol's keys under it
    key_label: str  # how the PEM labels of its keys begin, which tells them from other lanes' keys

    new_server_key: Callable[[], bytes]
    new_client_key: Callable[[bytes, datetime], bytes]  # for a server with this key
    parse_server_key: Callable[[bytes], bytes]
    accepts: Callable[[bytes, bytes], bool]  # whether a server with the first key accepts a client with the second

    server_key: PurePosixPath
    server_files: Callable[[Generation], Iterator[File]]  # beside the server's certificate and the CRL
    read_at_start: Sequence[PurePosixPath]  # when one of these changes, the server must start anew
    read_later: Sequence[PurePosixPath]  # folders that the server reads while it runs
    admission_file: Callable[[str], PurePosixPath]  # where an empty file lets the client of this name in
    admitted: Callable[[Path], Iterable[str]]  # the clients that the files in this folder let in

    client_files: Callable[[Generation, Client, Answers, str], Iterator[File]]  # from the profile's readable part
    profile_suffix: str  # what follows the client's name in a profile's
    bundle_suffixes: Sequence[str]  # the same for folders that hold a profile for some app
    opening_steps: Callable[[str, OperatingSystem], Sequence[str]]  # how apps open a profile, by its path
    names: Callable[[str], Names | None]  # what a profile's text says of names
    facts: Callable[[str], ProfileFacts]  # what it says of the rest
    handshake: Callable[[str], Handshake]  # try its server for seconds, and disturb no session

    sessions: Callable[[Inside], tuple[Session, ...]]
    contests: Callable[[Inside], tuple[Contest, ...]]
    rejections: Callable[[Inside], tuple[Rejection, ...]]  # the last of each client, the latest first
    end_sessions: Callable[[Inside, str], int]  # of a client, telling it not to come back; returns how many there were
