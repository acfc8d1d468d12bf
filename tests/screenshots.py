"""Pictures of the page in its states, by a real Chromium: `make screenshots`. Look at them before you commit them."""

from pathlib import Path

from tests import page
from tests.browser import Browser, chromium

FOLDER = Path(__file__).resolve().parents[1] / "docs/screenshots"
MOST_BYTES = 150_000


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


if __name__ == "__main__":
    main()
