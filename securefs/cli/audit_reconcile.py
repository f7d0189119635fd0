"""``securefs audit reconcile``: each stored file has its record, and each record its file.

The store is an anchor for the journal: a journal that was cut lacks the records of files that are
there. And the journal is one for the store: a file that is missing, was put back after it was
deleted, or came from somewhere else is told. It compares object ids and needs no key, so it does
not say that a file is what it claims to be: ``securefs verify`` does. What it keeps in memory grows
with the number of files, not with their size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from securefs.bulk import walk
from securefs.cli.audit_show import journal_folders, records
from securefs.cli.terminal import DONE, FINDING, say, say_json
from securefs.disk import explain, read_regular
from securefs.errors import SecureFSError
from securefs.header import FIXED_SIZE, MAGIC, header_length, parse_header

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["run"]

# Events whose success means that a file with this id exists from now on, or no longer.
_MADE: Final = frozenset({"file.encrypt", "file.import", "key.reencrypt"})
_GONE: Final = {"file.delete": "id", "key.reencrypt": "old_id"}
_MARKS: Final = tuple(f'"event":"{event}"'.encode() for event in sorted(_MADE | _GONE.keys()))


@dataclass(slots=True)
class _Ids:
    """What the journal says of object ids: where each was made, and where it ended."""

    made: dict[str, str] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)


def run(arguments: argparse.Namespace) -> int:
    """Compare a journal with stores; end with 1 if they do not agree."""
    ids, odd = _ids(arguments)
    there: dict[str, Path] = {}
    findings = [*_stored(arguments.store, ids, there)]
    for object_id, where in ids.made.items():
        if object_id not in there and object_id not in ids.gone:
            findings.append(("missing", object_id, f"record {where} made a file that is not there"))
    if odd:
        findings.append(("journal", "", f"lines that are no records: {odd}; run securefs audit verify"))
    if arguments.json:
        names = ("code", "object", "message")
        say_json(
            {
                "files": len(there),
                "records": len(ids.made),
                "deleted": len(ids.gone),
                "findings": [dict(zip(names, finding, strict=True)) for finding in findings],
                "exit_code": FINDING if findings else DONE,
            }
        )
    else:
        for code, object_id, message in findings:
            say(f"{code}: {object_id + ': ' if object_id else ''}{message}")
        say(
            f"files: {len(there)}, made by records: {len(ids.made)}, deleted: {len(ids.gone)}, findings: {len(findings)}"
        )
    return FINDING if findings else DONE


def _ids(arguments: argparse.Namespace) -> tuple[_Ids, int]:
    ids, odd = _Ids(), 0
    for record in records(journal_folders(arguments), _MARKS):
        if record is None:
            odd += 1
            continue
        obj = record.get("obj")
        if record["outcome"] != "success" or not isinstance(obj, dict):
            continue
        event, where = str(record["event"]), f"{record['chain']}:{record['seq']}"
        if event in _MADE and "id" in obj:
            ids.made[obj["id"]] = where
        if event in _GONE and _GONE[event] in obj:
            ids.gone[obj[_GONE[event]]] = where
    return ids, odd


def _stored(names: Sequence[str], ids: _Ids, there: dict[str, Path]) -> Iterator[tuple[str, str, str]]:
    """Yield what is wrong with the files of the stores; note their ids in ``there``."""
    for found in walk(names):
        if found.kind.name != "FILE":
            # A folder that cannot be listed may hide anything.
            if found.kind.name == "UNREADABLE" or not found.accounted:
                yield "unread", "", f"{str(found.path)!a}: {found.detail}"
            continue
        try:
            object_id = _object_id(found.path)
        except OSError as error:
            yield "unread", "", f"{str(found.path)!a}: {explain(error)}"
            continue
        except SecureFSError as error:
            yield "damaged", "", f"{str(found.path)!a}: {error}"
            continue
        if object_id is None:
            continue
        if object_id in there:
            yield "twice", object_id, f"{str(found.path)!a} and {str(there[object_id])!a} are the same file"
        there[object_id] = found.path
        if object_id in ids.gone:
            yield (
                "deleted",
                object_id,
                f"{str(found.path)!a} is there, and record {ids.gone[object_id]} deleted it",
            )
        elif object_id not in ids.made:
            yield "unrecorded", object_id, f"no record made {str(found.path)!a}"


def _object_id(path: Path) -> str | None:
    """Return the object id that a file in Format 2 claims; None for any other file."""
    with read_regular(path, follow_links=False) as file:
        start = file.read(FIXED_SIZE)
        if start[: len(MAGIC)] != MAGIC:
            return None
        start += file.read(header_length(start) - len(start))
    return parse_header(start).object_id
