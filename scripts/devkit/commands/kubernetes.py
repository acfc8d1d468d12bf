"""up, down and status for a server in a Kubernetes cluster."""

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from devkit import checks, commandline, host
from devkit.answers import CHANGE_ANSWER, Answers, read_answers
from devkit.cluster import NAMESPACE, ClusterTools
from devkit.cluster_report import as_document, as_text, make_report
from devkit.errors import UserError
from devkit.facts import Cluster, ClusterEndpoint
from devkit.material import ensure_material, faults, fingerprint_for_cluster, local_folder, read_generation
from devkit.stack import Stack

Command = Callable[[argparse.Namespace], None]


def add_options(parser: argparse.ArgumentParser, values: bool = False) -> None:
    """Add the options that choose a cluster, and what its chart is given."""
    commandline.add_cluster_options(parser)
    if values:
        parser.add_argument(
            "--values", metavar="FILE", type=Path, action="append", default=[],
            help="with --kubernetes: values for the chart, beside local/values.yaml; may be given again",
        )  # fmt: skip


def or_else(parser: argparse.ArgumentParser, in_cluster: Command, on_engine: Command) -> Command:
    """Run the one or the other as --kubernetes says."""

    def choose(options: argparse.Namespace) -> None:
        if not options.kubernetes and (options.context or getattr(options, "values", None)):
            parser.error("--context and --values go with --kubernetes")
        (in_cluster if options.kubernetes else on_engine)(options)

    return choose


def up(options: argparse.Namespace) -> None:
    """Check, build and push the image, install the chart, wait until it is ready, and print the report."""
    project = commandline.project_folder()
    answers = read_answers(project)
    checks.check_ends(read_generation(project))
    missing = [path for path in options.values if not path.is_file()]
    if missing:
        raise UserError(f"{missing[0]} is not there: give --values a file of chart values.")
    tools = ClusterTools(project, options.context)
    cluster = tools.cluster()
    stack = Stack(project, answers)
    engine = stack.engine()
    _check_subnet(answers, cluster)
    # This computer may be a node itself, and the engine's host.
    bridges = [subnet for network in stack.networks() if engine.local for subnet in network.subnets]
    checks.check_routes(answers, [*cluster.pod_networks, *cluster.service_networks, *bridges])
    if answers.service_type != "NodePort" and host.is_loopback(answers.vpn_host) and tools.endpoint() is None:
        checks.check_port(answers)
    tools.check_namespace()

    ensure_material(project, answers, datetime.now(UTC).replace(microsecond=0))  # server.conf is a part of the values
    progress = commandline.messages()
    settings = {}
    if answers.image_registry:
        platforms = sorted({f"linux/{node.architecture}" for node in cluster.nodes if node.architecture})
        commandline.follow(progress, f"Building and pushing {answers.image}", stack.push(platforms))
        settings["image.digest"] = stack.pushed_digest()
    else:
        stack.require_compose()
        commandline.follow(progress, "Building the image", stack.build())
        settings["image.tag"] = stack.tag_by_content()
    installation = tools.install(answers, settings, [path.absolute() for path in options.values])
    commandline.follow(progress, f"Installing the chart in {cluster.context}", installation, keep=True)
    _show_report(project, answers, tools, cluster, as_json=options.json)


def down(options: argparse.Namespace) -> None:
    """Remove the release, and the namespace if `up` made it."""
    project = commandline.project_folder()
    answers = read_answers(project)
    tools = ClusterTools(project, options.context)
    tools.cluster()
    progress = commandline.messages()
    with progress.status("Removing the chart"):
        there = tools.uninstall()
    if options.images:
        Stack(project, answers).remove_images()
    progress.print("Everything is down." if there else f"There was no devkit in {tools.context}.", markup=False)


def status(options: argparse.Namespace) -> None:
    """Print the report and change nothing."""
    project = commandline.project_folder()
    answers = read_answers(project)
    commandline.warn(faults(project, answers))
    fingerprint = fingerprint_for_cluster(project, answers)
    tools = ClusterTools(project, options.context)
    cluster = tools.cluster()
    _show_report(project, answers, tools, cluster, as_json=options.json)
    if tools.fingerprint() not in (None, fingerprint):
        commandline.warn_of_older(f"python scripts/up.py --kubernetes{tools.context_option}")


def _check_subnet(answers: Answers, cluster: Cluster) -> None:
    for network in (*cluster.pod_networks, *cluster.service_networks):
        if network.overlaps(answers.vpn_subnet):
            raise UserError(
                f"vpn_subnet {answers.vpn_subnet} overlaps the cluster's own network {network}: choose another with "
                f"`{CHANGE_ANSWER} vpn_subnet=A.B.C.0/24`."
            )


def _leads_to(endpoint: ClusterEndpoint, answers: Answers) -> bool:
    """Whether the host that the profiles name is where the server's Service is."""
    if any(host.same(answers.vpn_host, other) for other in endpoint.hosts):
        return True
    # The ports of a cluster in a virtual machine (Docker Desktop's, Colima's) are ports of this computer, too.
    on_this_computer = answers.vpn_protocol == "tcp" and host.is_loopback(answers.vpn_host)
    return on_this_computer and host.answers(answers.vpn_host, answers.vpn_port)


def _show_report(project: Path, answers: Answers, tools: ClusterTools, cluster: Cluster, as_json: bool) -> None:
    endpoint = tools.endpoint()
    if endpoint is None:
        raise UserError(
            f"there is no devkit in the namespace {NAMESPACE} of {cluster.context}: bring it up with "
            f"`python scripts/up.py --kubernetes{tools.context_option}`."
        )
    services = [service for service in tools.services() if service.namespace != NAMESPACE]
    pods = [pod for pod in tools.pods() if pod.namespace != NAMESPACE]
    report = make_report(
        answers, cluster, endpoint, services, pods, local_folder(project), read_generation(project),
        _leads_to(endpoint, answers), datetime.now(UTC),
    )  # fmt: skip
    if as_json:
        print(json.dumps(as_document(report), indent=2))
    else:
        commandline.show(as_text(report, host.operating_system(), Path.cwd()))
