"""Journals that were changed at random: bytes, lines, files, and values under links that hold again."""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random

from support import journal_corpus
from support.made_logs import MadeJournal, encode, leaf_of

BASES = [
    journal_corpus.sealed,
    journal_corpus.ended,
    journal_corpus.broken,
    *(
        journal_corpus.CASES[name].build
        for name in (
            "older-than-the-log",
            "a-writer-died-and-was-adopted",
            "a-chain-replaced-another",
            "started-again",
            "killed-between-record-and-checkpoint",
            "the-last-checkpoint-is-torn",
        )
    ),
]
_ODD = [
    b"\n",
    b"\r",
    b" ",
    b'"',
    b"{",
    b"}",
    b",",
    b":",
    b"\\",
    b"0",
    b"9",
    b"a",
    b"e",
    b".",
    b"-",
    b"\0",
    b"\x7f",
]
_ODD += [b"\x80", b"\xff", b"\n\n"]
_EVENTS = ["server.start", "server.stop", "file.encrypt", "audit.seal", "audit.adopted", "audit.cutover"]
_TIMES = [
    "1999-01-01T00:00:00.000000000Z",
    "2030-01-01T00:00:00.000000000Z",
    "2026-02-30T00:00:00.000000000Z",
]

Files = dict[str, bytes]


def mutant(random: Random, folder) -> MadeJournal:
    """Write a journal that was changed in one to three ways; return how it is to be verified."""
    made = random.choice(BASES)()
    made.tiles = random.random() < 0.7
    files = made.contents()
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        name = random.choice([*files, "time"])
        if name == "time":
            made.later(seconds=random.choice([0, 30, 59, 61, 100, -100, 10**6]))
        elif name in files:
            random.choice(_WAYS)(random, files, name)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return made


def _bit(random: Random, files: Files, name: str) -> None:
    data = bytearray(files[name])
    if data:
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    files[name] = bytes(data)


def _odd_byte(random: Random, files: Files, name: str) -> None:
    at, over = random.randint(0, len(files[name])), random.choice([0, 1])
    files[name] = files[name][:at] + random.choice(_ODD) + files[name][at + over :]


def _cut(random: Random, files: Files, name: str) -> None:
    files[name] = files[name][: random.randint(0, len(files[name]))]


def _lines(change):
    def way(random: Random, files: Files, name: str) -> None:
        lines = files[name].split(b"\n")
        change(random, lines)
        files[name] = b"\n".join(lines)

    return way


def _delete_line(random: Random, lines: list[bytes]) -> None:
    del lines[random.randrange(len(lines))]


def _exchange_lines(random: Random, lines: list[bytes]) -> None:
    one, other = random.randrange(len(lines)), random.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]


def _repeat_line(random: Random, lines: list[bytes]) -> None:
    lines.insert(random.randrange(len(lines)), random.choice(lines))


def _cut_lines(random: Random, lines: list[bytes]) -> None:
    lines[random.randrange(len(lines)) :] = [b""]


def _remove(random: Random, files: Files, name: str) -> None:
    del files[name]


def _exchange_files(random: Random, files: Files, name: str) -> None:
    other = random.choice([*files])
    files[name], files[other] = files[other], files[name]


def _change_value(random: Random, lines: list[bytes]) -> None:
    """Change a record; the links after it hold again."""
    target, before = random.randrange(len(lines)), b""
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if not isinstance(record, dict):
            continue
        if number == target:
            with suppress(TypeError, KeyError, IndexError, AttributeError):
                # What another change left may have other types.
                _change(random, record)
        if number and random.random() < 0.95:
            record["prev"] = leaf_of(before).hex()
        lines[number] = before = encode(record)


def _change(random: Random, record: dict) -> None:
    change = random.randrange(7)
    seal, obj = record.get("seal"), record.get("obj", {})
    if change == 0:
        record["sev"] = random.randrange(7)
    elif change == 1:
        record["time"] = random.choice(_TIMES)
    elif change == 2:
        record["event"] = random.choice(_EVENTS)
    elif change == 3:
        record["outcome"] = random.choice(["started", "success", "failure"])
    elif change == 4 and seal:
        seal.update(
            random.choice([{"index": seal["index"] + 1}, {"size": seal["size"] + 1}, {"key": "a" * 64}])
        )
    elif change == 5 and seal:
        random.choice(seal["runs"])[random.randrange(1, 3)] += random.choice([-1, 1, 5])
    elif obj:
        name = random.choice([*obj])
        obj[name] = obj[name] + 1 if isinstance(obj[name], int) else "x"


_WAYS = [
    *(_bit, _odd_byte, _cut, _remove, _exchange_files),
    *map(_lines, (_delete_line, _exchange_lines, _repeat_line, _cut_lines, _change_value, _change_value)),
]
