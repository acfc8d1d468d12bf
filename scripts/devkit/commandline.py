"""What the commands' entry points share: options, and errors turned into one sentence and an exit code."""

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from devkit.answers import Answers
from devkit.checks import Check
from devkit.errors import UserError
from devkit.layout import Layout
from devkit.sites.choice import choose
from devkit.sites.site import Site, Step

NOT_AS_IT_SHOULD_BE = 3  # the exit code where something that should work does not
WIDE = 1000  # more than any line has: what a program reads is not folded
DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT)
CONFLICT_MARKER = re.compile(rb"(<{7}|={7}|>{7})(\s|\Z)")


def parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the options that every command has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def add_site_options(made: argparse.ArgumentParser, values: bool = False) -> None:
    """Add the options that choose a cluster and, with `values`, the one that names values for its chart."""
    made.add_argument("--kubernetes", action="store_true", help="in the cluster of kubectl's current context")
    made.add_argument("--context", metavar="NAME", help="with --kubernetes: another context of the kubeconfig")
    if values:
        made.add_argument(
            "--values", metavar="FILE", type=Path, action="append", default=[],
            help="with --kubernetes: values for the chart, on top of local/values.yaml; may be repeated",
        )  # fmt: skip


def site(project: Path, answers: Answers, options: argparse.Namespace) -> Site:
    """Where the user wants the server."""
    return choose(project, answers, options.kubernetes, options.context, getattr(options, "values", []))


def project_folder() -> Path:
    """Where the user works: the current folder, or else the project that the script belongs to.

    Raises UserError when a merge has left a conflict in it, which would end up in profiles and in what runs.
    """
    here, home_of_script = Path.cwd(), Path(sys.argv[0]).absolute().parent.parent
    project = here if Layout(here).answers.exists() or not Layout(home_of_script).answers.exists() else home_of_script
    _refuse_conflicts(project)
    return project


def _refuse_conflicts(project: Path) -> None:
    for path in Layout(project).merged:
        lines = path.read_bytes().splitlines() if path.exists() else []
        for number, line in enumerate(lines, start=1):
            if CONFLICT_MARKER.match(line):
                raise UserError(
                    f"{path}:{number} holds a conflict marker of a merge: resolve the conflict there, then try again."
                )


def show(result: RenderableType) -> None:
    """Print a result: as wide as the terminal, or in whole lines with no padding when a program reads it."""
    console = Console()
    if console.is_terminal:
        console.print(result, crop=False)
        return
    text = StringIO()
    Console(file=text, width=WIDE).print(result)
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines()), flush=True)


@contextmanager
def redrawn() -> Iterator[Callable[[RenderableType], None]]:
    """Give what shows a result in the place of the one before, or below it when a program reads it."""
    console = Console()
    if not console.is_terminal:
        yield show
        return
    with Live(console=console, refresh_per_second=2) as live:  # also where nothing changes but the terminal's size
        yield lambda result: live.update(result, refresh=True)


def messages() -> Console:
    """Where progress, warnings and errors go."""
    return Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)  # a file's name may be :key:


def warn(sentences: Iterable[str]) -> None:
    """Print warnings."""
    for sentence_ in sentences:
        messages().print(f"warning: {sentence_}", style="yellow", markup=False)


def follow(progress: Console, step: Step) -> None:
    """Show a step's latest line while it runs, and one line when it is done.

    Where there is no terminal, its lines are printed if they are in our own words.
    """
    before = None
    with progress.status(step.what) as status:
        for line in step.lines:
            status.update(Text(f"{step.what}: {line}", overflow="ellipsis", no_wrap=True))
            if step.in_our_words and line != before and not progress.is_terminal:
                progress.print(f"{step.what}: {line}", markup=False)
            before = line
    progress.print(f"{step.what}: done", style="dim", markup=False)


def run(
    parser_: argparse.ArgumentParser, body: Callable[[argparse.Namespace], int | None], arguments: Sequence[str]
) -> int:
    """Parse the arguments, run the body, and return the exit code, which the body may choose."""
    options = parser_.parse_args(arguments)
    # Where there are no subcommands, the engine is meant unless the user says otherwise.
    if "command" not in options and getattr(options, "kubernetes", None) is False and _is_for_a_cluster(options):
        parser_.error("--context and --values go with --kubernetes")
    try:
        code = body(options) or 0
        print(end="", flush=True)  # while it can still be caught that nobody reads it
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, OSError) as error:
        if options.debug:
            raise
        messages().print("error:", sentence(error), style="red", markup=False)
        return 1
    return code


def agreed(question: str) -> bool:
    """Ask at the terminal; whatever is no yes is a no."""
    try:
        return input(f"\n{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def code_of(health: Iterable[Check]) -> int:
    """The exit code for checks that may have failed."""
    return NOT_AS_IT_SHOULD_BE if any(one.verdict == "failed" for one in health) else 0


def _is_for_a_cluster(options: argparse.Namespace) -> bool:
    return bool(options.context or getattr(options, "values", None))


def sentence(error: UserError | OSError) -> str:
    """Say an error in one line."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    place = error.filename2 or error.filename or "standard output or a temporary file"
    if error.errno in DISK_IS_FULL:
        return f"{place} cannot be written ({error.strerror}): make room there, then run this again."
    return f"{place}: {error.strerror}." if error.filename else str(error)
