"""What the scripts take themselves, beside what they use: Copier, Compose, and the engine that is asked.

Each pair is run in turn, many times. Timings differ from machine to machine and from run to run: the ratios count.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.conftest import REPOSITORY, copy_project
from tests.docker_desktop import BASE_IMAGE, Mac, lab
from tests.vpn import script, up

ROUNDS = 9
MANY = 120
COMPOSE = ("docker", "compose", "up", "--detach", "--wait")


def seconds(work: Callable[[], object]) -> float:
    """How long the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(*works: Callable[[], object]) -> list[float]:
    """How long each takes, in seconds, if they are done in turn."""
    return [
        statistics.median(each)
        for each in zip(*([seconds(work) for work in works] for _ in range(ROUNDS)), strict=True)
    ]


def copy(folder: Path, *options: str) -> None:
    """Scaffold a project, as its user does."""
    with tempfile.TemporaryDirectory(dir=folder) as target:
        command = ["copier", "copy", "--trust", "--defaults", "--quiet", "--vcs-ref=HEAD", *options]
        subprocess.run([sys.executable, "-m", *command, str(REPOSITORY), f"{target}/devkit"], check=True)


def settings_of(mac: Mac) -> list[str]:
    """What up.py gives to Compose, as the containers have it: else Compose would start them anew."""
    labels: dict[str, str] = {}
    for service in ("vpn", "proxy"):
        inspect = ("docker", "inspect", "--format", "{{json .Config.Labels}}", f"d4m-devkit-{service}-1")
        labels |= json.loads(mac.run(*inspect).stdout)
    return [f"D4M_{name.upper()}={labels[f'd4m-devkit.{name}']}" for name in ("material", "server", "https")]


def run_containers(mac: Mac, count: int) -> None:
    """Start containers that do nothing."""
    start = f"docker run --detach --network=none {BASE_IMAGE} sleep infinity"
    mac.run("sh", "-c", f"seq {count} | xargs --max-procs=4 -I% {start}", timeout=600)


def main() -> None:
    """Print the medians side by side."""
    table = Table("what", "s", "beside", "s", "ratio", box=None)

    def row(what: str, took: float, beside: str, other: float) -> None:
        table.add_row(what, f"{took:.2f}", beside, f"{other:.2f}", f"{took / other:.2f}")

    with tempfile.TemporaryDirectory() as folder:
        ours, alone = medians(lambda: copy(Path(folder)), lambda: copy(Path(folder), "--skip-tasks"))
        row("copier copy", ours, "without the hook", alone)
    with lab() as (mac, _):
        project = copy_project(mac.home / "devkit")
        up(mac, project)
        time.sleep(40)  # the engine's own health checks have passed once
        compose = ["env", *settings_of(mac), *COMPOSE]
        ours, alone = medians(lambda: script(mac, project, "up"), lambda: mac.run(*compose, cwd=project))
        row("up.py on a running stack", ours, " ".join(COMPOSE), alone)
        none = medians(lambda: script(mac, project, "status"))[0]
        run_containers(mac, MANY)
        many = medians(lambda: script(mac, project, "status"))[0]
        row(f"status.py with {MANY} containers", many, "with none", none)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
