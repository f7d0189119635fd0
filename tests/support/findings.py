"""Files that are found under a folder, and the verdicts on them."""

from __future__ import annotations

from pathlib import Path

from securefs.bulk import verify_one, walk
from support.sealing import RING, pattern, seal


def no_context(_path):
    return b""


def put(name, data):
    Path(name).write_bytes(data)
    return Path(name)


def statuses(*names, judge=verify_one, keyring=RING, **options):
    """Return {path: status} of everything under the names."""
    return {
        str(found.path): judge(found, keyring, no_context, **options).status.value for found in walk(names)
    }


def only(name, judge=verify_one, keyring=RING, **options):
    """Return the verdict on the only thing under a name."""
    (found,) = walk([name])
    return judge(found, keyring, no_context, **options)


def damaged(count):
    """Return an encrypted file of which ``count`` bytes of the magic are damaged."""
    data = bytearray(seal(pattern(3000)))
    data[:count] = bytes(byte ^ 0xFF for byte in data[:count])
    return bytes(data)
