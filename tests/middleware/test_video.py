"""A browser seeks in an encrypted video: it asks for ranges, and shows the frame that it was told to show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support import videos
from support.browsers import exchanges, firefox, needs_chromium, needs_firefox, result_of
from support.nginx import nginx, program
from support.sealing import seal
from support.server_app import TYPES
from support.server_matrix import running

from securefs import Suite

INDEX_LAST, INDEX_FIRST, _ = videos.KINDS
MEDIA_ERR_NETWORK = 2  # HTML's code
FRAME = 1 / videos.RATE  # seconds
SEEKS = [50, 5, 30]  # seconds: to and fro, each far from what was read for the one before
START = videos.SECONDS - 0.5  # seconds: from where it plays to its end
SOUGHT = [500, 50, 300, 595]  # the frames at those times
# Reads the number out of every frame that is presented (null where its two rows of blocks do not
# say the same); seeks, then plays.
PLAYING = """
const [path, seeks, start] = %s;
const video = document.createElement("video");
document.body.append(video);
const canvas = document.createElement("canvas");
[canvas.width, canvas.height] = [%d, %d];
const context = canvas.getContext("2d", {willReadFrequently: true});
function shown() {
  context.drawImage(video, 0, 0);
  const row = y => [...Array(%d).keys()].map(n => context.getImageData(n * %d + 16, y, 1, 1).data[0] > 128);
  const number = bits => bits.reduce((sum, bit, n) => sum + (bit ? 2 ** n : 0), 0);
  const [told, inverted] = [number(row(16)), number(row(48).map(bit => !bit))];
  return told === inverted ? told : null;
}
const result = {seeks: [], frames: []};
const event = name => new Promise(done => video.addEventListener(name, done, {once: true}));
let presented = () => {};
const frame = () => new Promise(done => { presented = done; });
const watch = () => video.requestVideoFrameCallback(() => { result.frames.push(shown()); presented(); watch(); });
const failed = event("error").then(() => { throw video.error; });
const until = (...promises) => Promise.race([Promise.all(promises), failed]);
watch();
video.preload = "metadata";
video.muted = true;
video.src = path;
try {
  await until(event("loadeddata"), frame());
  result.duration = video.duration;
  for (const seconds of [...seeks, start]) {
    const arrived = until(event("seeked"), frame());
    video.currentTime = seconds + %f;
    await arrived;
    result.seeks.push(shown());
  }
  video.play();
  await until(event("ended"));
} catch (error) {
  result.error = {code: error.code, message: error.message};
}
report(result);
"""


def playing(path, seeks, start):
    """Return a script that seeks, and at last plays from ``start`` (seconds) on."""
    sizes = (videos.WIDTH, videos.HEIGHT, videos.BITS, videos.BLOCK)
    return PLAYING % (json.dumps([path, seeks, start]), *sizes, FRAME / 2)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running("gunicorn gthread", tmp_path_factory.mktemp("site")) as running_site:
        yield running_site


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Videos by their kind, each made once, when it is first asked for."""

    class Made(dict):
        def __missing__(self, kind):
            self[kind] = videos.make_video(kind, tmp_path_factory.mktemp("video"))
            return self[kind]

    return Made()


def right(result):
    """Hold what a page reports against where it was sent: those frames and no other, then the last ones in their order."""
    print(f"\nframes: {result['frames']}")
    assert result.pop("duration") == pytest.approx(videos.SECONDS)
    frames = result.pop("frames")
    assert result == {"seeks": SOUGHT}
    assert frames[: 1 + len(SOUGHT)] == [0, *SOUGHT]
    played = frames[len(SOUGHT) :]
    assert played == sorted(set(played))
    assert played[-1] == videos.FRAMES - 1


def answered(folder, path):
    """Return Chromium's requests for the video that it did not drop before they were answered, and print them all."""
    log = exchanges(folder, path)
    print("\n" + "\n".join(str(seen) for seen in log))
    return [seen for seen in log if seen.status]


def span(seen, size):
    """Return the bytes that an answer says that it has, checked against what was asked and how long the file is."""
    first, last = map(int, re.fullmatch(rf"bytes (\d+)-(\d+)/{size}", seen.content_range).groups())
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.range)
    assert (first, last) == (int(asked[1]), int(asked[2] or size - 1))
    return range(first, last + 1)


def ranged(log, name, data):
    """Hold a browser's requests against what seeking looks like: parts only, some of them far behind all that was read before."""
    assert {(seen.status, seen.content_type) for seen in log} == {(206, TYPES[Path(name).suffix])}
    spans = [span(seen, len(data)) for seen in log]
    assert spans[0].start == 0
    assert log[0].received < 0.75 * len(data)
    assert [part for part in spans if part.start > 0.75 * len(data)], "nobody jumped to the end"


@needs_chromium
@pytest.mark.parametrize(
    ("kind", "suite"),
    [
        pytest.param(INDEX_LAST, Suite.CBC_HMAC, id="mp4, index at its end, suite 1"),
        pytest.param(INDEX_LAST, Suite.GCM, id="mp4, index at its end, suite 2"),
        pytest.param(INDEX_FIRST, Suite.CBC_HMAC, id="mp4, index in front, suite 1"),
        pytest.param("webm", Suite.GCM, id="webm, suite 2"),
    ],
)
def test_chromium_shows_the_frames_that_it_seeks_to(kind, suite, made, site, tmp_path):
    name, data = videos.KINDS[kind][0], made[kind]
    path = f"/file/{name}"
    site.put(name, seal(data, suite))
    before = len(site.requests())
    right(result_of(playing(path, SEEKS, START), site, tmp_path))
    log = answered(tmp_path, path)
    ranged(log, name, data)
    if kind == INDEX_LAST:
        assert span(log[1], len(data)).start > 0.99 * len(data)
    served = [line for line in site.requests()[before:] if line[1] == path]
    assert {(line[0], line[3]) for line in served} == {("GET", "206")}
    assert {seen.range for seen in log} <= {line[2] for line in served}
    assert not [event for event in site.events(path) if event[0] == "file.integrity_failure"]


@needs_chromium
@pytest.mark.skipif(program() is None, reason="nginx is not installed: apt-get install nginx-light")
@pytest.mark.parametrize("kind", videos.KINDS)
def test_it_seeks_in_the_plaintext_from_nginx_in_the_same_way(kind, made, site, tmp_path):
    """The same page, through nginx, which has the video itself. The app answers no conditions, so nginx does not either."""
    name, data = videos.KINDS[kind][0], made[kind]
    root = tmp_path / "root"
    (root / "file").mkdir(parents=True)
    (root / "file" / name).write_bytes(data)
    types = " ".join(f"{media_type} {suffix[1:]};" for suffix, media_type in TYPES.items())
    settings = f"types {{ {types} }} location / {{ proxy_pass {site.url}; }} location /file/ {{ etag off; if_modified_since off; }}"
    with nginx(root, tmp_path, settings) as server:
        right(result_of(playing(f"/file/{name}", SEEKS, START), site, tmp_path, url=server.url))
    ranged(answered(tmp_path, f"/file/{name}"), name, data)


@needs_firefox
def test_firefox_shows_the_frames_that_it_seeks_to(made, site, tmp_path):
    """It reads far ahead, and presents frames as it finds time: those that it was sent to are what counts."""
    site.put("fox.webm", seal(made["webm"]))
    result = result_of(playing("/file/fox.webm", SEEKS, START), site, tmp_path, firefox)
    assert result["seeks"] == SOUGHT
    assert "error" not in result
    asked = [line[2:] for line in site.requests() if line[1] == "/file/fox.webm"]
    print(f"\nFirefox asked for {len(made['webm'])} bytes of video as {asked}")
    assert {status for _, status in asked} == {"206"}


def changed(data, suite, seconds):
    """Return a stored video with one bit of it changed, at about that time."""
    stored = bytearray(seal(data, suite))
    stored[int(len(stored) * seconds / videos.SECONDS)] ^= 1
    return bytes(stored)


@needs_chromium
@pytest.mark.parametrize("suite", Suite, ids=lambda suite: suite.label)
def test_seeking_into_a_part_that_was_changed_is_an_error_and_shows_nothing_of_it(
    suite, made, site, tmp_path
):
    """What lies before and behind it still plays: it is genuine, and ranges do not touch the rest."""
    path = f"/file/changed-{suite.value}.mp4"
    # Between the key frame at 30 s and the frame that is asked for half a second later.
    site.put(Path(path).name, changed(made[INDEX_FIRST], suite, 30.25))
    result = result_of(playing(path, [5, 50], 30.5), site, tmp_path)
    print(result)
    answered(tmp_path, path)
    assert result["seeks"] == [50, 500]
    assert result["frames"] == [0, 50, 500]
    assert result["error"]["code"] == MEDIA_ERR_NETWORK
    failures = [event for event in site.events(path) if event[0] == "file.integrity_failure"]
    assert set(failures) == {("file.integrity_failure", "failure", "tag_mismatch")}


@needs_chromium
@pytest.mark.parametrize("suite", Suite, ids=lambda suite: suite.label)
def test_playing_into_a_part_that_was_changed_stops_before_it(suite, made, site, tmp_path):
    path = f"/file/played-{suite.value}.mp4"
    site.put(Path(path).name, changed(made[INDEX_FIRST], suite, 30.25))
    result = result_of(playing(path, [], 28), site, tmp_path)
    print(result)
    answered(tmp_path, path)
    first, *played = result["frames"]
    assert first == 0
    assert result["error"]["code"] == MEDIA_ERR_NETWORK
    # How many of the frames that it has already are played is the browser's affair.
    assert played == sorted(played)
    assert set(played) <= set(range(280, 305))
    failures = [event for event in site.events(path) if event[0] == "file.integrity_failure"]
    assert set(failures) == {("file.integrity_failure", "failure", "tag_mismatch")}
