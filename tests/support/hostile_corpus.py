"""Reads the cases in tests/hostile: one HTTP upload a file, with what must come of it. The syntax is in its README."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pytest

FOLDER = Path(__file__).parents[1] / "hostile"

WORDS = {"chunked_uploads"}  # fields of Policy that are one word, and no list of patterns

_REPEAT = re.compile(rb"\\\{(.+?)\*(\d+)\}")
_ESCAPE = re.compile(rb"\\(?:([rnt0\\])|x([0-9a-f]{2})|(\r\n)|(.?))", re.DOTALL)
_BYTES = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}
_STRING = r'("(?:[^"\\]|\\.)*")'
_REFUSED = re.compile(r"(\d{3}) ([a-z_]+)")
_FIELD = re.compile(rf"field {_STRING} (?:(\S.*) )?= {_STRING}")
_FILE = re.compile(rf"file {_STRING} {_STRING} (.+) = {_STRING}")


@dataclass(frozen=True)
class Expected:
    """A part that the app must see; ``filename`` is None for a field, ``content_type`` for one without."""

    name: str
    content: bytes
    filename: str | None = None
    content_type: str | None = None


@dataclass(frozen=True)
class Case:
    """One request. ``status`` and ``reason`` are None where it must pass; ``clients`` names who sends such a body."""

    name: str
    why: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    status: int | None = None
    reason: str | None = None
    parts: tuple[Expected, ...] = ()
    path: str = "/upload"
    policy: dict[str, object] = field(default_factory=dict)
    clients: str = ""

    @property
    def content_type(self) -> str:
        return dict(self.headers)["Content-Type"]

    @property
    def chunked(self) -> bool:
        return any(name == "Transfer-Encoding" for name, _ in self.headers)

    @property
    def boundary(self) -> bytes | None:
        """The boundary of a case that passes, or is refused for something else than its Content-Type."""
        match = re.search(r'boundary=(?:"([^"]*)"|([^\s;,"]+))$', self.content_type, re.IGNORECASE)
        return (match[1] or match[2] or "").encode("latin-1") if match else None


def parse(name: str, text: bytes) -> Case:
    """Return the case that a file describes; raise :class:`ValueError` with the file's name where it is none."""
    text = _REPEAT.sub(lambda match: match[1] * int(match[2]), text)
    sections = text.split(b"\n\n", 2)
    if len(sections) < 3:
        # A body of nothing: the empty line behind the headers is the end of the file.
        sections = [*text.rstrip(b"\n").split(b"\n\n", 1), b""]
    if len(sections) != 3:
        raise ValueError(f"{name}: needs three sections with empty lines between them")
    return Case(
        name=name,
        **_parse_expectations(name, sections[0].decode("utf-8")),
        headers=tuple(_parse_header(name, line) for line in sections[1].split(b"\n")),
        body=_unescape(name, sections[2].replace(b"\n", b"\r\n")),
    )


@cache
def load() -> tuple[Case, ...]:
    """Return all cases, by name."""
    return tuple(parse(path.stem, path.read_bytes()) for path in sorted(FOLDER.glob("*.http")))


def params(cases, marks=MappingProxyType({})):
    """Return the cases for ``pytest.mark.parametrize``, some of them marked by name."""
    return [pytest.param(case, id=case.name, marks=marks.get(case.name, ())) for case in cases]


def accepted() -> list[Case]:
    """Return the cases that pass."""
    return [case for case in load() if case.status is None]


def refused() -> list[Case]:
    """Return the cases that are refused."""
    return [case for case in load() if case.status is not None]


def _parse_expectations(name: str, section: str) -> dict[str, object]:
    why: list[str] = []
    parts: list[Expected] = []
    found: dict[str, object] = {"policy": {}}
    for line in section.split("\n"):
        key, _, value = line.partition(": ")
        if line.startswith("#"):
            why.append(line[1:].strip())
        elif key == "expect" and (match := _REFUSED.fullmatch(value)):
            found |= {"status": int(match[1]), "reason": match[2]}
        elif key == "expect" and (match := _FIELD.fullmatch(value)):
            content = json.loads(match[3]).encode("latin-1")
            parts.append(Expected(json.loads(match[1]), content, None, match[2]))
        elif key == "expect" and (match := _FILE.fullmatch(value)):
            content = json.loads(match[4]).encode("latin-1")
            parts.append(Expected(json.loads(match[1]), content, json.loads(match[2]), match[3]))
        elif key == "policy":
            option, _, setting = value.partition("=")
            found["policy"][option] = _setting(option, setting)
        elif key in {"path", "clients"}:
            found[key] = value
        else:
            raise ValueError(f"{name}: what is {line!r}?")
    if not why:
        raise ValueError(f"{name}: say in a comment why this case is here")
    return {**found, "why": " ".join(why), "parts": tuple(parts)}


def _setting(option: str, text: str) -> object:
    if text.isdigit():
        return int(text)
    if text in {"yes", "no"}:
        return text == "yes"
    return text if option in WORDS else (text,)


def _parse_header(name: str, line: bytes) -> tuple[str, str]:
    key, colon, value = line.partition(b": ")
    if not colon:
        raise ValueError(f"{name}: {line!r} is no header")
    # Servers give headers to WSGI as Latin-1.
    return key.decode("ascii"), _unescape(name, value).decode("latin-1")


def _unescape(name: str, text: bytes) -> bytes:
    def replace(match):
        simple, number, line_end, _unknown = match.groups()
        if simple is not None:
            return _BYTES[simple]
        if number is not None:
            return bytes([int(number, 16)])
        if line_end is not None:
            return b""
        raise ValueError(f"{name}: unknown escape {match[0]!r}")

    return _ESCAPE.sub(replace, text)
