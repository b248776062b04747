"""Headless Chromium over the DevTools protocol, through a pair of pipes."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def chromium():
    """Return the browser's path, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page of a browser: ``with Browser() as page: page.open(path)``."""

    def __enter__(self):
        # Messages go by files 3 and 4 of the browser, each ends with a zero.
        (theirs, self._out), (self._in, answers) = os.pipe(), os.pipe()
        self._folder = tempfile.mkdtemp()
        self._log = Path(self._folder, "log").open("wb")
        options = ["--headless=new", "--no-sandbox", "--disable-gpu"]
        options += ["--remote-debugging-pipe", "--no-first-run"]
        options += ["--disable-dev-shm-usage", "--disable-extensions"]
        options += [f"--user-data-dir={self._folder}/profile", "about:blank"]
        start = f'exec "$0" "$@" 3<&{theirs} 4>&{answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", start, chromium(), *options],
            pass_fds=(theirs, answers),
            stdout=self._log,
            stderr=self._log,
        )
        os.close(theirs)
        os.close(answers)
        self._read, self._number, self.events = b"", 0, []
        self._session = {}
        targets = self.send("Target.getTargets")["targetInfos"]
        (page,) = (one for one in targets if one["type"] == "page")
        found = self.send(
            "Target.attachToTarget", targetId=page["targetId"], flatten=True
        )
        self._session = {"sessionId": found["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, *error):
        self._process.terminate()
        self._process.wait(30)
        os.close(self._out)
        os.close(self._in)
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _next(self, limit=60):
        """Wait for one message."""
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._in], [], [], limit)
            more = os.read(self._in, 1 << 20) if ready else b""
            if not more:
                log = Path(self._log.name).read_text("utf-8", "replace")
                raise AssertionError(f"the browser said nothing: {log[-2000:]}")
            self._read += more
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def send(self, method, **params):
        """Call a method of the protocol, and return what it gives."""
        self._number += 1
        call = {"id": self._number, "method": method, "params": params}
        os.write(self._out, json.dumps(call | self._session).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def open(self, path):
        """Load a file, with all that belongs to it."""
        self.send("Page.navigate", url=Path(path).resolve().as_uri())
        self.wait("document.readyState == 'complete'")

    def run(self, script):
        """Evaluate JavaScript, awaited, and return its value."""
        answer = self.send(
            "Runtime.evaluate",
            expression=script,
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script, limit=30):
        """Wait until JavaScript says true."""
        end = time.time() + limit
        while not self.run(script):
            assert time.time() < end, f"never true: {script}"
            time.sleep(0.05)

    def resize(self, width, height=900, mobile=False):
        """Set the size of the window, in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.send("Emulation.setDeviceMetricsOverride", **size, mobile=mobile)

    def prefer(self, scheme):
        """Ask for ``light`` or ``dark``."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def press(self, key, code, text=""):
        """Press and let go of a key."""
        told = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, **told, **more)

    def picture(self, path, top=0, height=None):
        """Write a PNG of the page, from ``top`` on."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "scale": 1}
        clip["height"] = height or size["height"] - top
        found = self.send(
            "Page.captureScreenshot", clip=clip, captureBeyondViewport=True
        )
        Path(path).write_bytes(base64.b64decode(found["data"]))
