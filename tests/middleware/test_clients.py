"""Real clients behind a real server: browsers that fetch, one that plays and seeks in a sound, downloads that are resumed."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import wave

import pytest
import requests
from support.browsers import BROWSERS, needs_chromium, result_of
from support.nginx import nginx, program
from support.sealing import seal, tampered
from support.server_matrix import running

from securefs import Suite

MIB = 1024 * 1024
DATA = os.urandom(3 * MIB + 5)
RATE, SECONDS = 44_100, 180  # of a sound of 30 MiB: more than a browser reads ahead

FETCHING = """
const result = {};
for (const path of %s) {
  try { result[path] = (await (await fetch(path)).arrayBuffer()).byteLength; }
  catch (error) { result[path] = String(error); }
}
report(result);
"""
SEEKING = """
const audio = new Audio();
audio.preload = "metadata";
audio.muted = true;
audio.onerror = () => report({error: audio.error.message});
audio.onloadedmetadata = () => { audio.currentTime = audio.duration - 5; };
audio.onseeked = () => audio.play();
audio.onended = () => report({duration: audio.duration, at: audio.currentTime});
audio.src = "/file/tone.wav";
"""


def tone():
    """Return a WAV file of noise, so that no part of it looks like another."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((2, 2, RATE, 0, "NONE", ""))
        writer.writeframes(os.urandom(4 * RATE * SECONDS))
    return file.getvalue()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running("gunicorn gthread", tmp_path_factory.mktemp("site")) as running_site:
        for name, suite in (("", Suite.CBC_HMAC), ("-2", Suite.GCM)):
            stored = seal(DATA, suite)
            running_site.put(f"good{name}", stored)
            running_site.put(f"bad{name}", tampered(stored))
        yield running_site


@pytest.mark.parametrize("browser", BROWSERS)
def test_a_browser_takes_no_part_for_the_whole(browser, site, tmp_path):
    """fetch() of a file that fails in its middle rejects, with a length and with chunks."""
    good = ["/file/good", "/stream/good", "/list/good-2"]
    bad = [path.replace("good", "bad") for path in good]
    result = result_of(FETCHING % json.dumps([*good, *bad]), site, tmp_path, browser)
    print(f"\n{result}")
    assert {path: result[path] for path in good} == dict.fromkeys(good, len(DATA))
    for path in bad:
        assert str(result[path]).startswith("TypeError:")
        assert site.events(path)[-1] == ("file.integrity_failure", "failure", "tag_mismatch")


@needs_chromium
def test_chromium_seeks_in_a_sound_by_ranges(site, tmp_path):
    data = tone()
    site.put("tone.wav", seal(data))
    result = result_of(SEEKING, site, tmp_path)
    assert result == {"duration": pytest.approx(SECONDS), "at": pytest.approx(SECONDS)}
    asked = [line for line in site.requests() if line[1] == "/file/tone.wav"]
    print(f"\nChromium asked for {len(data)} bytes of sound as {[line[2] for line in asked]}")
    assert {line[3] for line in asked} == {"206"}
    starts = [int(re.fullmatch(r"bytes=(\d+)-\d*", line[2])[1]) for line in asked]
    assert starts[0] == 0
    # It jumped: the end is less than six seconds away from where a request began.
    assert max(starts) > len(data) - 6 * 4 * RATE


def curl(*arguments):
    """Run curl and return its exit code; 18: a part of the file, 56: the connection was reset."""
    command = ["curl", "--silent", "--noproxy", "*", "--max-time", "30", *arguments]
    return subprocess.run(command, check=False).returncode


@pytest.mark.skipif(program() is None, reason="nginx is not installed: apt-get install nginx-light")
@pytest.mark.parametrize("buffering", ["on", "off"])
@pytest.mark.parametrize("protocol", ["1.0", "1.1"])
def test_a_proxy_passes_the_failure_on(protocol, buffering, site, tmp_path):
    """A proxy takes a body that ends with the connection for whole, and would give it chunks of its own, the last one included."""
    proxied = (
        f"location / {{ proxy_pass {site.url}; proxy_http_version {protocol}; proxy_buffering {buffering}; }}"
    )
    with nginx(tmp_path, tmp_path, proxied) as proxy:
        for path in ("/file/good", "/stream/good", "/list/good-2"):
            assert curl("--output", str(tmp_path / "whole"), proxy.url + path) == 0
            assert (tmp_path / "whole").read_bytes() == DATA
            assert curl("--output", str(tmp_path / "part"), proxy.url + path.replace("good", "bad")) in {
                18,
                56,
            }
            assert (tmp_path / "part").stat().st_size < 2 * MIB


@pytest.mark.parametrize("name", ["good", "good-2"])
@pytest.mark.parametrize("cut", [1, 65_536, 2 * MIB + 7, len(DATA) - 1])
def test_curl_resumes_where_it_stopped(cut, name, site, tmp_path):
    target = tmp_path / "part"
    target.write_bytes(DATA[:cut])
    before = len(site.requests())
    assert curl("--continue-at", "-", "--output", str(target), f"{site.url}/file/{name}") == 0
    assert target.read_bytes() == DATA
    (line,) = site.requests()[before:]
    assert line[2:] == [f"bytes={cut}-", "206"]


def test_a_failed_download_is_resumed_when_the_file_was_restored(site, tmp_path):
    """What came before the failure was genuine, so a client may keep it."""
    target = tmp_path / "part"
    resume = ("--continue-at", "-", "--output", str(target), f"{site.url}/file/mended")
    stored = seal(DATA)
    site.put("mended", tampered(stored))
    assert curl(*resume) == 18
    assert 0 < target.stat().st_size < len(DATA)
    site.put("mended", stored)
    assert curl(*resume) == 0
    assert target.read_bytes() == DATA


def test_only_if_range_keeps_a_client_from_joining_two_files(site, tmp_path):
    # The first half was of a file with another ETag.
    url, other = f"{site.url}/file/replaced", DATA[::-1]
    site.put("replaced", seal(other))
    target = tmp_path / "part"
    target.write_bytes(DATA[:MIB])
    resume = ("--continue-at", "-", "--output", str(target))
    # curl's code for a server that sends the whole file where a part was asked for.
    assert curl(*resume, "--header", 'If-Range: "of-the-first-one"', url) == 33
    assert target.read_bytes() == DATA[:MIB]
    assert curl(*resume, url) == 0
    assert target.read_bytes() == DATA[:MIB] + other[MIB:]


def test_requests_streams_and_resumes(site):
    with requests.Session() as session:
        session.trust_env = False
        url = f"{site.url}/file/good"
        with session.get(url, stream=True, timeout=30) as answer:
            start = next(answer.iter_content(MIB))
            tag = answer.headers["ETag"]
        headers = {"Range": f"bytes={len(start)}-", "If-Range": tag}
        rest = session.get(url, headers=headers, timeout=30)
        assert (rest.status_code, start + rest.content) == (206, DATA)
