"""What HTTPS costs: the same container fetched through the proxy, and straight from its own port, one after the other.

Timings differ from machine to machine and from run to run: the ratios are what counts.
"""

import shutil
import statistics
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.conftest import copy_project
from tests.docker_desktop import Mac, lab
from tests.vpn import connected, eventually, up

DNS = "10.213.94.1"
ROUNDS = 5
MEGABYTES = 256
APPLICATION = Path(__file__).resolve().parents[1] / "tunnel/application.py"


def fetch(mac: Mac, url: str, what: str, *options: str) -> float:
    """What curl measures, such as `time_total` in seconds."""
    said = mac.run("curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", *options,
                   "--write-out", f"%{{{what}}}", url)  # fmt: skip
    return float(said.stdout)


def main() -> None:
    """Print the medians side by side."""
    with lab() as (mac, _):
        project = copy_project(Path(mac.home) / "devkit")
        up(mac, project)
        shutil.copy(APPLICATION, mac.home)
        mac.run(
            "docker", "run", "--detach", "--name", "app", "--expose=3000",
            f"--volume={mac.home}/{APPLICATION.name}:/application.py:ro", "d4m-devkit-proxy", "python3",
            "/application.py", "3000",
        )  # fmt: skip
        template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        address = mac.run("docker", "inspect", "--format", template, "app").stdout.strip()
        trusted = ["--cacert", f"{project}/local/https/root.crt", "--resolve", f"app.d4m.internal:443:{address}"]
        ways = {"https": ("https://app.d4m.internal", trusted), "straight": (f"http://{address}:3000", [])}
        found: dict[tuple[str, str], list[float]] = {}
        with connected(mac, project / "local/docker-for-mac.ovpn"):
            eventually(lambda: mac.run("curl", "--fail", *trusted, ways["https"][0], check=False).returncode == 0)
            for _round in range(ROUNDS):
                for way, (url, options) in ways.items():
                    big = f"{url}/download?megabytes={MEGABYTES}"
                    speed = fetch(mac, big, "speed_download", *options) / 1e6 * 8
                    found.setdefault(("download, Mbit/s", way), []).append(speed)
                    for _ in range(10):
                        seconds = fetch(mac, f"{url}/", "time_total", *options)
                        found.setdefault(("a new connection and its answer, ms", way), []).append(seconds * 1000)
        shutil.rmtree(project)
    table = Table("what", "https://app.d4m.internal", f"http://{address}:3000", "ratio", box=None)
    for what in dict.fromkeys(what for what, _ in found):
        ours, beside = (statistics.median(found[what, way]) for way in ways)
        table.add_row(what, f"{ours:.1f}", f"{beside:.1f}", f"{ours / beside:.2f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
