"""A tab of headless Chromium, driven over its own protocol: sizes, colour schemes, keys and clicks like a person's."""

import base64
import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
KEYS = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39, "Escape": 27}


class Tab:
    """One page.

    Args:
        channel: to Chromium.
        session: of the page on it.
    """

    def __init__(self, channel: websocket.WebSocket) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._session = ""
        self.complaints: list[str] = []

    def attach(self) -> None:
        """Begin with an empty page."""
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **values: Any) -> dict[str, Any]:
        """Return the answer to a command; what the page complains of meanwhile is kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": values}
        self._channel.send(json.dumps(message | ({"sessionId": self._session} if self._session else {})))
        while True:
            seen = json.loads(self._channel.recv())
            if seen.get("id") == number:
                assert "error" not in seen, (method, seen["error"])
                return dict(seen["result"])
            if seen.get("method") == "Runtime.exceptionThrown":
                self.complaints.append(str(seen["params"]["exceptionDetails"]))
            elif seen.get("method") == "Log.entryAdded" and seen["params"]["entry"]["level"] == "error":
                self.complaints.append(seen["params"]["entry"]["text"])

    def look(self, width: int, height: int = 900, scheme: str = "light") -> None:
        """Take a size in pixels and a colour scheme."""
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, address: str) -> None:
        """Go to an address."""
        self.tell("Page.navigate", url=address)

    def value(self, code: str) -> Any:
        """Return what an expression of the page's JavaScript is."""
        found = self.tell("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, code: str, seconds: float = 20) -> Any:
        """Return what an expression is once it is true."""
        end = time.monotonic() + seconds
        while not (found := self.value(code)):
            assert time.monotonic() < end, (code, self.value("document.body.innerText"), self.complaints)
            time.sleep(0.05)
        return found

    def press(self, key: str) -> None:
        """Press a key."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.tell("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key], **text)

    def write(self, text: str) -> None:
        """Type text where the focus is."""
        self.tell("Input.insertText", text=text)

    def picture(self, path: Path) -> None:
        """Save the whole page as a PNG."""
        found = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def opened_tab(folder: Path) -> Iterator[Tab]:
    """Run Chromium with a fresh profile until the block ends."""
    assert CHROMIUM is not None
    quiet = ("background-networking", "component-update", "sync", "gpu", "extensions")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--no-first-run", "--hide-scrollbars"]
    command += [*(f"--disable-{name}" for name in quiet), f"--user-data-dir={folder / 'profile'}"]
    process = subprocess.Popen([*command, "--remote-debugging-port=0"], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = next(filter(None, (re.search(r"ws://\S+", line) for line in process.stderr)))
        channel = websocket.create_connection(found[0], timeout=60, suppress_origin=True)
        tab = Tab(channel)
        tab.attach()
        yield tab
        channel.close()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
