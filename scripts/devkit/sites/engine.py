"""A Docker engine as the place where the server runs: the services of compose.yaml."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from devkit import checks, host, vpn
from devkit.answers import Answers
from devkit.checks import Check
from devkit.errors import UserError
from devkit.facts import (
    RUNNING,
    SILENT,
    Condition,
    Container,
    Contest,
    Engine,
    EngineFacts,
    Facts,
    Listener,
    Part,
    Passage,
    Session,
    Target,
)
from devkit.keys.model import Generation
from devkit.material.state import fingerprint
from devkit.sites import ownership, probe
from devkit.sites.docker import Found, host_of_context
from devkit.sites.ownership import FIREWALL, SERVER
from devkit.sites.services import Services
from devkit.sites.site import Refusal, Step
from devkit.vpn.lane import Rejection

EXAMPLE_PORT = 8000


@dataclass(frozen=True)
class _Look:
    """What is on the engine; whether it has the images; a volume of another's that has the name of one of ours."""

    found: Found
    are_built: bool
    volume_of_others: str | None


class EngineSite:
    """See `site.Site`."""

    up = "./scripts/up.py"

    def __init__(self, project: Path, answers: Answers) -> None:
        self._project = project
        self._answers = answers
        self._seen: _Look | None = None  # by `checks`
        self._services = Services(project, answers)
        self._docker = self._services.docker

    def checks(self, generation: Generation, now: datetime) -> Iterator[Check]:
        """The server's certificate, the engine, what is on it already, the port, the routes."""
        answers = self._answers
        yield checks.server_certificate(generation, now)
        context = host_of_context() if answers.vpn_host_from == "record" else None
        yield checks.docker_context(answers, context, context is None or host.same(answers.vpn_host, context))
        seen = self._seen = self._look()
        found, engine = seen.found, self._docker.engine()
        yield checks.engine(engine)
        self._docker.require_compose()
        yield self._in_the_way(seen)
        if engine.host is None:  # another machine's port may be reached at an address that it does not have itself
            yield checks.listening_address(answers, host.interfaces())
            if not self._services.runs(found.containers):  # our own server has the port
                problem = host.port_problem(answers.vpn_listen, answers.vpn_port, answers.vpn_protocol)
                yield checks.port(answers, problem)
        else:
            leads_here = host.is_loopback(answers.vpn_host) and not host.is_loopback(engine.host)
            yield checks.host_elsewhere(answers, engine.host, leads_here)
        bridges = [subnet for network in found.networks for subnet in network.subnets]
        yield checks.routes(answers, host.interfaces(), bridges)

    def start(self, anew: bool = False) -> Iterator[Step]:
        """Build the images and start the services."""
        seen, self._seen = self._seen or self._look(), None
        if anew or not seen.are_built:
            yield Step("Building the image", self._services.build(anew))
            seen = self._look()  # others may have started something meanwhile
        if self._docker.engine().host and not self._services.runs(seen.found.containers):
            checks.require([checks.port_elsewhere(self._answers, self._listening_there())])  # as the image sees it
        checks.require([self._in_the_way(seen)])
        yield Step("Starting the server and the firewall", self._services.start(self.fingerprint(), seen.found))

    def stop(self, images: bool) -> str:
        """Remove the services, and what belongs to them."""
        self._docker.engine()
        self._docker.require_compose()
        self._services.stop(images)
        return "Everything is down." + ("" if images else " The images stay (--images removes them, too).")

    def facts(self) -> EngineFacts:
        """The engine and the user's containers on it."""
        found = self._services.take_look() or self._docker.found()
        own = self._services.own(found.containers)
        if not any(container.state in RUNNING for container in own):
            raise UserError(f"the VPN is down: bring it up with `{self._answers.up}`.")
        users = tuple(one for one in found.containers if one.state in RUNNING and one not in own)
        return EngineFacts(self._docker.engine(), users, found.networks, own)

    def condition(self, found: Facts, targets: Iterable[Target], may_run: bool) -> Condition:  # noqa: ARG002 -- who may look may run
        """Ask each service, and the server whom it serves and whom it reaches."""
        assert isinstance(found, EngineFacts)  # noqa: S101 -- as `facts` made them
        parts, inside = self._services.parts(found.own)
        if inside is None:
            return Condition(parts, reason="the server does not run")
        with ThreadPoolExecutor() as pool:
            trying = pool.submit(probe.answers, inside, targets)
            asked = [(pool.submit(lane.sessions, inside), pool.submit(lane.contests, inside)) for lane in vpn.LANES]
            try:
                sessions = tuple(one for of_lane, _ in asked for one in of_lane.result())
                contests = tuple(one for _, of_lane in asked for one in of_lane.result())
            except UserError:
                parts = tuple(Part(part.name, SILENT if part.name == SERVER else part.trouble) for part in parts)
                return Condition(parts, reason="the server does not answer")
        try:
            return Condition(parts, trying.result(), sessions, contests)
        except UserError as error:  # as from a server that is older than this
            return Condition(parts, None, sessions, contests, str(error))

    def loaded(self, found: Facts | None = None) -> str | None:
        """What the label of the server's container says."""
        return self._services.loaded(found.own if isinstance(found, EngineFacts) else self._docker.containers())

    def fingerprint(self) -> str:
        """A digest of the files that the server reads when it starts."""
        return fingerprint(self._project)

    def sessions(self) -> tuple[Session, ...]:
        """Ask the server."""
        inside = self._services.server(self._docker.containers())
        return tuple(session for lane in vpn.LANES for session in lane.sessions(inside)) if inside else ()

    def contests(self) -> tuple[Contest, ...]:
        """Ask the server."""
        inside = self._services.server(self._docker.containers())
        return tuple(contest for lane in vpn.LANES for contest in lane.contests(inside)) if inside else ()

    def rejections(self) -> tuple[Rejection, ...]:
        """Ask the server."""
        inside = self._services.server(self._docker.containers())
        return tuple(one for lane in vpn.LANES for one in lane.rejections(inside)) if inside else ()

    def passage(self, target: Target) -> Passage:
        """Ask the server and the firewall."""
        inside = self._services.inside()
        return probe.passage(inside[SERVER], inside[FIREWALL], target)

    def listeners(self, container: str) -> tuple[Listener, ...]:
        """Who listens in a container, as another one in its network sees it. Raises UserError."""
        run = self._services.image.run(f"--network=container:{container}", "cat", "/proc/net/tcp", "/proc/net/tcp6")
        return probe.listeners(run.stdout.decode())

    def state(self, container: str) -> str | None:
        """How a container is that may not run; None where there is none of that name."""
        return self._docker.state(container)

    def engine(self) -> Engine:
        """What the engine says of itself. Raises UserError when it does not answer."""
        return self._docker.engine()

    def full_disks(self) -> tuple[str, ...]:
        """Where the services cannot write any more."""
        return self._services.full_disks()

    def logs(self) -> Mapping[str, str]:
        """The last lines of each service."""
        return self._services.logs()

    @contextmanager
    def example(self) -> Iterator[Container]:
        """A container to be reached, for as long as it is needed. Raises UserError."""
        with self._services.image.running("nc", "-l", "-k", "-p", str(EXAMPLE_PORT)) as name:
            found = next(container for container in self._docker.found().containers if container.name == name)
            yield replace(found, ports=(f"{EXAMPLE_PORT}/tcp",))

    def refuse(self, client: str) -> Refusal:
        """The server reads the CRL whenever a client connects; a session that is open goes on until it is ended."""
        containers = self._docker.containers()
        running, server = self._services.loaded(containers), self._services.server(containers)
        self.admit()
        if running is None:
            return Refusal(False, "The stack is down, so there was no session to end here.")
        if running != self.fingerprint():
            # The server reads an older generation: only a restart makes it read the one that has the revocation.
            for step in self.start():
                deque(step.lines, maxlen=0)
            words = "The server was restarted with the newest certificates, which ended every session once."
            return Refusal(True, words)
        ended = sum(lane.end_sessions(server, client) for lane in vpn.LANES) if server else 0
        return Refusal(True, f"{ended} live session{'' if ended == 1 else 's'} ended.")

    def admit(self) -> None:
        """Let an engine that does not see the folder know of new clients. Raises UserError."""
        if self._services.delivery.is_needed:
            self._services.delivery.deliver()

    def _look(self) -> _Look:
        with ThreadPoolExecutor() as pool:
            found = pool.submit(self._docker.found)
            are_built = pool.submit(self._services.are_built)
            volume = pool.submit(self._services.delivery.volume_of_others)
            return _Look(found.result(), are_built.result(), volume.result())  # the first says best why nothing answers

    def _in_the_way(self, seen: _Look) -> Check:
        services, found = self._services, seen.found
        return ownership.in_the_way(
            services.identity(), services.others(found.containers), found.networks, services.own(found.containers),
            seen.volume_of_others,
        )  # fmt: skip

    def _listening_there(self) -> set[str]:
        """The addresses of the engine's machine on which the port is taken."""
        kind = "-t" if self._answers.vpn_protocol == "tcp" else "-u"
        port = f"sport = :{self._answers.vpn_port}"
        listing = self._services.image.run("--network=host", "ss", "-H", "-l", "-n", kind, port)
        return {line.split()[3].rsplit(":", 1)[0] for line in listing.stdout.decode().splitlines()}
