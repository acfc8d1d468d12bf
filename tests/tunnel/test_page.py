"""The page of everything that runs, in a real browser: what it shows, that it is live, and that values are texts."""

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import page
from tests.browser import Browser, Tab, chromium
from tests.page import PageServer

SECONDS = 2  # between two looks at state.json
STATES = {"nothing": page.state(), "three": page.three_projects(), "sixty": page.sixty_containers(),
          "unreachable": page.unreachable(), "hostile": page.hostile(), "expiring": page.expiring()}  # fmt: skip
# The least contrast of a text with what is behind it, and the text. WCAG 2.2, 1.4.3, wants 4.5.
LEAST_CONTRAST = """(() => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => numbers(colour).slice(0, 3)
    .map((one) => one / 255).map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, place) => sum + one * [0.2126, 0.7152, 0.0722][place], 0);
  const behind = (node) => {
    const colour = node ? getComputedStyle(node).backgroundColor : "rgb(255, 255, 255)";
    return numbers(colour)[3] === 0 ? behind(node.parentElement) : colour;
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let least = [21, ""];
  while (texts.nextNode()) {
    const node = texts.currentNode.parentElement;
    if (!texts.currentNode.data.trim() || !node.checkVisibility()) continue;
    const two = [light(getComputedStyle(node).color), light(behind(node))].sort((one, other) => other - one);
    const contrast = (two[0] + 0.05) / (two[1] + 0.05);
    if (contrast < least[0]) least = [contrast, texts.currentNode.data];
  }
  return least;
})()"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def server(browser: Browser) -> Iterator[PageServer]:
    with page.page_server(page.three_projects()) as serving:
        yield serving
        browser.close_tabs()


def opened(browser: Browser, server: PageServer, **how: Any) -> Tab:
    """The page, once it has its first answer."""
    tab = browser.open(server.url, **how)
    tab.wait_for_text("Live")
    return tab


def names(tab: Tab) -> list[str]:
    """What the containers that are to be seen are called, in order."""
    return list(tab.value("[...document.querySelectorAll('.row .name')].filter((n) => n.checkVisibility())"
                          ".map((n) => n.textContent.replace('.d4m.internal', ''))"))  # fmt: skip


def said_aside(tab: Tab) -> str:
    """What a screen reader says of what has just been done."""
    return str(tab.value("document.querySelector('[role=status]').textContent"))


def test_every_state_is_shown_without_a_complaint_and_nothing_comes_from_elsewhere(
    browser: Browser, server: PageServer
) -> None:
    for name, state in STATES.items():
        server.state = state
        for dark, width in ((False, 1280), (True, 360)):
            tab = opened(browser, server, dark=dark, width=width)
            tab.value("document.querySelectorAll('.more').forEach((button) => button.click())")
            contrast, text = tab.value(LEAST_CONTRAST)
            assert contrast >= 4.5, (name, dark, text)
            assert tab.value("document.documentElement.scrollWidth") == width, name
            nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
            roles = ("button", "link", "searchbox")
            controls = [node for node in nodes if node.get("role", {}).get("value") in roles and not node["ignored"]]
            assert [node for node in controls if not node["name"]["value"]] == []
            assert {urlsplit(url).netloc for url in tab.requests()} == {urlsplit(server.url).netloc}
            assert tab.complaints() == [], name
            browser.close_tabs()
    assert set(server.asked) == {"/", "/page.css", "/page.js", "/state.json"}


def test_hostile_values_are_texts_and_no_more(browser: Browser, server: PageServer) -> None:
    server.state = page.hostile()
    tab = opened(browser, server)
    tab.value("[...document.querySelectorAll('.name, .more, .copy, bdi')]"
              ".filter((node) => !node.closest('[href^=\"https://\"]')).forEach((node) => node.click())")  # fmt: skip
    assert tab.value("typeof window.hurt") == "undefined"
    assert tab.value("document.querySelectorAll('img, b, body script').length") == 0
    assert tab.value("location.href") == server.url
    led = tab.value("[...document.querySelectorAll('a[href]')].map((node) => node.href)")
    assert {urlsplit(url)[:2] for url in led} == {("https", "hello.d4m.internal"), ("https", "web.d4m.internal")}
    text = tab.text()
    for value in ("<img src=x onerror=window.hurt=1>", "\"><b onclick='window.hurt=1'>'&lt;&amp;", "x" * 300,
                  "javascript:window.hurt=1", "safe\\u{202e}gnp.exe",
                  "two\\u{a}lines\\u{d}\\u{9}and\\u{0}more"):  # fmt: skip
        assert text.count(value) > 5
    assert page.RIGHT_TO_LEFT not in text
    assert tab.complaints() == []


def test_change_shows_without_loading_again_and_touches_nothing_else(browser: Browser, server: PageServer) -> None:
    server.state = page.sixty_containers()
    tab = opened(browser, server)
    tab.value("""{
      const rows = [...document.querySelectorAll('.containers > li')];
      rows[30].querySelector('.more').click();
      rows[30].scrollIntoView({ block: 'center' });
      rows[30].querySelector('.more').focus();
      getSelection().selectAllChildren(rows[31].querySelector('.number'));
      window.kept = [rows[30], scrollY, String(getSelection())];
      window.touched = new Set();
      new MutationObserver((all) => all.forEach(({ target }) => touched.add(target.closest?.('li > .row') ?? target)))
        .observe(document.body, { subtree: true, childList: true, attributes: true, characterData: true });
    }""")
    server.state["now"] = "2026-11-24T18:40:11Z"
    server.state["containers"][40]["state"] = "paused"
    tab.wait_for_text("paused")
    assert tab.value("[...touched].map((node) => node.tagName + node.className)") == ["LIfair", "DIVrow"]
    del server.state["containers"][0]
    server.state["containers"].append(page.container("new", "nginx:alpine", "172.17.0.2", 80))
    tab.wait_for_text("new.d4m.internal")
    assert "cache.atlas" in names(tab)
    assert "web.atlas" not in names(tab)
    assert tab.value("document.activeElement === kept[0].querySelector('.more')")
    assert tab.value("kept[0].querySelector('dl').checkVisibility()")
    assert tab.value("String(getSelection()) === kept[2]")


def test_lost_server_is_said_and_found_again(browser: Browser, server: PageServer) -> None:
    tab = opened(browser, server)
    server.vanish()
    tab.wait_for_text("No answer from the server. What you see is as of ")
    assert "web.shop.d4m.internal" in tab.text()
    assert tab.value("document.querySelector('#lost[role=alert]').checkVisibility()")
    server.state = page.state()
    server.return_()
    tab.wait_for_text("Nothing is running yet")
    assert "No answer" not in tab.text()
    assert "Live" in tab.text()


def test_hidden_page_asks_nothing(browser: Browser, server: PageServer) -> None:
    tab = opened(browser, server)
    show = "Object.defineProperty(document, 'hidden', {{ value: {}, configurable: true }});" \
           "document.dispatchEvent(new Event('visibilitychange'))"  # fmt: skip
    tab.value(f"{show.format('false')};" * 3)  # three times at once, which makes one page of it all the same
    tab.wait_for(lambda: len(server.asked) == 7, "three more questions")
    time.sleep(0.2)
    tab.value(show.format("true"))
    asked = len(server.asked)
    time.sleep(SECONDS * 1.3)
    assert len(server.asked) == asked
    tab.value(show.format("false"))
    tab.wait_for(lambda: len(server.asked) > asked, "a question at once", seconds=1)


def test_order_is_natural_and_what_a_browser_opens_comes_first(browser: Browser, server: PageServer) -> None:
    server.state = page.sixty_containers()
    server.state["containers"].reverse()
    tab = opened(browser, server)
    assert names(tab)[:5] == ["api.atlas", "web.atlas", "cache.atlas", "db.atlas", "queue.atlas"]
    pool = [name for name in names(tab) if "pool" in name]
    assert pool == [f"pool-runner-{number}" for number in range(1, 16)]
    projects = tab.value("[...document.querySelectorAll('.project')].map((node) => node.textContent)")
    assert projects == sorted(projects)


def test_what_is_not_reached_says_why(browser: Browser, server: PageServer) -> None:
    server.state = page.unreachable()
    text = opened(browser, server).text()
    assert "3 of 7 containers reached" in text
    assert text.count("not reached") == 4
    for reason in ("outside the routes", "it uses the engine's own addresses", "it is in no network",
                   "not reached: it has no IPv4 address", "run ./scripts/routes.py add 192.168.7.0/24"):  # fmt: skip
        assert reason in text


def test_with_nothing_running_it_says_what_to_start(browser: Browser, server: PageServer) -> None:
    server.state = page.state(clients=None)
    tab = opened(browser, server)
    assert "docker run --rm --detach --name hello nginx:alpine" in tab.text()
    assert tab.value("document.querySelector('#hello').href") == "https://hello.d4m.internal/"
    assert "Not known at the moment" in tab.text()


def test_warnings_and_expiry_are_at_the_top(browser: Browser, server: PageServer) -> None:
    server.state = page.expiring() | {"warnings": ["the engine was started anew"]}
    text = opened(browser, server).text()
    top, _, rest = text.partition("blog")
    assert "the engine was started anew" in top
    assert "server: expires in 9 days" in top
    assert "until 2026-12-04 (9 days)" in rest
    assert "expired on 2026-11-20" in rest


def test_keyboard_searches_and_opens_details(browser: Browser, server: PageServer) -> None:
    tab = opened(browser, server)
    tab.press("/", *"SHOP post")
    assert names(tab) == ["db.shop"]
    assert said_aside(tab) == "1 container found"
    tab.press("Tab", "Tab", "Tab", "Enter")  # what can be copied, then the details
    assert "shop-db-1.d4m.internal" in tab.text()
    assert tab.value("document.activeElement.getAttribute('aria-expanded')") == "true"
    tab.press("/", *"xyz")
    assert "No container matches" in tab.text()
    tab.press("Escape")
    assert len(names(tab)) == 13
    assert tab.value("document.activeElement === document.body")


def test_address_is_copied(browser: Browser, server: PageServer) -> None:
    tab = opened(browser, server)
    browser.call("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    for label in ("https://web.shop.d4m.internal", "db.shop.d4m.internal", "172.18.0.2"):
        tab.value("document.querySelector('[role=status]').textContent = ''")
        tab.value(f"document.querySelector('[aria-label=\"Copy {label}\"]').click()")
        tab.wait_for(lambda: said_aside(tab).startswith("Copied"), "it to be copied")
        assert said_aside(tab) == f"Copied {label}"
        assert tab.value("navigator.clipboard.readText()") == label


def test_page_that_is_older_than_its_server_says_so(browser: Browser, server: PageServer) -> None:
    server.state["version"] = 2
    tab = browser.open(server.url)
    tab.wait_for_text("load this page again")
