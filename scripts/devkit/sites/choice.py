"""The one place where a site is chosen."""

from collections.abc import Sequence
from pathlib import Path

from devkit.answers import Answers
from devkit.sites.site import Site


def host_of_server(kubernetes: bool) -> str | None:
    """Where the server is, as far as Docker's context says; of a cluster it says nothing."""
    if kubernetes:
        return None
    from devkit.sites.docker import host_of_context  # noqa: PLC0415 -- a cluster's commands do without

    return host_of_context()


def choose(
    project: Path, answers: Answers, kubernetes: bool, context: str | None = None, values: Sequence[Path] = ()
) -> Site:
    """The engine, or the cluster of kubectl's current context or of another. Raises UserError."""
    if kubernetes:
        from devkit.sites.cluster import ClusterSite  # noqa: PLC0415 -- whoever chooses one does not need the other

        return ClusterSite(project, answers, context, values)
    from devkit.sites.engine import EngineSite  # noqa: PLC0415 -- whoever chooses one does not need the other

    return EngineSite(project, answers)
