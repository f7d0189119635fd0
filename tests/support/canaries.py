"""Looks for plaintext where only ciphertext may be: by its bytes, and images by decoding them."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

COLOUR = (201, 17, 93)  # of the images that are uploaded; no other image has it


def image(size=(320, 200), kind="PNG") -> bytes:
    """Return an image of one colour, that a decoder recognises in any form and size."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", size, COLOUR).save(out, kind)
    return out.getvalue()


def is_canary(data: bytes) -> bool:
    """Return whether a file is an image of that colour, whatever its type, its size, and its offset in the file."""
    from PIL import Image

    for magic in (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"RIFF"):
        start = data.find(magic)
        if start < 0:
            continue
        try:
            found = Image.open(io.BytesIO(data[start:])).convert("RGB")
        except (OSError, ValueError, SyntaxError, zlib.error):
            continue
        middle = found.getpixel((found.width // 2, found.height // 2))
        if all(abs(one - other) < 12 for one, other in zip(middle, COLOUR, strict=True)):
            return True
    return False


def leaks(folders, words) -> list[Path]:
    """Return the files below the folders that hold one of the words, or such an image."""
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    assert files
    found = []
    for path in files:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # what runs has just removed it
        if any(word in data for word in words) or is_canary(data):
            found.append(path)
    return found
