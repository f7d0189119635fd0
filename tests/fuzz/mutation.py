"""Inputs that follow from a number and this repository alone: known inputs, changed in a few places.

The same number gives the same inputs on every machine and every version of Python. :class:`Mutator`
therefore draws with :meth:`random.Random.random` alone, after ``seed(..., version=2)``. Python
promises that these two give the same sequence in later versions, and promises it of nothing else in
that module: https://docs.python.org/3/library/random.html#notes-on-reproducibility
"""

from __future__ import annotations

import random
import re
from typing import TYPE_CHECKING

from fuzz.upload_property import HEAD, STREAMED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

CHANGES = 3  # at most, of one input
FEW = 16  # bytes that are removed or repeated at most, but for one time in eight
# Places where a change often gives another body that is accepted, or nearly: beside a character
# that parsers look for, within a quoted value, within a part's data.
_TELLING = re.compile(rb'(?=[\r\n"\\:;=/.%-])|(?<=[\r\n"\\:;=/.%-])')
_QUOTED = re.compile(rb'(?<==")[^"\r\n]*')
_DATA = re.compile(rb"(?s)(?<=\r\n\r\n).*?(?=\r\n--)")
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb'\\(?:x([0-9a-f]{2})|(["\\]))')


def dictionary(path: Path) -> list[bytes]:
    """Return the words of a libFuzzer dictionary."""
    words = []
    for line in path.read_text("ascii").splitlines():
        if not line.startswith("#"):
            word = _WORD.fullmatch(line)[1].encode("ascii")
            words.append(
                _ESCAPE.sub(lambda pair: bytes.fromhex(pair[1].decode()) if pair[1] else pair[2], word)
            )
    return words


class Mutator:
    """An endless row of inputs.

    :param seed: the number that they follow from.
    :param known: the inputs to begin with, in an order that is always the same.
    :param words: what may be inserted.
    :param longest: bytes of an input at most.
    """

    def __init__(self, seed: int, known: Sequence[bytes], words: Sequence[bytes], longest: int) -> None:
        generator = random.Random()
        generator.seed(seed, version=2)
        self._random = generator.random
        self._known, self._words, self._longest = known, words, longest
        self._changes = (
            *(self._flip, self._set, self._remove, self._repeat, self._insert, self._insert),
            *(self._overwrite, self._splice, self._move),
        )

    def __iter__(self) -> Iterator[bytes]:
        while True:
            data = self._one_of(self._known)
            for _ in range(1 + self._below(CHANGES)):
                data = self._one_of(self._changes)(data)
            if not self._below(2):
                data = self._sent_otherwise(data)
            yield data[: self._longest]

    def _below(self, limit: int) -> int:
        return int(self._random() * limit)

    def _one_of(self, things):
        return things[self._below(len(things))]

    def _place(self, data: bytes) -> int:
        """Return a position behind the head, anywhere or in a place that tells."""
        kind = self._one_of((None, _TELLING, _QUOTED, _DATA))
        spans = [match.span() for match in kind.finditer(data, HEAD)] if kind else []
        start, stop = self._one_of(spans) if spans else (min(HEAD, len(data)), len(data))
        return start + self._below(stop - start + 1)

    def _range(self, data: bytes) -> tuple[int, int]:
        start = self._place(data)
        most = FEW if self._below(8) else len(data)
        return start, min(len(data), start + 1 + self._below(most))

    def _sent_otherwise(self, data: bytes) -> bytes:
        """Change a byte of the head, which is complete then."""
        head, at = bytearray(data[:HEAD].ljust(HEAD, b"\0")), self._below(HEAD)
        head[at] = self._below(256) if at else head[0] ^ 1 << self._below(STREAMED.bit_length())
        return bytes(head) + data[HEAD:]

    def _flip(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + bytes(byte ^ 1 << self._below(8) for byte in data[at : at + 1]) + data[at + 1 :]

    def _set(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + bytes([self._below(256)]) + data[at + 1 :]

    def _remove(self, data: bytes) -> bytes:
        start, stop = self._range(data)
        return data[:start] + data[stop:]

    def _repeat(self, data: bytes) -> bytes:
        start, stop = self._range(data)
        return data[:stop] + data[start:]

    def _move(self, data: bytes) -> bytes:
        """Copy some bytes to another place."""
        (start, stop), at = self._range(data), self._place(data)
        return data[:at] + data[start:stop] + data[at:]

    def _insert(self, data: bytes) -> bytes:
        at = self._place(data)
        return data[:at] + self._one_of(self._words) + data[at:]

    def _overwrite(self, data: bytes) -> bytes:
        at, word = self._place(data), self._one_of(self._words)
        return data[:at] + word + data[at + len(word) :]

    def _splice(self, data: bytes) -> bytes:
        """Go on as another input does."""
        other = self._one_of(self._known)
        return data[: self._place(data)] + other[self._place(other) :]
