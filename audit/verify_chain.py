"""The verifier of one chain: bytes in, findings out.

Guarantees: every line is checked against the record format, its number, its chain and the hash of
the line before it, in memory that does not grow with the chain. It refuses nothing and raises
nothing: any content of the file results in a :class:`ChainSummary` and :class:`Finding` objects,
and an unreadable line does not hide the lines after it. Pure: it opens no file and reads no clock.
Times need not rise, because clocks are set back.

Implements the section on verifying of ``docs/journal.md``.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from securefs.audit.fields import LONGEST_LINE, RecordError
from securefs.audit.record import NO_LINE, line_hash, new_line_hash, parse_line

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_FINDINGS", "ChainSummary", "ChainVerifier", "Claim", "Finding", "TornTail"]

MAX_FINDINGS: Final = 100  # findings kept for one chain; further ones are only counted


@dataclass(frozen=True, slots=True)
class Finding:
    """A check that failed. ``seq`` is None and ``offset`` 0 if it concerns the file as a whole.

    Codes: ``not_json`` ``not_canonical`` ``bad_field`` ``version`` ``too_long`` for a line that is
    not a record; ``chain`` ``sequence`` ``link`` ``start`` ``stop`` for a record in a wrong place;
    ``not_a_file`` ``second_file`` ``segment`` ``missing_chain`` ``cut_chain`` for a file.
    :attr:`offset` is the byte at which the line begins.
    """

    code: str
    file: str
    chain: str
    seq: int | None
    offset: int
    message: str


@dataclass(frozen=True, slots=True)
class TornTail:
    """Bytes after the last line end, left by a crash or a full disk. Evidence, not an error.

    ``size`` is in bytes, 0 for a file without one whole line in it; ``digest`` is the hex SHA-256
    of these bytes.
    """

    file: str
    chain: str
    offset: int
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What the first line of a chain says of the chain that it replaces.

    It says that ``seq`` was the last record there, with the hash ``digest``.
    """

    file: str
    by: str
    replaces: str
    seq: int
    digest: str


@dataclass(frozen=True, slots=True)
class ChainSummary:
    """One chain as it was found: ``records`` whole lines, the last of which has the hash ``head``.

    ``before_head`` is the hash of the line before that one. ``ended`` says that ``server.stop`` was
    there.
    """

    chain: str
    file: str
    records: int
    head: str
    before_head: str
    ended: bool
    torn: TornTail | None
    claim: Claim | None
    live: bool = False


@dataclass(slots=True)
class ChainVerifier:
    """Verifies the bytes of one chain in file order.

    :param chain: the id in the file's name, 32 hex digits.
    """

    file: str
    chain: str
    findings: list[Finding] = field(default_factory=list)
    finding_count: int = 0
    _rest: bytes = b""
    _offset: int = 0  # of _rest in the chain
    _long: _LongLine | None = None
    _records: int = 0
    _seq: int = 0  # that the next record must have
    _head: str = NO_LINE
    _before_head: str = NO_LINE
    _ended: bool = False
    _claim: Claim | None = None
    _number: int = 0  # of the file
    _base: int = 0  # byte of the chain at which the file begins
    _fresh: bool = False  # no record of this file was seen, and it is not the first one

    @classmethod
    def resumed(
        cls, file: str, chain: str, records: int, offset: int, heads: tuple[str, str], *, ended: bool
    ) -> ChainVerifier:
        """Return a verifier of what follows so many records and bytes that were verified before.

        :param heads: the hashes of the last record and of the one before it, as hex.
        """
        head, before = (value or NO_LINE for value in heads)
        verifier = cls(file, chain)
        verifier._records = verifier._seq = records
        verifier._offset, verifier._head, verifier._before_head = offset, head, before
        verifier._ended = ended
        return verifier

    def begin_in(self, number: int, base: int, *, fresh: bool) -> None:
        """Begin in this file, which begins at byte ``base`` of the chain.

        :param fresh: at its first record, and it is not the first file.
        """
        self._number, self._base, self._fresh = number, base, fresh

    def next_file(self, file: str, number: int) -> None:
        """Go on in another file of the chain; it must be the next one."""
        whole = not self._rest and self._long is None
        self._offset += len(self._rest) if self._long is None else self._long.size
        self._rest, self._long = b"", None
        self.file, self._base = file, self._offset
        if number != self._number + 1:
            self._find("segment", None, f"file {self._number + 1} of the chain is missing before this one")
        elif not whole:
            self._find("segment", None, "the file before this one does not end with a whole line")
        self._number, self._fresh = number, True

    def damaged(self, why: str) -> None:
        """Say that the file could not be read to its end."""
        self._find("segment", None, why)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the file, any number of them."""
        if self._long is not None:
            data = self._skip(self._long, data)
        # Only the line end ends a line: str.splitlines() knows ten more separators, and a name
        # could carry one.
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
            self._offset += len(line) + 1
        if len(self._rest) >= LONGEST_LINE:
            # No record is that long, and memory must not grow with the content of the file.
            self._long, self._rest = _LongLine(self._rest), b""

    def finish(self) -> ChainSummary:
        """Return what was found, after the last byte."""
        if self._long is not None:
            self._find(
                "too_long", None, f"no record is longer than {LONGEST_LINE} bytes, not even a torn one"
            )
        torn = self._torn_tail()
        if torn is not None and self._ended:
            # A writer closes the file after server.stop: no crash leaves bytes there.
            self._find("stop", None, "nothing can follow server.stop, not even a torn record")
        return ChainSummary(
            chain=self.chain,
            file=self.file,
            records=self._records,
            head=self._head,
            before_head=self._before_head,
            ended=self._ended,
            torn=torn,
            claim=self._claim,
        )

    def _torn_tail(self) -> TornTail | None:
        if self._long is not None:
            size, digest = self._long.size, self._long.plain.hexdigest()
        elif self._rest or not self._records:
            size, digest = len(self._rest), hashlib.sha256(self._rest).hexdigest()
        else:
            return None
        return TornTail(self.file, self.chain, self._offset - self._base, size, digest)

    def _skip(self, long: _LongLine, data: bytes) -> bytes:
        """Count and hash the bytes of a line that is too long; return the bytes after it."""
        part, end, data = data.partition(b"\n")
        long.add(part)
        if end:
            self._long = None
            self._broken_line(
                "too_long", f"no record is longer than {LONGEST_LINE} bytes", long.linked.hexdigest()
            )
            self._offset += long.size + 1
        return data

    def _line(self, line: bytes) -> None:
        digest = line_hash(line)
        try:
            record = parse_line(line)
        except RecordError as error:
            self._broken_line(error.code, str(error), digest)
            return
        self._check_place(record)
        self._check_event(record)
        self._advance(digest)

    def _check_place(self, record: Mapping[str, object]) -> None:
        seq = cast("int", record["seq"])  # as parse_line has checked
        if record["chain"] != self.chain:
            self._find("chain", seq, f"the record belongs to chain {record['chain']}")
        if seq != self._seq:
            self._find("sequence", seq, f"record {self._seq} should stand here")
            self._seq = seq
        if record["prev"] != self._head:
            self._find(
                "link", seq, "the line before this one is not the one that this record was written after"
            )

    def _check_event(self, record: Mapping[str, object]) -> None:
        first = self._records == 0
        obj = record.get("obj")
        if self._fresh != (record["event"] == "audit.segment"):
            self._find("segment", self._seq, "audit.segment must be the first record of each further file")
        elif self._fresh and _begins(record) != (self._number, self._offset):
            self._find("segment", self._seq, f"file {self._number} begins with byte {self._offset}")
        self._fresh = False
        if first != (record["event"] == "server.start"):
            self._find("start", self._seq, "server.start must be the first record, and only the first")
        if self._ended:
            self._find("stop", self._seq, "nothing can follow server.stop")
        self._ended = record["event"] == "server.stop"
        if first and isinstance(obj, dict) and {"replaces", "replaces_seq", "replaces_hash"} <= obj.keys():
            self._claim = Claim(
                self.file, self.chain, obj["replaces"], obj["replaces_seq"], obj["replaces_hash"]
            )

    def _broken_line(self, code: str, message: str, digest: str) -> None:
        self._find(code, None, message)
        self._advance(digest)

    def _advance(self, digest: str) -> None:
        self._records += 1
        self._seq += 1
        self._before_head, self._head = self._head, digest

    def _find(self, code: str, seq: int | None, message: str) -> None:
        self.finding_count += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(
                Finding(code, self.file, self.chain, seq, self._offset - self._base, message)
            )


def _begins(record: Mapping[str, object]) -> tuple[object, object]:
    obj = record.get("obj")
    return (obj.get("segment"), obj.get("start")) if isinstance(obj, dict) else (None, None)


class _LongLine:
    """A line too long to keep: its size in bytes, its plain hash, and its hash as a link."""

    __slots__ = ("linked", "plain", "size")

    def __init__(self, start: bytes) -> None:
        self.size = 0
        self.plain = hashlib.sha256()
        self.linked = new_line_hash()
        self.add(start)

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.plain.update(data)
        self.linked.update(data)
