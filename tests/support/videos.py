"""Videos for browsers to seek in: every frame says which one it is, in black and white, and is noise below that."""

from __future__ import annotations

import hashlib
from fractions import Fraction
from pathlib import Path

import av

WIDTH, HEIGHT = 320, 240  # pixels
RATE, SECONDS = 10, 60  # frames per second; a key frame every second
FRAMES = RATE * SECONDS
BITS = 10  # blocks across: the frame's number, its lowest bit first, and in a second row the same inverted
BLOCK = WIDTH // BITS  # pixels
WHITE, BLACK, GREY = 235, 16, 128  # of limited range, as videos have it
# What a container and its options are made with: MP4's index is at its end, unless a second pass
# moves it to the front.
KINDS = {
    "mp4, index at its end": ("video.mp4", "libx264", {"preset": "ultrafast", "crf": "34"}, {}),
    "mp4, index in front": (
        "front.mp4",
        "libx264",
        {"preset": "ultrafast", "crf": "34"},
        {"movflags": "faststart"},
    ),
    "webm": (
        "video.webm",
        "libvpx",
        {"deadline": "realtime", "cpu-used": "16", "b:v": "2M"},
        {"fflags": "+bitexact"},  # no random id in its header
    ),
}


def _luma(number: int) -> bytes:
    """Return the brightness of each pixel of a frame. The noise keeps it large, unlike any other, and the same each time."""
    bits = [number >> bit & 1 for bit in range(BITS)]
    rows = [b"".join(bytes([WHITE if bit == on else BLACK]) * BLOCK for bit in bits) for on in (1, 0)]
    told = rows[0] * BLOCK + rows[1] * BLOCK
    return told + hashlib.shake_128(b"frame %d" % number).digest(WIDTH * HEIGHT - len(told))


def make_video(kind: str, folder: Path) -> bytes:
    """Return a video of one of :data:`KINDS`, encoded in ``folder``."""
    name, codec, options, container_options = KINDS[kind]
    path = folder / name
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = RATE
        for number in range(FRAMES):
            frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
            luma, *chroma = frame.planes
            luma.update(_luma(number))
            for plane in chroma:
                plane.update(bytes([GREY]) * plane.buffer_size)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()
