"""What is done with many clients and containers is no more than so many times the work for one: nothing is quadratic.

Work is counted in the interpreter's instructions, which are the same on every machine and however busy it is.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from io import StringIO
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from devkit.facts import Attachment, Container, Engine, EngineFacts, Network
from devkit.keys import x509
from devkit.keys.model import Generation
from devkit.material.contents import Readable, files, folders
from devkit.material.reading import load
from devkit.material.rotation import rotated, settled, with_clients, without_client
from devkit.names import names, unbound_records
from devkit.proxy import parse, redirections, state, told
from devkit.report import document, engine
from devkit.report.access import make_access
from devkit.report.engine import EngineReport
from rich.console import Console

from tests.unit.condition import well
from tests.unit.made import NOW, answers, generation

MANY = 100
TWICE = 2.1  # as much, and a little for what is not even
GENERATION = generation()
DOMAIN, ROUTES = "d4m.internal", (IPv4Network("172.16.0.0/12"),)


def steps(work: Callable[[], object]) -> int:
    """How many instructions of Python's are carried out."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        nonlocal count
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def clients(count: int) -> Generation:
    """So many that may connect, and as many certificates that are revoked."""
    made = with_clients(generation(), [f"client-{number}" for number in range(count)], answers(), NOW)
    return rotated(made, "leaf", True, answers(), NOW)


@pytest.fixture(scope="module")
def few_and_many() -> Sequence[Generation]:
    return clients(MANY), clients(2 * MANY)


@pytest.mark.parametrize(
    "work",
    [
        lambda made: rotated(made, "leaf", False, answers(), NOW),
        lambda made: without_client(made, "client-1", NOW),
        lambda made: with_clients(made, [f"new-{client.name}" for client in made.clients], answers(), NOW),
        lambda made: [made.client(client.name) for client in made.clients],
        lambda made: [client for client in made.clients if client.name.casefold() in made.live_names],
        lambda made: settled(made, NOW),
        lambda made: list(files(made, Readable("client\n", "port 1194\n"), answers())),
        lambda made: document.of_clients(made, (), ()),
    ],
    ids=["rotate", "revoke", "add", "find", "admit", "settle", "write", "list"],
)
def test_work_with_clients_grows_as_they_do(
    few_and_many: Sequence[Generation], work: Callable[[Generation], object]
) -> None:
    few, many = (steps(partial(work, replace(made))) for made in few_and_many)  # anew: nothing is known of it yet
    assert many < TWICE * few


def test_reading_clients_grows_as_they_do(few_and_many: Sequence[Generation], tmp_path: Path) -> None:
    places = []
    for number, made in enumerate(few_and_many):
        places.append(tmp_path / str(number) / f"{made.number:04}")
        for path in folders():
            (places[-1] / path).mkdir(parents=True, exist_ok=True)
        for file in files(made, Readable("client\n", "port 1194\n"), answers()):
            (places[-1] / file.path).parent.mkdir(parents=True, exist_ok=True)
            (places[-1] / file.path).write_bytes(file.content)
    few, many = (steps(partial(load, place)) for place in places)
    assert many < TWICE * few


def test_no_step_is_for_one_entry_of_a_crl() -> None:
    ca = generation().ca.credential
    few, many = (
        steps(partial(x509.new_crl, ca, [x509.revocation(serial, NOW) for serial in range(1, count)], NOW, 0))
        for count in (MANY, 2 * MANY)
    )
    assert many == few


def containers(count: int) -> EngineFacts:
    """So many that run, on a tenth as many networks, and half of them are of Compose's."""
    found, networks = [], []
    for number in range(count // 10):
        subnet = IPv4Network((IPv4Address("172.20.0.0") + 256 * number, 24))
        networks.append(Network(f"net{number}", "bridge", (subnet,), None, None))
        for one in range(10):
            name, project = f"c{number}-{one}", f"project{number}" if one % 2 else None
            place = Attachment(f"net{number}", "bridge", subnet, subnet[2 + one])
            found.append(Container(name, "image", project, project and "web", (place,), ("8000/tcp",), id=name))
    return EngineFacts(Engine("vm", "29.0.0", "Docker Desktop", "iptables", None), tuple(found), tuple(networks))


def report(facts: EngineFacts) -> EngineReport:
    """Make a report."""
    known = answers(dns_domain=DOMAIN)
    return engine.make_report(make_access(known, (), GENERATION, NOW), facts, well(facts, known), {})


def show(facts: EngineFacts) -> None:
    """Let a person and a program read it."""
    made = report(facts)
    document.of_engine(made)
    Console(file=StringIO(), width=100).print(engine.as_text(made, "Linux", Path()))


def tell(facts: EngineFacts) -> None:
    """Do what the containers `names` and `proxy` do when something has changed."""
    found, reverse = names(facts.containers, DOMAIN, ROUTES)
    unbound_records(found, reverse, DOMAIN, ROUTES, IPv4Address("10.213.94.1"))
    known = parse(told(facts.containers, found, DOMAIN, "devkit", ROUTES))
    redirections(known, {}, ROUTES)
    state(known, {}, (), (), NOW)


@pytest.mark.parametrize("work", [report, show, tell])
def test_work_with_containers_grows_as_they_do(work: Callable[[EngineFacts], object]) -> None:
    few, many = (steps(partial(work, containers(count))) for count in (MANY, 2 * MANY))
    assert many < TWICE * few
