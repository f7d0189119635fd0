"""What a program flushes to disk: its os.fsync and os.fdatasync note what they are given."""

from __future__ import annotations

import json

from support.journals import run_script

_NOTING = """
import json, os

flushed = []


def noting(call):
    def flush(descriptor):
        flushed.append(os.path.basename(os.path.realpath(f"/dev/fd/{descriptor}")))
        return call(descriptor)

    return flush


os.fsync = noting(os.fsync)
if hasattr(os, "fdatasync"):
    os.fdatasync = noting(os.fdatasync)
"""


def flushes_of(code, *args):
    """Return what ``code`` prints as JSON; the list ``flushed`` has the names of what was flushed."""
    return json.loads(run_script(_NOTING + code, *args)[0])
