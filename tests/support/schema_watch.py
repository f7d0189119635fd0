"""Every record that a test writes is held against the schema that is made from the table of events.

Records of this process are seen as they are built. Those of other processes, such as servers, are
read from the folders of the test at its end, where their chains hold: a test that tampers with a
journal is not meant.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import jsonschema

from securefs.audit import chain
from securefs.audit.record import build_line
from securefs.audit.schema import schema
from securefs.audit.verify_chain import ChainVerifier

VALIDATOR = jsonschema.Draft202012Validator(schema())
_good: set[object] = set()
_bad: list[str] = []


def install():
    """Let each record that this process builds be looked at."""

    @functools.wraps(build_line)
    def watched(*args):
        line = build_line(*args)
        _look(line)
        return line

    chain.build_line = watched


def taken():
    """Return what was found wrong since the last call."""
    found = _bad[:]
    _bad.clear()
    return found


def look_at_folder(folder: Path):
    """Look at the records of other processes under a folder."""
    for path in folder.rglob("*-0.jsonl"):
        if not path.is_file() or not os.access(path, os.R_OK):
            continue
        verifier, data = ChainVerifier(path.name, path.name[:32]), path.read_bytes()
        verifier.feed(data)
        verifier.finish()
        lines = data.split(b"\n")[:-1]
        if verifier.findings or not lines:
            continue
        first = json.loads(lines[0])
        if first["v"] == 2 and first["host"]["pid"] != os.getpid():
            for line in lines:
                _look(line)


def _look(line: bytes):
    record = json.loads(line)
    shape = _shape(record)
    # A schema with thirty rules takes milliseconds: records of one shape are looked at once.
    if shape in _good:
        return
    errors = [error.message for error in VALIDATOR.iter_errors(record)]
    if errors:
        _bad.append(f"{line.decode()}: {errors}")
    else:
        _good.add(shape)


def _shape(value, key=""):
    if isinstance(value, dict):
        return tuple((name, _shape(member, name)) for name, member in value.items())
    if key in {"event", "outcome", "sev", "reason", "v"}:
        return value
    if isinstance(value, str):
        return "short" if len(value) <= 64 else "long" if len(value) <= 256 else "too long"
    return len(value) if isinstance(value, list) else value >= 0
