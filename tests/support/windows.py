"""Browser windows that a test drives as a user would: by their own protocols, without a driver program.

Chromium is told by the DevTools protocol over a pipe, Firefox by Marionette over a socket. Both can
open a page from the disk, choose a folder in a field as if in the dialog, and read what is shown.
"""

from __future__ import annotations

import base64
import json
import os
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.browsers import (
    _FLAGS,
    _PREFERENCES,
    CHROMIUM,
    FIREFOX,
    needs_chromium,
    needs_firefox,
    open_window,
)
from support.servers import wait_until

_SECONDS = 120  # for an answer


class Chromium:
    """One tab of Chromium."""

    name = "chromium"

    def __init__(self, to: int, answers) -> None:
        self._to, self._answers = to, answers
        self._rest, self._number, self._session = b"", 0, None
        wait_until(self._pages, "a tab of Chromium")
        (page, *_) = self._pages()
        self._session = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)[
            "sessionId"
        ]
        self._call("Page.enable")

    def _pages(self):
        return [one for one in self._call("Target.getTargets")["targetInfos"] if one["type"] == "page"]

    def open(self, url: str) -> None:
        """Load a page."""
        self._call("Page.navigate", url=url)
        wait_until(lambda: self.run("document.readyState") == "complete", "the page")

    def run(self, expression: str):
        """Return the value of an expression in the page; the page's policy does not bind it."""
        answer = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def choose(self, selector: str, folder: Path) -> None:
        """Choose a folder in a field."""
        root = self._call("DOM.getDocument")["root"]["nodeId"]
        node = self._call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self._call("DOM.setFileInputFiles", nodeId=node, files=[str(folder)])

    def drop(self, selector: str, folder: Path) -> None:
        """Drag a folder onto an element and let it fall."""
        x, y = self.run(
            f"(box => [box.x + box.width / 2, box.y + box.height / 2])(document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect())"
        )
        data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self._call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, key: str) -> None:
        """Press and release a key in what has the focus."""
        text = {"Tab": "", "Enter": "\r", " ": " "}[key]
        code = {"Tab": 9, "Enter": 13, " ": 32}[key]
        common = {"key": key, "code": {" ": "Space"}.get(key, key), "windowsVirtualKeyCode": code}
        self._call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        self._call("Input.dispatchKeyEvent", type="keyUp", **common)

    def picture(self, path: Path, width: int = 1000, height: int = 1400) -> None:
        """Write a picture of the page."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        path.write_bytes(
            base64.b64decode(self._call("Page.captureScreenshot", captureBeyondViewport=True)["data"])
        )

    def _call(self, method: str, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self):
        while b"\0" not in self._rest:
            block = self._answers.read(1 << 16)
            assert block, "Chromium has gone"
            self._rest += block
        line, _, self._rest = self._rest.partition(b"\0")
        return json.loads(line)


@contextmanager
def chromium_window(folder: Path):
    """Start Chromium with an empty page."""
    read, to = os.pipe()
    answers, write = os.pipe()
    # Chromium reads from descriptor 3 and writes to 4.
    command = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "bash"]
    command += [CHROMIUM, *_FLAGS, "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}"]
    with open_window([*command, "about:blank"], folder, pass_fds=(read, write)):
        os.close(read)
        os.close(write)
        with os.fdopen(answers, "rb", 0) as stream:
            try:
                yield Chromium(to, stream)
            finally:
                os.close(to)


# The dialog in which a user chooses a folder: it answers at once, with the folder that it is told.
_PICKER = """
const [path] = arguments;
class Picker {
  QueryInterface = ChromeUtils.generateQI(["nsIFilePicker"]);
  init(context, title, mode) { this.mode = mode; }
  appendFilter() {}
  appendFilters() {}
  appendRawFilter() {}
  isModeSupported() { return Promise.resolve(true); }
  get file() {
    const file = Cc["@mozilla.org/file/local;1"].createInstance(Ci.nsIFile);
    file.initWithPath(path);
    return file;
  }
  open(callback) { Services.tm.dispatchToMainThread(() => callback.done(0)); }
}
Components.manager.QueryInterface(Ci.nsIComponentRegistrar).registerFactory(
  Services.uuid.generateUUID(), "", "@mozilla.org/filepicker;1",
  { createInstance(iid) { return new Picker().QueryInterface(iid); } });
"""


class Firefox:
    """One tab of Firefox."""

    name = "firefox"

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_SECONDS)
        self._answers = self._socket.makefile("rb")
        self._number = 0
        self._answer()
        self._call("WebDriver:NewSession", capabilities={})

    def close(self) -> None:
        """Close the connection."""
        self._answers.close()
        self._socket.close()

    def open(self, url: str) -> None:
        """Load a page."""
        self._call("WebDriver:Navigate", url=url)

    def run(self, expression: str):
        """Return the value of an expression in the page; the page's policy does not bind it."""
        script = f"const [done] = arguments; Promise.resolve({expression}).then(done);"
        return self._call("WebDriver:ExecuteAsyncScript", script=script, args=[])["value"]

    def choose(self, selector: str, folder: Path) -> None:
        """Choose a folder in a field: by the keyboard, a dialog, and a question whether that was meant."""
        self._call("Marionette:SetContext", value="chrome")
        self._call("WebDriver:ExecuteScript", script=_PICKER, args=[str(folder)], sandbox="system")
        self._call("Marionette:SetContext", value="content")
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.press(" ")
        wait_until(lambda: "error" not in self._try("WebDriver:GetAlertText"), "Firefox's question")
        self._call("WebDriver:AcceptAlert")

    def press(self, key: str) -> None:
        """Press and release a key in what has the focus."""
        value = {"Tab": "\ue004", "Enter": "\ue007", " ": " "}[key]
        actions = [{"type": kind, "value": value} for kind in ("keyDown", "keyUp")]
        self._call("WebDriver:PerformActions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def _call(self, name: str, **params):
        answer = self._try(name, **params)
        assert answer is None or "error" not in answer, answer
        return answer

    def _try(self, name: str, **params):
        self._number += 1
        message = json.dumps([0, self._number, name, params]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, result = self._answer()
        return result if error is None else error

    def _answer(self):
        length = b""
        while (byte := self._answers.read(1)) != b":":
            assert byte, "Firefox has gone"
            length += byte
        return json.loads(self._answers.read(int(length)))


@contextmanager
def firefox_window(folder: Path):
    """Start Firefox with an empty page."""
    profile = folder / "firefox"
    profile.mkdir()
    preferences = {**_PREFERENCES, "marionette.port": 0, "security.dialog_enable_delay": 0}
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items())
    (profile / "user.js").write_text("".join(lines))
    command = [FIREFOX, "--headless", "--no-remote", "--marionette", "--remote-allow-system-access"]
    port = profile / "MarionetteActivePort"
    with open_window([*command, "--profile", str(profile), "about:blank"], folder):
        wait_until(lambda: port.exists() and port.read_text().strip(), "Firefox's port", 60)
        window = Firefox(int(port.read_text()))
        try:
            yield window
        finally:
            window.close()


WINDOWS = [
    pytest.param(chromium_window, marks=needs_chromium, id="chromium"),
    pytest.param(firefox_window, marks=needs_firefox, id="firefox"),
]
