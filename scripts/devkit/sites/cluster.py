"""A Kubernetes cluster as the place where the server runs: the release of chart/."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from devkit import checks, host, vpn
from devkit.answers import Answers
from devkit.checks import Check
from devkit.errors import UserError
from devkit.facts import ClusterEndpoint, ClusterFacts, Condition, Contest, Facts, Part, Passage, Session, Target
from devkit.keys.model import Generation
from devkit.material import values
from devkit.material.state import chart_values, read_generation
from devkit.sites import kubernetes, probe
from devkit.sites.docker import Docker
from devkit.sites.image import Image, are_built, build
from devkit.sites.kubectl import Kubectl
from devkit.sites.ownership import SERVER
from devkit.sites.pods import is_leaving, is_ready, states
from devkit.sites.release import NAMESPACE, SERVERS, Release
from devkit.sites.site import Refusal, Step
from devkit.vpn.lane import Inside, Rejection


class ClusterSite:
    """See `site.Site`. `values` are files with the user's own values for the chart."""

    def __init__(self, project: Path, answers: Answers, context: str | None, values_: Sequence[Path] = ()) -> None:
        missing = [path for path in values_ if not path.is_file()]
        if missing:
            raise UserError(f"{missing[0]} does not exist: give --values a file of chart values.")
        self._project = project
        self._answers = answers
        self._values = [path.absolute() for path in values_]
        self._kubectl = Kubectl(project, context)
        self._release = Release(self._kubectl, project, answers)
        self._docker = Docker(project)
        self._image = Image(self._docker, answers.image, project)

    @property
    def up(self) -> str:
        """The command for this cluster."""
        return f"./scripts/up.py --kubernetes{self._kubectl.context_option}"

    def checks(self, generation: Generation, now: datetime) -> Iterator[Check]:
        """The server's certificate, the cluster, the engine that builds the image, the networks, the port."""
        answers = self._answers
        yield checks.server_certificate(generation, now)
        cluster = kubernetes.cluster(self._kubectl)
        yield checks.check("cluster", None, "", f"Kubernetes {cluster.version} (context {cluster.context})")
        engine = self._docker.engine()
        yield checks.engine(engine)
        yield checks.vpn_subnet(answers, [*cluster.pod_networks, *cluster.service_networks])
        # This computer may be a node itself, and the engine's host.
        local = self._docker.networks() if engine.host is None else ()
        bridges = [subnet for network in local for subnet in network.subnets]
        known = [*cluster.pod_networks, *cluster.service_networks, *bridges]
        yield checks.routes(answers, host.interfaces(), known)
        comes_here = answers.service_type != "NodePort" and host.is_loopback(answers.vpn_host)
        if comes_here and self._release.endpoint() is None:
            problem = host.port_problem(answers.vpn_listen, answers.vpn_port, answers.vpn_protocol)
            yield checks.port(answers, problem)
        level = self._release.enforced_pod_security()
        yield checks.pod_security(NAMESPACE, level, self._kubectl.context_option)

    def start(self, anew: bool = False) -> Iterator[Step]:
        """Build or push the image, and install the chart."""
        answers = self._answers
        settings: dict[str, str] = {}
        if answers.image_registry:
            nodes = kubernetes.cluster(self._kubectl).nodes
            platforms = sorted({f"linux/{node.architecture}" for node in nodes if node.architecture})
            yield Step(f"Building and pushing {answers.image}", self._image.push(platforms))
            settings["image.digest"] = self._image.pushed_digest()
        else:
            self._docker.require_compose()
            if anew or not are_built(self._docker, self._project, [self._image]):
                yield Step("Building the image", build(self._docker, self._project, [SERVER], anew))
            settings["image.tag"] = self._image.tag_by_content()
        installation = self._release.install(settings, self._values)
        yield Step(f"Installing the chart in {self._kubectl.context}", installation, in_our_words=True)

    def stop(self, images: bool) -> str:
        """Remove the release, and the namespace if `start` made it."""
        self._kubectl.version()
        there = self._release.uninstall()
        if images:
            self._image.remove()
        return "Everything is down." if there else f"There was no devkit in {self._kubectl.context}."

    def facts(self) -> ClusterFacts:
        """The cluster, the way in, and the user's Services and pods."""
        cluster, endpoint = kubernetes.cluster(self._kubectl), self._release.endpoint()
        if endpoint is None:
            raise UserError(
                f"there is no devkit in the namespace {NAMESPACE} of {cluster.context}: bring it up with `{self.up}`."
            )
        return ClusterFacts(
            cluster=cluster,
            endpoint=endpoint,
            services=tuple(one for one in kubernetes.services(self._kubectl) if one.namespace != NAMESPACE),
            pods=tuple(one for one in kubernetes.pods(self._kubectl) if one.namespace != NAMESPACE),
            profiles_lead_there=self._leads_to(endpoint),
        )

    def condition(self, found: Facts, targets: Iterable[Target], may_run: bool) -> Condition:  # noqa: ARG002 -- an engine's need them
        """Look at the pods, and ask the servers if it may: for that a user needs the right to run programs in pods."""
        pods = [pod for pod in self._release.pods() if not is_leaving(pod)]
        parts = tuple(_part(pod) for pod in pods)
        if not may_run:
            return Condition(parts, reason="this only looks at a cluster, and runs nothing in its pods")
        try:
            inside = next(self._servers(), None)
            if inside is None:
                return Condition(parts, reason="no server is ready")
            return Condition(parts, probe.answers(inside, targets), self.sessions(), self.contests())
        except UserError as error:
            return Condition(parts, reason=str(error).rstrip("."))

    def loaded(self, found: Facts | None = None) -> str | None:  # noqa: ARG002 -- an engine's say it
        """What an annotation of the StatefulSet says."""
        return self._release.fingerprint()

    def fingerprint(self) -> str:
        """A digest of the chart's values."""
        return values.fingerprint_of(chart_values(self._project, self._answers))

    def sessions(self) -> tuple[Session, ...]:
        """Ask the servers of all replicas. Raises UserError when one that is ready does not answer."""
        return tuple(session for inside in self._servers() for lane in vpn.LANES for session in lane.sessions(inside))

    def contests(self) -> tuple[Contest, ...]:
        """Ask the servers of all replicas. Raises as `sessions`."""
        return tuple(contest for inside in self._servers() for lane in vpn.LANES for contest in lane.contests(inside))

    def _servers(self) -> Iterator[Inside]:
        exec_ = self._kubectl.command("exec", "--stdin", "--namespace", NAMESPACE, "--container", "vpn")
        servers = [pod for pod in self._release.pods(SERVERS) if is_ready(pod) and not is_leaving(pod)]
        return ([*exec_, pod["metadata"]["name"], "--"] for pod in servers)

    def rejections(self) -> tuple[Rejection, ...]:
        """Ask the servers of all replicas. Raises as `sessions`."""
        return tuple(one for inside in self._servers() for lane in vpn.LANES for one in lane.rejections(inside))

    def passage(self, target: Target) -> Passage:
        """Ask one of the servers. Raises UserError."""
        inside = next(self._servers(), None)
        if inside is None:
            raise UserError("no server is ready")
        return probe.passage(inside, None, target)

    def refuse(self, client: str) -> Refusal:
        """The chart restarts the servers when another client is revoked, which ends every session once."""
        context = self._kubectl.context
        self._kubectl.version()
        given = self._release.installed_values()
        if given is None:
            return Refusal(False, f"There is no devkit in {context}, so there was no session to end there.")
        if _mounts_folders(given):
            raise UserError(f"the server in {context} reads the folder itself, and restarts with `{self.up}`.")
        self._load(given)
        return Refusal(True, f"{client} is refused in {context}, too; the servers there were restarted.")

    def admit(self) -> None:
        """Nothing is restarted for that. Raises UserError when the server's own certificate has changed meanwhile."""
        given = self._release.installed_values()
        if given is None:
            raise UserError(f"there is no devkit in {self._kubectl.context}.")
        if not _mounts_folders(given):
            certificate = read_generation(self._project).server.certificate_pem.decode()
            if (given.get("material") or {}).get("server.crt", certificate) != certificate:
                raise UserError(f"the server in {self._kubectl.context} has an older certificate.")
            self._load(given)

    def _load(self, given: Mapping[str, Any]) -> None:
        if given.get("existingSecret"):
            raise UserError(
                f"the server in {self._kubectl.context} has its keys from a Secret of your own: bring the new ones "
                f"there and run `{self.up}`."
            )
        part = values.admission_part(chart_values(self._project, self._answers))
        deque(self._release.load(given, part), maxlen=0)

    def _leads_to(self, endpoint: ClusterEndpoint) -> bool:
        """Whether the host that the profiles name is where the server's Service is."""
        answers = self._answers
        if any(host.same(answers.vpn_host, other) for other in endpoint.hosts):
            return True
        # The ports of a cluster in a virtual machine (Docker Desktop's, Colima's) are ports of this computer, too.
        on_this_computer = answers.vpn_protocol == "tcp" and host.is_loopback(answers.vpn_host)
        return on_this_computer and host.accepts_tcp(answers.vpn_host, answers.vpn_port)


def _part(pod: Mapping[str, Any]) -> Part:
    name = pod["metadata"]["name"]
    state = next(states([pod]), None)
    return Part(name, state and state.removeprefix(f"{name}: "))


def _mounts_folders(given: Mapping[str, Any]) -> bool:
    """Whether the server reads the project's own folders, as these values say."""
    return any((given.get("dirPaths") or {}).values())
