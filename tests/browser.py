"""A real Chromium without a window, spoken to by the DevTools protocol through a pair of pipes.

    with chromium() as browser:
        tab = browser.open("http://127.0.0.1:8000/", width=390, dark=True)
        assert tab.value("document.title") == "d4m.internal"
        assert tab.complaints() == []

It is the one of the lab's computer, in a mount namespace of its own, and leaves nothing there. The protocol is at
https://chromedevtools.github.io/devtools-protocol/.
"""

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

from tests.docker_desktop import cache

SECONDS = 15  # for the first answer; this machine may be busy with other tests
Message = Mapping[str, Any]
# The root filesystem is what other tests boot from: it is read only here, with a /tmp of its own.
ENTER = """
set -eu
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
cd "$0"
mount -t proc proc proc
mount --bind /dev dev
mount -t tmpfs tmpfs tmp
exec 3<&0 4>&1 >/dev/null 2>&1 </dev/null
export HOME=/tmp
exec chroot . "$@"
"""
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
           "--disable-lcd-text", "--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe",
           "--user-data-dir=/tmp/profile")  # fmt: skip


class Browser:
    """The process, and what it says."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._numbers = 0
        self._unread = b""
        self._tabs: list[Tab] = []
        self.events: list[Message] = []

    def open(self, url: str, width: int = 1280, height: int = 800, dark: bool = False, scale: float = 1) -> "Tab":
        """Open an address in a tab of that size, as a phone if it is narrow, and wait until it is loaded."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        tab = Tab(self, target, session)
        self._tabs.append(tab)
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            tab.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        tab.call("Emulation.setEmulatedMedia", {"features": [scheme]})
        tab.resize(width, height, scale)
        tab.call("Page.navigate", {"url": url})
        tab.wait_for(lambda: tab.value("document.readyState") == "complete", f"{url} to load")
        return tab

    def close_tabs(self) -> None:
        """Close all that are open."""
        for tab in self._tabs:
            self.call("Target.closeTarget", {"targetId": tab.target})
        self._tabs.clear()
        self.events.clear()

    def call(self, method: str, parameters: Message | None = None, session: str | None = None) -> Message:
        """Have something done, and wait for its result."""
        self._numbers += 1
        request = {"id": self._numbers, "method": method, "params": parameters or {}}
        written = json.dumps(request | ({"sessionId": session} if session else {})).encode() + b"\0"
        assert self._process.stdin
        self._process.stdin.write(written)
        self._process.stdin.flush()
        while (message := self._next()).get("id") != self._numbers:
            self.events.append(message)
        assert "error" not in message, f"{method}: {message['error']}"
        return cast("Message", message["result"])

    def _next(self) -> Message:
        assert self._process.stdout
        while b"\0" not in self._unread:
            readable, _, _ = select.select([self._process.stdout], [], [], SECONDS)
            assert readable, "the browser does not answer"
            received = os.read(self._process.stdout.fileno(), 1 << 20)
            assert received, "the browser has ended"
            self._unread += received
        message, _, self._unread = self._unread.partition(b"\0")
        return cast("Message", json.loads(message))


class Tab:
    """One page in it."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self.target = target
        self._session = session

    def call(self, method: str, parameters: Message | None = None) -> Message:
        """Have something done in this tab."""
        return self._browser.call(method, parameters, self._session)

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript comes to; a promise is waited for."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"waited for {what} in vain"
            time.sleep(0.05)

    def wait_for_text(self, text: str) -> None:
        """Wait until the page shows a text."""
        self.wait_for(lambda: text in self.text(), f"the text {text!r}")

    def text(self) -> str:
        """What is to be read on the page."""
        return cast("str", self.value("document.body.innerText"))

    def press(self, *keys: str) -> None:
        """Press keys, one after the other: characters, or names such as Tab, Escape, Enter."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
            code = {"Tab": 9, "Enter": 13, "Escape": 27}.get(key, ord(key[0].upper()))
            press = {"key": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", {"type": "keyDown", **press, **text})
            self.call("Input.dispatchKeyEvent", {"type": "keyUp", **press})

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Give the window another size."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", size)
        self.call("Emulation.setTouchEmulationEnabled", {"enabled": width < 500})

    def picture(self) -> bytes:
        """What is in the window, as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", {"format": "png"})["data"])

    def requests(self) -> list[str]:
        """The addresses that it asked for, in order."""
        return [event["params"]["request"]["url"] for event in self._events("Network.requestWillBeSent")]

    def complaints(self) -> list[str]:
        """What a browser's console would show in yellow or red, and what the content security policy has stopped."""
        logged = [event["params"]["entry"] for event in self._events("Log.entryAdded")]
        said = [f"{entry['text']} {entry.get('url', '')}" for entry in logged if entry["level"] != "verbose"]
        said += [str(event["params"]["args"]) for event in self._events("Runtime.consoleAPICalled")]
        said += [str(event["params"]["exceptionDetails"]) for event in self._events("Runtime.exceptionThrown")]
        issues = [event["params"]["issue"] for event in self._events("Audits.issueAdded")]
        return said + [str(issue) for issue in issues if issue["code"] == "ContentSecurityPolicyIssue"]

    def _events(self, method: str) -> list[Message]:
        self.value("0")  # what has happened by now comes before its answer
        ours = [event for event in self._browser.events if event.get("sessionId") == self._session]
        return [event for event in ours if event["method"] == method]


@contextmanager
def chromium(options: Sequence[str] = ()) -> Iterator[Browser]:
    """Start the browser; end it at the end."""
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation",
             "private"]  # fmt: skip
    command = [*alone, "sh", "-c", ENTER, str(cache.computer("forky")), "chromium-headless-shell", *OPTIONS, *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield Browser(process)
        finally:
            process.kill()
            with suppress(BrokenPipeError):
                process.communicate()
