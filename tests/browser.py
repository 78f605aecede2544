"""A headless Chromium, spoken to over its pipe (--remote-debugging-pipe): no driver, no network.

Protocol: https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Optional

NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome",
         "google-chrome-stable", "chrome")  # fmt: skip
HOW = (
    "no Chromium was found: install one (Debian: apt-get install chromium-headless-shell; Ubuntu: "
    "snap install chromium; macOS: brew install --cask chromium), or name it with CHROMIUM=/path"
)
_PATIENCE = 60  # seconds for an answer
# Chromium reads from 3 and writes to 4.
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)


def find_browser() -> str:
    """Return the path of a Chromium."""
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, HOW
    return found


class Browser:
    """One tab; a context manager.  ``flags`` are further ones of Chromium."""

    def __init__(self, profile, *flags: str):
        self._profile, self._flags = profile, flags
        self._number, self._buffer, self.events = 0, b"", []
        self._session: Optional[str] = None

    def __enter__(self) -> "Browser":
        theirs_in, self._out = _high_pipe()
        self._in, theirs_out = _high_pipe()
        flags = ["--headless", "--remote-debugging-pipe", "--disable-gpu", "--hide-scrollbars",
                 "--no-first-run", f"--user-data-dir={self._profile}", *self._flags]  # fmt: skip
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(theirs_in), str(theirs_out), find_browser(), *flags],
            pass_fds=(theirs_in, theirs_out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            self._attach()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _attach(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __exit__(self, *_):
        with contextlib.suppress(OSError, AssertionError):
            self._session = None
            self.call("Browser.close")
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def open(self, page, width: int, *, dark: bool = False) -> None:
        """Load a file or URL at a width in pixels; ``events`` then holds its events."""
        self.events.clear()
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900,
                  deviceScaleFactor=2 if phone else 1, mobile=phone)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self._wait_for("Page.loadEventFired")

    def evaluate(self, expression: str):
        """Return the value of a JavaScript expression in the page; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                           awaitPromise=True)  # fmt: skip
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path) -> None:
        """Write the whole page as PNG."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def call(self, method: str, **params) -> dict:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)
        raise AssertionError(f"the browser is gone: {method}")

    def _wait_for(self, event: str) -> None:
        if any(seen.get("method") == event for seen in self.events):
            return
        for seen in self._messages():
            self.events.append(seen)
            if seen.get("method") == event:
                return

    def _messages(self) -> Iterator[dict]:
        deadline = time.monotonic() + _PATIENCE
        while True:
            while b"\0" not in self._buffer:
                ready, _, _ = select.select([self._in], [], [], deadline - time.monotonic())
                assert ready, f"no answer from the browser within {_PATIENCE} s"
                got = os.read(self._in, 1 << 20)
                if not got:
                    return
                self._buffer += got
            message, self._buffer = self._buffer.split(b"\0", 1)
            yield json.loads(message)


def _high_pipe() -> tuple[int, int]:
    """Return a pipe whose ends are not 3 or 4."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high
