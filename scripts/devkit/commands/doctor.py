"""Follow one packet from this computer to a container, and name the first thing that stops it, with what mends it."""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from devkit import checks, commandline, diagnosis, host, reachability, vpn
from devkit.answers import Answers, read_answers
from devkit.checks import Check, not_checked
from devkit.commands.host import Plan, Wish, plan_for, wish_of
from devkit.computer import effects
from devkit.diagnosis import Asked, Layer
from devkit.errors import UserError
from devkit.facts import ClusterFacts, Condition, Container, EngineFacts, Listener, Passage, Target
from devkit.host import Interface
from devkit.material.expiry import expiries, expiry_warnings
from devkit.material.state import first_profiles, read_generation
from devkit.names import Name, names
from devkit.proxy import declared_port
from devkit.report import bundle, document
from devkit.report import diagnosis as report
from devkit.sites.engine import EngineSite
from devkit.sites.site import Site
from devkit.vpn.lane import Lane, ProfileFacts

NEW_PROFILE = "get a new profile from who made it"
MANY = 1000  # more than any system's command lines


def main(arguments: Sequence[str]) -> int:
    """Run `doctor.py`."""
    parser = commandline.parser(__doc__ or "")
    parser.add_argument(
        "target", metavar="TARGET", nargs="?",
        help="a container's name, an address, or a URL; without it, a container of the doctor's own",
    )  # fmt: skip
    parser.add_argument("--profile", metavar="FILE", type=Path, help="a profile, where there is no project")
    parser.add_argument("--fix", action="store_true", help="ask, and run the command that mends what was found")
    parser.add_argument("--yes", action="store_true", help="with --fix: do not ask")
    parser.add_argument("--json", action="store_true", help="print what was found as JSON")
    parser.add_argument("--bundle", metavar="FILE", type=Path, help="write a report for others, without a secret in it")
    commandline.add_site_options(parser)
    return commandline.run(parser, _doctor, arguments)


def _doctor(options: argparse.Namespace) -> int:
    wanted = diagnosis.asked(options.target) if options.target else None
    with ExitStack() as stack:
        way = _way(options, wanted, stack)
        found = diagnosis.examine(way.layers())
        logs = way.logs() if options.bundle else {}
    if options.json:
        print(json.dumps(document.of_diagnosis(options.target, found), indent=2))
    else:
        commandline.show(report.as_text(found))
    commandline.warn(way.warnings())
    if options.bundle:
        bundle.write(options.bundle, way.project, found, logs)
        said = f"{options.bundle} is written: look into it before you give it away."
        commandline.messages().print(said, markup=False)
    failed = diagnosis.first_failure(found)
    if failed and failed.fix and options.fix:
        return _fix(failed, way.project, options.yes)
    return commandline.code_of(found)


def _fix(failed: Check, project: Path | None, yes: bool) -> int:
    """Ask, and run what mends it. Raises UserError when the user does not want that, or cannot be asked."""
    if not yes:
        if not sys.stdin.isatty():
            raise UserError("there is no terminal to ask at: run this again with --yes to have that done.")
        if not commandline.agreed(f"Run `{failed.fix}`?"):
            raise UserError("nothing was done.")
    words = shlex.split(failed.fix)
    options = ["--yes"] if words[:2] == ["./scripts/host.py", "install"] else []
    program = [sys.executable, *words] if words[0].startswith("./scripts/") else words
    return subprocess.run([*program, *options], cwd=project, check=False).returncode


def _way(options: argparse.Namespace, wanted: Asked | None, stack: ExitStack) -> "_Way":
    """The way to look at: a project's, or that of a profile alone."""
    if options.profile and not _is_project():
        return _Way(options.profile, wanted)
    project = commandline.project_folder()
    answers = read_answers(project)
    profile = options.profile or first_profiles(project, answers)[0]
    site = commandline.site(project, answers, options)
    if isinstance(site, EngineSite):
        return _WayToEngine(profile, wanted, project, answers, site, stack)
    return _WayToSite(profile, wanted, project, answers, site)


def _is_project() -> bool:
    try:
        read_answers(commandline.project_folder())
    except UserError:
        return False
    return True


class _Way:
    """The way to a target, as far as a profile alone lets one look. What it looks at, it looks at once."""

    project: Path | None = None
    up: str | None = None
    renewal = NEW_PROFILE

    def __init__(self, profile: Path, wanted: Asked | None) -> None:
        self.path = profile
        self.install = f"./scripts/host.py install --profile {shlex.quote(str(profile))}"
        self.wanted = wanted

    def layers(self) -> Sequence[Layer]:
        """What is to be looked at, in a packet's order."""
        return [
            ("profile", self.look_at_profile),
            ("server", self.look_at_server),
            ("tunnel", self.look_at_tunnel),
            ("route", self.look_at_route),
            ("answer", self.look_at_answer),
            *self.layers_of_names(),
        ]

    def layers_of_names(self) -> Sequence[Layer]:
        """The last of them."""
        return [("names", self.look_at_names), ("trust", self.look_at_trust), ("https", self.look_at_https)]

    def logs(self) -> dict[str, str]:
        """What a bundle has of the server's side."""
        return {}

    def warnings(self) -> Iterable[str]:
        """What does not stop a packet yet."""
        return ()

    # ---------------------------------------------------------------------------------------------- what is known

    @cached_property
    def text(self) -> str:
        """The profile."""
        return self.path.read_text(encoding="utf-8", errors="replace")

    @property
    def shown(self) -> str:
        """Its path, as a user who works here names it."""
        here = Path.cwd()
        return str(self.path.relative_to(here) if self.path.is_relative_to(here) else self.path)

    @cached_property
    def lane(self) -> Lane:
        """Its protocol."""
        return next((lane for lane in vpn.LANES if self.path.suffix == lane.profile_suffix), vpn.LANES[0])

    @cached_property
    def facts(self) -> ProfileFacts:
        """What it says. Raises UserError."""
        try:
            return self.lane.facts(self.text)
        except ValueError as error:
            raise UserError(f"{self.path} is no profile ({error}): {NEW_PROFILE}.") from error

    @cached_property
    def subnet(self) -> IPv4Network | None:
        """The tunnel's, where that is known."""
        said = self.lane.names(self.text)
        return IPv4Network(f"{said.server}/24", strict=False) if said else None

    @cached_property
    def domain(self) -> str:
        """The domain of containers' names, if there is one."""
        said = self.lane.names(self.text)
        return said.domains[0] if said else ""

    @cached_property
    def own(self) -> Sequence[Interface]:
        """The interfaces of this computer."""
        return host.interfaces()

    @cached_property
    def address(self) -> IPv4Address | None:
        """The target's; without one, the server's own in the tunnel."""
        if self.wanted is None:
            said = self.lane.names(self.text)
            return said.server if said else None
        found = sorted(host.resolve(self.wanted.host))
        return IPv4Address(found[0]) if found else None

    @property
    def port(self) -> int | None:
        """The port that is wanted."""
        if self.wanted is None:
            return None
        return self.wanted.port or diagnosis.HTTP.get(self.wanted.scheme or "")

    @property
    def bridges(self) -> Sequence[str]:
        """Devices of this computer's own engine."""
        return ()

    @property
    def name(self) -> str | None:
        """The target's name, in the domain."""
        host_ = self.wanted.host if self.wanted else self.domain
        return host_ if self.domain and (host_ == self.domain or host_.endswith(f".{self.domain}")) else None

    @cached_property
    def wish(self) -> Wish:
        """What the profile wants of this computer. Raises UserError."""
        return wish_of(self.path)

    @cached_property
    def plan(self) -> Plan:
        """How far this computer is from it. Raises UserError."""
        return plan_for(effects.look(self.wish.names.server), self.wish)

    # -------------------------------------------------------------------------------------------------- the checks

    def look_at_profile(self) -> Check:
        """See `diagnosis.profile`."""
        return diagnosis.profile(self.facts, self.shown, datetime.now(UTC), self.renewal, revoked=False)

    def look_at_server(self) -> Check:
        """See `diagnosis.handshake`."""
        return diagnosis.handshake(self.lane.handshake(self.text), self.facts, self.up, self.renewal)

    def look_at_tunnel(self) -> Check:
        """See `diagnosis.tunnel`."""
        if self.subnet is None:
            return not_checked("tunnel", "the profile does not say which addresses clients have")
        return diagnosis.tunnel(self.own, self.subnet, self.shown)

    def look_at_route(self) -> Check:
        """See `diagnosis.route`."""
        address = self.address
        if address is None:
            return not_checked("route", "the target's address is not known here")
        subnet = self.subnet or IPv4Network("0.0.0.0/32")
        facts, ways = self.facts, host.ways([address])
        if address in subnet:  # the server itself
            return diagnosis.route(address, ways[address], subnet, facts, (), (), None)
        return diagnosis.route(address, ways[address], subnet, facts, self.own, self.bridges, host.shadow(address))

    def look_at_answer(self) -> Check:
        """See `diagnosis.from_here`."""
        if self.address is None:
            return not_checked("answer", "the target's address is not known here")
        port = self.port or reachability.DISCARD
        if self.subnet and self.address in self.subnet:
            port = 53  # what the server lets through to itself
        return diagnosis.from_here(host.answers_tcp(self.address, port), self.address, port)

    def look_at_names(self) -> Check:
        """See `diagnosis.names`."""
        if self.name is None:
            return not_checked("names", "the target was not given by a name of the VPN's")
        try:
            step = self.plan.names
        except UserError as error:
            return not_checked("names", str(error).rstrip("."))
        if step is None:
            return not_checked("names", "this computer cannot be set up for them")
        is_set_up = all(setting.state == "right" for setting in step.settings)
        return diagnosis.names(self.name, self.address, host.resolve(self.name), is_set_up, self.install)

    def look_at_trust(self) -> Check:
        """See `diagnosis.trust`."""
        if not (self.wanted and self.wanted.scheme == "https"):
            return not_checked("trust", "no https:// was asked for")
        try:
            step = self.plan.trust
        except UserError as error:
            return not_checked("trust", str(error).rstrip("."))
        if step is None:
            return not_checked("trust", "the profile has no CA for HTTPS")
        missing = [setting.what for setting in step.settings if setting.state == "missing"]
        return diagnosis.trust(missing, self.install)

    def look_at_https(self) -> Check:
        """See `diagnosis.https`."""
        said, wanted = self.lane.names(self.text), self.wanted
        if not (wanted and wanted.scheme == "https" and self.name and self.address and said and said.https_root):
            return not_checked("https", "no https:// was asked for")
        return diagnosis.https(f"https://{self.name}", host.https_problem(self.name, self.address, said.https_root))


class _WayToSite(_Way):
    """The way into a cluster, for who has the project."""

    project: Path

    def __init__(self, profile: Path, wanted: Asked | None, project: Path, answers: Answers, site: Site) -> None:
        super().__init__(profile, wanted)
        self.project = project
        self.answers = answers
        self.site = site
        self.up = site.up
        self.install = "./scripts/host.py install"
        self.renewal = f"issue it anew (`./scripts/client.py list` shows all clients), run `{site.up}`, and import it"

    def layers(self) -> Sequence[Layer]:
        """As they are in a cluster."""
        return [
            ("profile", self.look_at_profile),
            ("services", self.look_at_services),
            ("server", self.look_at_server),
            ("address", self.look_at_contests),
            ("client", self.look_at_rejections),
            ("network", self.look_at_network),
            ("tunnel", self.look_at_tunnel),
            ("route", self.look_at_route),
            ("port", self.look_at_port),
            ("answer", self.look_at_answer),
            *self.layers_of_names(),
        ]

    def warnings(self) -> Iterable[str]:
        """Certificates that end soon."""
        return expiry_warnings(expiries(read_generation(self.project)), datetime.now(UTC))

    @cached_property
    def subnet(self) -> IPv4Network:
        """As it was answered."""
        return self.answers.vpn_subnet

    @cached_property
    def condition(self) -> Condition:
        """How the site is doing."""
        return self.site.condition(self.site_facts, (), may_run=True)

    @cached_property
    def site_facts(self) -> EngineFacts | ClusterFacts:
        """What there is to reach. Raises UserError."""
        return self.site.facts()

    @cached_property
    def passage(self) -> Passage:
        """What the server's side knows of the way to the target. Raises UserError."""
        if self.address is None:
            raise UserError("the target has no address")
        return self.site.passage(Target(self.address, (self.server_port or reachability.DISCARD,)))

    @property
    def server_port(self) -> int | None:
        """The target's own port."""
        return self.port

    @property
    def container(self) -> Container | None:
        """The target, where it is a container."""
        return None

    @cached_property
    def target(self) -> Asked:
        """What was asked for, or else the container of the doctor's own."""
        return self.wanted or Asked("", self.container.name if self.container else "the server")

    def look_at_profile(self) -> Check:
        """See `diagnosis.profile`."""
        live = {client.name for client in read_generation(self.project).live_clients}
        revoked = self.facts.client not in live
        return diagnosis.profile(self.facts, self.shown, datetime.now(UTC), self.renewal, revoked)

    def look_at_services(self) -> Check:
        """See `checks.parts`."""
        try:
            return checks.parts(self.condition.parts, self.site.up)
        except UserError as error:
            problem = str(error).partition(":")[0]
            return Check("services", "failed", problem, f"mend it with `{self.site.up}`", self.site.up)

    def look_at_contests(self) -> Check:
        """See `diagnosis.contested`."""
        return diagnosis.contested(self.condition.contests, self.facts)

    def look_at_rejections(self) -> Check:
        """See `diagnosis.rejected`."""
        is_connected = any(one.address.ip in self.subnet for one in self.own)
        return diagnosis.rejected(self.site.rejections(), self.facts, self.shown, is_connected)

    def look_at_network(self) -> Check:
        """See `diagnosis.network`."""
        if self.wanted is None:
            return not_checked("network", "no target was given")
        return diagnosis.network(self.target, None, self.address, self.answers.routes)

    def look_at_port(self) -> Check:
        """See `diagnosis.port`."""
        if self.address is None or self.address in self.subnet:
            return not_checked("port", "no target was given")
        return diagnosis.port(self.target, self.container, self.passage, self.server_port, None)


class _WayToEngine(_WayToSite):
    """The way to a container of an engine, for who has the project."""

    site: EngineSite

    def __init__(
        self, profile: Path, wanted: Asked | None, project: Path, answers: Answers, site: EngineSite, stack: ExitStack
    ) -> None:
        super().__init__(profile, wanted, project, answers, site)
        self._stack = stack

    def layers(self) -> Sequence[Layer]:
        """All of them."""
        return [
            ("profile", self.look_at_profile),
            ("engine", self.look_at_engine),
            ("disk", self.look_at_disk),
            ("services", self.look_at_services),
            ("server", self.look_at_server),
            ("address", self.look_at_contests),
            ("client", self.look_at_rejections),
            ("target", self.look_at_target),
            ("network", self.look_at_network),
            ("tunnel", self.look_at_tunnel),
            ("route", self.look_at_route),
            ("forwarding", self.look_at_forwarding),
            ("packet filter", self.look_at_packet_filter),
            ("port", self.look_at_port),
            ("MTU", self.look_at_mtu),
            ("answer", self.look_at_answer),
            *self.layers_of_names(),
        ]

    def logs(self) -> dict[str, str]:
        """What the services have said lately."""
        try:
            self.site.engine()  # or there are none
            return dict(self.site.logs())
        except UserError as error:
            return {"error": str(error)}

    @cached_property
    def site_facts(self) -> EngineFacts:
        """What is on the engine. Raises UserError."""
        return self.site.facts()

    @cached_property
    def names(self) -> Sequence[Name]:
        """The names that containers have."""
        domain = self.answers.dns_domain
        return names(self.site_facts.containers, domain, self.answers.routes)[0] if domain else ()

    @cached_property
    def found(self) -> tuple[Container | None, IPv4Address | None]:
        """The container and its address."""
        if self.wanted is None:
            example = self._stack.enter_context(self.site.example())
            places = (place for place in example.attachments if place.address)
            return example, next((place.address for place in places), None)
        container, address = diagnosis.find(
            self.wanted, self.site_facts.containers, self.names, self.answers.dns_domain
        )
        if container and address is None:
            reached = (
                place.address
                for place in container.attachments
                if reachability.of_attachment(place, self.answers.routes).reached
            )
            address = next(reached, None)
        return container, address

    @property
    def container(self) -> Container | None:
        """The one that is wanted."""
        return self.found[0]

    @cached_property
    def address(self) -> IPv4Address | None:
        """Its address."""
        return self.found[1]

    @property
    def server_port(self) -> int | None:
        """The container's own port, which the proxy leads to where it has no port 80 or 443."""
        if self.wanted and self.wanted.port:
            return self.wanted.port
        exposed = [port for port in self.container.ports if port.endswith("/tcp")] if self.container else []
        own = declared_port(self.container) if self.container else None
        return own or (int(exposed[0].removesuffix("/tcp")) if exposed else None)

    @property
    def port(self) -> int | None:
        """The port that this computer is to come to."""
        return (self.wanted.port if self.wanted else None) or self.server_port

    @property
    def bridges(self) -> Sequence[str]:
        """Devices of this computer's own engine."""
        facts = self.site_facts
        return () if facts.engine.host else [one.bridge or f"br-{one.id[:12]}" for one in facts.networks]

    def look_at_engine(self) -> Check:
        """See `checks.engine`."""
        return checks.engine(self.site.engine())

    def look_at_disk(self) -> Check:
        """See `diagnosis.disk`."""
        return diagnosis.disk(self.site.full_disks())

    def look_at_target(self) -> Check:
        """See `diagnosis.target`."""
        state = None if self.container or self.address else self.site.state(self.target.host)
        return diagnosis.target(self.target, self.container, self.address, state)

    def look_at_network(self) -> Check:
        """See `diagnosis.network`."""
        return diagnosis.network(self.target, self.container, self.address, self.answers.routes)

    def look_at_forwarding(self) -> Check:
        """See `diagnosis.forwarding`."""
        return diagnosis.forwarding(self.passage)

    def look_at_packet_filter(self) -> Check:
        """See `diagnosis.packet_filter`."""
        known = checks.packet_filter(self.site_facts.engine.firewall_backend)
        if known.verdict == "failed" or self.address is None:
            return known
        return diagnosis.packet_filter(self.passage, self.site_facts.engine, self.address)

    def look_at_port(self) -> Check:
        """See `diagnosis.port`."""
        return diagnosis.port(self.target, self.container, self.passage, self.server_port, self._listeners())

    def _listeners(self) -> Sequence[Listener] | None:
        if self.container is None or self.passage.answers.get(self.server_port or 0) == "accepted":
            return None
        return self.site.listeners(self.container.name)

    def look_at_mtu(self) -> Check:
        """See `diagnosis.mtu`."""
        return diagnosis.mtu(self.passage, self.target.host)

    @property
    def name(self) -> str | None:
        """The container's name, where one was asked for by it."""
        if self.wanted is None or self.address is None:
            return None
        if self.wanted.scheme and self.container and self.wanted.host == self.container.name:
            return f"{self.wanted.host}.{self.answers.dns_domain}" if self.answers.dns_domain else None
        return super().name
