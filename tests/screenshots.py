"""Pictures of the page in its states, by a real Chromium: `make screenshots`. Look at them before you commit them."""

import base64
import shutil
import sys
from pathlib import Path

from tests import page
from tests.browser import Browser, chromium
from tests.conftest import copy_project
from tests.docker_desktop import WEB_IMAGE, lab
from tests.docker_desktop.computer import resolver
from tests.vpn import connected, up

FOLDER = Path(__file__).resolve().parents[1] / "docs/screenshots"
MOST_BYTES = 150_000
APPLICATION = Path(__file__).resolve().parent / "tunnel/application.py"
REAL = {
    "page": "https://d4m.internal/", "web": "https://web.d4m.internal/", "api": "https://api.shop.d4m.internal/",
}  # fmt: skip


def take(
    browser: Browser, name: str, state: page.State, width: int = 1200, height: int = 860, dark: bool = False,
    scale: float = 1,
) -> None:  # fmt: skip
    """Write one picture: the page from its top to its end, if that is within the height."""
    with page.page_server(state) as server:
        tab = browser.open(server.url, width, 200, dark)
        tab.wait_for_text("Live")
        tab.resize(width, min(height, tab.value("document.documentElement.scrollHeight")), scale)
        picture = tab.picture()
        browser.close_tabs()
    keep(name, picture)


COMPOSE = f"""
services:
  web: {{image: '{WEB_IMAGE}'}}
  api:
    image: d4m-devkit-proxy
    command: [python3, /application.py, "3000"]
    expose: ["3000"]
    volumes: ["{{home}}/application.py:/application.py:ro"]
  db: {{image: 'debian:trixie-slim', command: sleep infinity, expose: ["5432"]}}
"""


def take_the_real_ones() -> None:
    """A project that is up in a lab, and a browser on its computer, set up by `host.py install` alone."""
    with lab() as (mac, _), resolver(mac, "forky") as computer:
        project, shop = copy_project(Path(mac.home) / "devkit"), Path(mac.home) / "shop"
        up(mac, project)
        shutil.copy(APPLICATION, mac.home)
        shop.mkdir()
        (shop / "compose.yaml").write_text(COMPOSE.replace("{home}", str(mac.home)))
        mac.run("docker", "compose", "up", "--detach", cwd=shop)
        mac.run("docker", "network", "create", "--subnet", "192.168.7.0/24", "old")
        mac.run("docker", "run", "--detach", "--name", "web", WEB_IMAGE)
        mac.run("docker", "run", "--detach", "--name", "legacy", "--network", "old", WEB_IMAGE)
        with connected(mac, project / "local/docker-for-mac.ovpn"):
            install = ("scripts/host.py", "install", "--yes")
            mac.run("env", f"HOME={computer.home}", sys.executable, *install, cwd=project)
            for name, url in REAL.items():
                # What Chromium warns of would be in the picture.
                options = ["--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=8000", "--window-size=1200,500"]
                computer.run("chromium-headless-shell", *options, "--screenshot=/root/picture.png", url)
                picture = computer.run("base64", "/root/picture.png").stdout
                keep(name, base64.b64decode(picture))


def keep(name: str, picture: bytes) -> None:
    """Write one picture."""
    if len(picture) > MOST_BYTES:
        raise SystemExit(f"error: {name}.png has {len(picture)} bytes: give it a smaller window")
    (FOLDER / f"{name}.png").write_bytes(picture)
    print(f"{name}.png: {len(picture) // 1000} kB")


def main() -> None:
    """Take them all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        take(browser, "nothing-running", page.state())
        take(browser, "three-projects", page.three_projects())
        take(browser, "sixty-containers", page.sixty_containers(), height=740)
        take(browser, "unreachable", page.unreachable())
        take(browser, "hostile-names", page.hostile() | {"warnings": page.HOSTILE[:2]}, height=740)
        take(browser, "expiry-warning", page.expiring(), height=700)
        take(browser, "dark", page.three_projects(), dark=True)
        take(browser, "phone", page.three_projects(), width=390, height=844, scale=2)
    take_the_real_ones()


if __name__ == "__main__":
    main()
