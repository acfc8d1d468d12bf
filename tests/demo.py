"""The main job, end to end, with real parts: `make demo`.

Uses the Docker engine of this machine if one answers, else a lab with an engine of its own. A Mac beside it, with no
other way to the containers, connects a stock OpenVPN client and fetches two of them by their addresses.

usage: python -m tests.demo [--keep | --stop]
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rich.console import Console

from tests.docker_desktop import WEB_IMAGE, Mac, kept_labs, lab, mac_beside_this_machine, remove_lab

REPOSITORY = Path(__file__).resolve().parents[1]
ENGINE_SOCKET = Path("/var/run/docker.sock")
HUB_IMAGE = "nginx:alpine"
CONNECT_SECONDS = 30
CONTAINERS = ("d4m-demo-one", "d4m-demo-two")
NETWORK = "d4m-demo"
UNDO = "undo.json"

console = Console(soft_wrap=True, highlight=False)


def main() -> int:
    """Run the demo, or stop the one that was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave everything running")
    parser.add_argument("--stop", action="store_true", help="stop what --keep left running")
    options = parser.parse_args()
    # An end by `kill` tears down as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return stop() if options.stop else demo(options.keep)
    except KeyboardInterrupt:
        console.print("interrupted; everything is torn down", style="yellow")
        return 130
    except subprocess.CalledProcessError as error:
        console.print(f"failed: {shlex.join(error.cmd)}", style="red", markup=False)
        return 1


def demo(keep: bool) -> int:
    """Do the main job and return 0 if both containers answered 200."""
    with ExitStack() as teardown:
        mac: Mac
        if engine_of_this_machine():
            console.print("Using this machine's own Docker engine.")
            mac, image = teardown.enter_context(mac_beside_this_machine(ENGINE_SOCKET, keep)), HUB_IMAGE
        else:
            console.print("No Docker engine answers here: using the lab, a virtual machine with an engine of its own.")
            (mac, _), image = teardown.enter_context(lab(keep=keep)), WEB_IMAGE
        project = mac.home / "devkit"
        with undone(mac, project, keep):
            codes = bring_up_and_fetch(mac, project, image)
            if keep:
                explain(mac, project)
    return 0 if codes == ["200", "200"] else 1


@contextmanager
def undone(mac: Mac, project: Path, keep: bool) -> Iterator[None]:
    """Undo what the demo did on the engine, at once or, when it is kept, in `stop`."""
    commands = [
        mac.command(sys.executable, project / "scripts/down.py", "--images"),
        mac.command("docker", "rm", "--force", *CONTAINERS),
        mac.command("docker", "network", "rm", NETWORK),
    ]
    undo = {"commands": commands, "folder": str(project), "environment": dict(mac.environment)}
    (mac.home / UNDO).write_text(json.dumps(undo))
    try:
        yield
    except BaseException:
        run_undo(mac.home)
        raise
    if not keep:
        console.print("Tearing down: ./scripts/down.py --images, the two containers, the network.")
        run_undo(mac.home)


def run_undo(home: Path) -> None:
    """Run each undoing command; what is not there any more is as good as undone."""
    undo = json.loads((home / UNDO).read_text())
    for command in undo["commands"]:
        subprocess.run(command, check=False, capture_output=True, cwd=home, env=undo["environment"])


def stop() -> int:
    """Stop every kept demo."""
    for folder in kept_labs():
        run_undo(folder / "shared")
        remove_lab(folder)
        console.print(f"stopped {folder}")
    return 0


def explain(mac: Mac, project: Path) -> None:
    """Say how to look around."""
    names = ("DOCKER_HOST", "DOCKER_CONFIG", "PATH")
    settings = [f"{name}={mac.environment[name]}" for name in names if name in mac.environment]
    shell = mac.home / "shell"
    shell.write_text(f"exec {shlex.join(mac.command('env', *settings, 'bash', cwd=project))}\n")
    console.print(
        f"\nEverything is left running.\n  look around:  sh {shell}"
        "\n                (a shell on the Mac: try docker ps, curl http://172.17.0.2, ./scripts/up.py)"
        "\n  stop it:      make demo-stop",
        markup=False,
    )


def engine_of_this_machine() -> bool:
    """Whether this machine has an engine of its own, with Compose, at the usual place."""
    with suppress(OSError, subprocess.CalledProcessError):
        for command in (["version"], ["compose", "version"]):
            subprocess.run(["docker", "--host", f"unix://{ENGINE_SOCKET}", *command], check=True, capture_output=True)
        return True
    return False


def bring_up_and_fetch(mac: Mac, project: Path, image: str) -> list[str]:
    """Scaffold, bring up, connect, fetch; return the two status codes."""
    step(mac, sys.executable, "-m", "copier", "copy", "--trust", "--defaults", "--quiet", REPOSITORY, project)
    step(mac, "docker", "network", "create", NETWORK)
    step(mac, "docker", "run", "--detach", "--name", CONTAINERS[0], image)
    step(mac, "docker", "run", "--detach", "--name", CONTAINERS[1], "--network", NETWORK, image)
    console.print(step(mac, "./scripts/up.py", cwd=project).stdout, markup=False)
    connect(mac, project)
    return [fetch(mac, name) for name in CONTAINERS]


def step(mac: Mac, *command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Show a command and run it on the Mac."""
    show(mac, shlex.join(map(str, command)))
    return mac.run(*command, cwd=cwd, timeout=900)


def show(mac: Mac, command: str) -> None:
    """Print a command as the user would type it."""
    for long, short in ((f"{mac.home}/devkit/", ""), (f"{mac.home}/", ""), (f"{sys.executable} -m copier", "copier"),
                        (str(REPOSITORY), "d4m-devkit")):  # fmt: skip
        command = command.replace(long, short)
    console.print(f"mac$ {command}", style="bold", markup=False)


def connect(mac: Mac, project: Path) -> None:
    """Connect a stock OpenVPN client with the profile as it is."""
    log = mac.home / "openvpn.log"
    command = ["openvpn", "--config", str(project / "local/docker-for-mac.ovpn")]
    show(mac, f"{shlex.join(command)} &")
    with log.open("w") as output:
        client = mac.start(*command, output=output)
    deadline = time.monotonic() + CONNECT_SECONDS
    while "Initialization Sequence Completed" not in log.read_text():
        if client.poll() is not None or time.monotonic() > deadline:
            console.print(log.read_text(), markup=False)
            raise subprocess.CalledProcessError(1, command)
        time.sleep(0.1)
    console.print("Connected.")


def fetch(mac: Mac, container: str) -> str:
    """Fetch a container's page by its address, show the status line, and return its code."""
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    address = mac.run("docker", "inspect", "--format", template, container).stdout.strip()
    answer = step(mac, "curl", "--silent", "--show-error", "--head", "--max-time", "10", f"http://{address}").stdout
    status_line = answer.partition("\n")[0].strip()
    console.print(status_line, style="green", markup=False)
    return status_line.split(" ")[1]


if __name__ == "__main__":
    sys.exit(main())
