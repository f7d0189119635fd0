"""Browsers without a window, one for each page that a test opens: Chromium, with what it tells of its network, and Firefox."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import pytest

from support.servers import wait_until

CHROMIUM = shutil.which("chromium")
FIREFOX = shutil.which("firefox-esr")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--autoplay-policy=no-user-gesture-required",
)
# Nothing but the page: no welcome, no updates, no reports, no portal detection, no proxy.
_PREFERENCES = {
    "network.proxy.type": 0,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "network.dns.disablePrefetch": True,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.aboutwelcome.enabled": False,
    "browser.safebrowsing.downloads.remote.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "services.settings.server": "data:,",
    "extensions.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "media.autoplay.default": 0,
}
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"
)
needs_firefox = pytest.mark.skipif(
    FIREFOX is None, reason="firefox-esr is not installed: apt-get install firefox-esr"
)


@contextmanager
def open_window(command: list[str], folder: Path, **options):
    """Run a browser, and end it by its process id: its helpers end with it. It writes ``browser.log``.

    :param options: more of :class:`subprocess.Popen`.
    """
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            # Wrappers and crash handlers want a home.
            env={**os.environ, "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            **options,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def chromium(url: str, folder: Path, *flags: str):
    """Open a page in Chromium; when it has ended, ``net.json`` is what :func:`exchanges` reads."""
    own = [f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'net.json'}"]
    return open_window([CHROMIUM, *_FLAGS, *own, *flags, url], folder)


def firefox(url: str, folder: Path):
    """Open a page in Firefox."""
    profile = folder / "firefox"
    profile.mkdir()
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in _PREFERENCES.items())
    (profile / "user.js").write_text("".join(lines))
    return open_window([FIREFOX, "--headless", "--no-remote", "--profile", str(profile), url], folder)


BROWSERS = [
    pytest.param(chromium, marks=needs_chromium, id="chromium"),
    pytest.param(firefox, marks=needs_firefox, id="firefox"),
]
_PAGE = """<!doctype html><meta charset="utf-8"><title>test</title><body><script type="module">
const report = async result => {
  await fetch("/report", {method: "POST", body: JSON.stringify(result)});
  await fetch("/page/reported");
};
%s
</script>"""


def result_of(script: str, site, folder: Path, browser=chromium, url: str = ""):
    """Run a script in a page of the site, or of what stands in front of it at ``url``; return what it reports."""
    report = site.folder / "report"
    report.unlink(missing_ok=True)
    site.put("page.html", (_PAGE % script).encode())
    with browser(f"{url or site.url}/html/page.html", folder) as process:
        wait_until(lambda: report.exists() or process.poll() is not None, "the page's report", 60)
        assert report.exists(), (folder / "browser.log").read_text("utf-8", "replace")[-3000:]
        if browser is chromium:
            # It writes its log some events behind.
            wait_until(lambda: "POST /report " in (folder / "net.json").read_text(), "the network log")
    return json.loads(report.read_text())


@dataclass(slots=True)
class Seen:
    """One request as Chromium's network stack saw it: what it sent, what came back, and how much of the body it took.

    :ivar status: 0 where the browser dropped the request before it was answered. :ivar received:
        bytes, with those that it had in its cache behind the range.
    """

    range: str = ""
    status: int = 0
    content_range: str = ""
    content_type: str = ""
    received: int = 0

    def __str__(self) -> str:
        answer = f"{self.status} {self.content_range:<32}" if self.status else "dropped"
        return f"{self.range or 'no Range':<24} {answer} {self.received:>9} bytes"


def _header(lines: list[str], name: str) -> str:
    found = (re.fullmatch(rf"{name}: *(.*)", line, re.IGNORECASE) for line in lines)
    return next((match[1] for match in found if match), "")


def exchanges(folder: Path, path: str) -> list[Seen]:
    """Return the requests for ``path`` in the network log that Chromium left, in their order."""
    # One event a line. A browser that was ended may leave the last one cut, and the document open.
    first, _, *lines = (folder / "net.json").read_text().split("\n")[:-1]
    lines = takewhile(lambda line: line.startswith("{"), lines)
    constants = json.loads(first.rstrip(",") + "}")["constants"]
    types = {number: name for name, number in constants["logEventTypes"].items()}
    wanted: dict[int, Seen] = {}
    for event in (json.loads(line.rstrip("],")) for line in lines):
        kind, source, about = types[event["type"]], event["source"]["id"], event.get("params", {})
        if kind == "HTTP_TRANSACTION_SEND_REQUEST_HEADERS" and "headers" in about:
            if f"GET {path} " in about.get("line", ""):
                wanted[source] = Seen(range=_header(about["headers"], "range"))
        elif source not in wanted:
            continue
        elif kind == "HTTP_TRANSACTION_READ_RESPONSE_HEADERS" and "headers" in about:
            seen, headers = wanted[source], about["headers"]
            seen.status = int(headers[0].split()[1])
            seen.content_range = _header(headers, "content-range")
            seen.content_type = _header(headers, "content-type")
        elif kind == "URL_REQUEST_JOB_FILTERED_BYTES_READ":
            wanted[source].received += about["byte_count"]
    return list(wanted.values())
