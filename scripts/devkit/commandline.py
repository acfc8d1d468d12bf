"""What the commands' entry points share: options, and errors turned into one sentence and an exit code."""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from devkit.answers import ANSWERS_FILE
from devkit.errors import UserError

WIDE = 200
# What the commands render from and run; a merge may leave a conflict in each.
MERGED_FILES = (ANSWERS_FILE, "client/client.conf", "compose.yaml", "server/server.conf")
CONFLICT_MARKER = re.compile(rb"(<{7}|={7}|>{7})(\s|\Z)")


def parser(description: str) -> argparse.ArgumentParser:
    """Make a parser with the options that every command has."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return made


def add_cluster_options(made: argparse.ArgumentParser) -> None:
    """Add the options that choose a cluster."""
    made.add_argument("--kubernetes", action="store_true", help="in the cluster of kubectl's current context")
    made.add_argument("--context", metavar="NAME", help="with --kubernetes: another context of the kubeconfig")


def project_folder() -> Path:
    """Where the user works: the current folder, or else the project that the script stands in.

    Raises UserError when a merge has left a conflict in it, which would end up in profiles and in what runs.
    """
    here = Path.cwd()
    home_of_script = Path(sys.argv[0]).absolute().parent.parent
    project = here if (here / ANSWERS_FILE).exists() or not (home_of_script / ANSWERS_FILE).exists() else home_of_script
    _refuse_conflicts(project)
    return project


def _refuse_conflicts(project: Path) -> None:
    for path in (project / name for name in MERGED_FILES):
        lines = path.read_bytes().splitlines() if path.exists() else []
        for number, line in enumerate(lines, start=1):
            if CONFLICT_MARKER.match(line):
                raise UserError(
                    f"{path}:{number} holds a conflict marker of a merge: settle the conflict there, then try again."
                )


def show(result: RenderableType) -> None:
    """Print a result: as wide as the terminal, or in whole lines with no padding when a program reads it."""
    console = Console()
    if console.is_terminal:
        console.print(result, crop=False)
        return
    text = StringIO()
    Console(file=text, width=WIDE).print(result)
    print("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def messages() -> Console:
    """Where progress, warnings and errors go."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


def warn(sentences: Iterable[str]) -> None:
    """Print warnings."""
    for sentence_ in sentences:
        messages().print(f"warning: {sentence_}", style="yellow", markup=False)


def warn_of_older(up: str) -> None:
    """Warn that the running server has not read what the project says by now; `up` is the command that mends it."""
    warn([f"what runs is older than what is in this folder: `{up}` loads it."])


def follow(progress: Console, what: str, lines: Iterable[str], keep: bool = False) -> None:
    """Show a step's last line while it lasts, and one line when it is done.

    With `keep`, which is for our own words and not for a build's hundreds, each line stays where there is no terminal.
    """
    before = None
    with progress.status(what) as status:
        for line in lines:
            status.update(Text(f"{what}: {line}", overflow="ellipsis", no_wrap=True))
            if keep and line != before and not progress.is_terminal:
                progress.print(f"{what}: {line}", markup=False)
            before = line
    progress.print(f"{what}: done", style="dim")


def run(parser_: argparse.ArgumentParser, body: Callable[[argparse.Namespace], None], arguments: Sequence[str]) -> int:
    """Parse the arguments, run the body, and return the exit code."""
    options = parser_.parse_args(arguments)
    try:
        body(options)
    except KeyboardInterrupt:
        return 130
    except (UserError, OSError) as error:
        if options.debug:
            raise
        messages().print("error:", sentence(error), style="red", markup=False)
        return 1
    return 0


def sentence(error: UserError | OSError) -> str:
    """Say an error in one line."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    return str(error)
