"""Reads a mutant with five readers and judges the results.

The readers are the seekable ``open_encrypted`` and the streaming ``Decryptor``, each on both
libraries, and ``second_decryptor``. :meth:`Judge.judge` checks that

- each result is the correct one, where that is known beforehand, and the reason of a rejection is
  the outcome that docs/format.md has for such a header or length;
- the readers agree on plaintext and metadata, and the four of the library also on ids, exception
  class and reason;
- only errors of the library escape from it, and only ``Rejected`` from the second decryptor;
- ``verify`` passes if and only if reading succeeds, and otherwise gives the same reason;
- plaintext that is released before an error is genuine, and after an error no stream succeeds.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import second_decryptor
from torture.expected import UNDECIDED, Mutant, header_outcome
from torture.sealer import MAGIC

from securefs import Decryptor, IntegrityError, Keyring, Reason, SecureFSError, open_encrypted, verify
from securefs.accelerated import OpenSSL
from securefs.primitives import PyCryptodome, _PyCryptodomeGcm

if TYPE_CHECKING:
    from torture.dice import Dice

    from securefs.primitives import Primitives

REMEMBERED = 20_000  # answers of a slow library
# Outcomes that may come from the body: the header is good, or may be.
BODY_REASONS = {"", Reason.TAG_MISMATCH.value, Reason.TRUNCATED.value}
NO_RING = "keys refused"  # no reason of a file's: these keys must not be in one ring
# Once a slot may be tried. A text of metadata that is not allowed is a bad header.
BEHIND_THE_HEADER = {"", "tag_mismatch", "commitment_mismatch", "truncated", "bad_header"}
REJECTED = "Rejected"  # the second decryptor's one kind of error


class Found(NamedTuple):
    """The result of one reader: either ``error`` and ``reason`` are empty, or everything else is.

    Metadata is given as its ``repr``, in which 1, 1.0 and True differ.
    """

    plaintext: bytes = b""
    metadata: str = ""
    key_id: str = ""
    object_id: str = ""
    passed_over: tuple[tuple[int, str], ...] = ()
    error: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule. Findings of one kind have the same text in ``kind``."""

    kind: str
    detail: str


@lru_cache(maxsize=512)
def keyring(keys: tuple[bytes, ...], library: Primitives | None = None) -> Keyring:
    """Return the ring of these keys; ``library`` unwraps."""
    return Keyring(keys[0], keys[1:], primitives=library)


def refused(error: SecureFSError) -> Found:
    reason = getattr(error, "reason", None)
    return Found(error=type(error).__name__, reason=reason.value if reason else NO_RING)


def escaped(error: BaseException) -> Found:
    return Found(error=f"ESCAPED {type(error).__name__}", reason=str(error)[:200])


class OtherFile(io.BytesIO):
    """A file object of a class unknown to the library, which reads it by another way."""


class _RememberedGcm(_PyCryptodomeGcm):
    def __init__(self, key: bytes, known: dict) -> None:
        super().__init__(key)
        self._known = known

    def open(self, nonce: bytes, sealed) -> bytes:
        if len(sealed) > 256:
            return super().open(nonce, sealed)
        asked = self._key, nonce, bytes(sealed)
        answer = self._known.get(asked)
        if answer is None:
            try:
                answer = super().open(nonce, sealed)
            except IntegrityError as error:
                answer = error.with_traceback(None)
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[asked] = answer
        if isinstance(answer, IntegrityError):
            raise copy(answer)
        return answer


class RememberingPyCryptodome(PyCryptodome):
    """PyCryptodome, but short GCM texts that were opened before are not opened again.

    Each such call takes 0.2 ms. A mutant is read several times, and most share an unchanged slot
    with others: without this a campaign takes a fifth longer.
    """

    def __init__(self) -> None:
        self._known: dict = {}

    def gcm(self, key: bytes) -> _RememberedGcm:
        return _RememberedGcm(key, self._known)


class Judge:
    """Judges mutants one after another. Each process makes its own, with its own libraries."""

    def __init__(self) -> None:
        self.libraries = (RememberingPyCryptodome(), OpenSSL())

    def seekable(self, mutant: Mutant, library, dice: Dice, findings: list[Finding]) -> Found:
        source = (io.BytesIO if dice.below(4) else OtherFile)(mutant.data)
        in_pieces, failed = dice.one_in(3), None
        try:
            file = open_encrypted(
                source,
                keyring(mutant.ring, library),
                mutant.context,
                format_1=mutant.format_1,
                primitives=library,
            )
            if in_pieces:
                failed = self.pieces(mutant, file, dice, findings)
            file.seek(0)
            plaintext = file.read()
            if len(plaintext) != file.size or file.read(1):
                findings.append(Finding("size", f"{len(plaintext)} bytes read, size is {file.size}"))
            if failed:
                findings.append(Finding("pieces", f"the whole opens, and a piece does not: {failed}"))
            return Found(plaintext, repr(file.metadata), file.key_id, file.object_id, file.passed_over)
        except SecureFSError as error:
            return refused(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, it must not be
            return escaped(error)

    def pieces(self, mutant: Mutant, file, dice: Dice, findings: list[Finding]) -> str:
        """Read pieces at several places. Return the last error, empty if there was none."""
        failed = ""
        for _ in range(dice.between(1, 4)):
            at = dice.below(file.size + 2) if dice.below(4) else max(0, file.size - dice.below(40))
            size = dice.pick([1, 16, 100, 16_384, 65_536, file.size])
            file.seek(at)
            try:
                piece = file.read(size)
            except SecureFSError as error:
                failed = repr(error)
                continue
            if not any(text[at : at + len(piece)] == piece for text in mutant.genuine):
                findings.append(
                    Finding("partial release", f"{len(piece)} bytes read at {at} are not genuine")
                )
        return failed

    def streaming(self, mutant: Mutant, library, dice: Dice, findings: list[Finding]) -> Found:
        given: list[bytes] = []
        decryptor = None
        try:
            decryptor = Decryptor(keyring(mutant.ring, library), mutant.context, primitives=library)
            for piece in feeds(dice, mutant.data):
                given.append(decryptor.update(piece))  # noqa: PERF401  # what came before an error counts
            last = decryptor.finalize()
        except SecureFSError as error:
            found = refused(error)
        except Exception as error:  # noqa: BLE001  # the same
            found = escaped(error)
        else:
            unlocked = decryptor.unlocked
            ids = unlocked.key_id, unlocked.header.object_id
            passed_over = tuple((slot.index, slot.key_id.hex()) for slot in unlocked.passed_over)
            return Found(b"".join(given) + last, repr(unlocked.metadata), *ids, passed_over)
        output = b"".join(given)
        if output and not any(text.startswith(output) for text in mutant.genuine):
            findings.append(
                Finding("partial release", f"a stream gave {len(output)} bytes that are not genuine")
            )
        if decryptor and dice.one_in(4):
            self.goes_on(decryptor, mutant.data, dice, findings)
        return found

    @staticmethod
    def goes_on(decryptor, data: bytes, dice: Dice, findings: list[Finding]) -> None:
        """Use a decryptor after its error: it must not succeed."""
        try:
            if dice.one_in(2):
                decryptor.update(data[-dice.between(1, 64) :])
            decryptor.finalize()
        except SecureFSError:
            return
        except Exception as error:  # noqa: BLE001  # the same
            findings.append(Finding(f"after an error, escaped {type(error).__name__}", str(error)[:200]))
            return
        findings.append(Finding("after an error", "the stream ended as if it were whole"))

    def verified(self, mutant: Mutant, library, found: Found, findings: list[Finding]) -> None:
        """Compare verify with ``found``, the result of reading with the same library."""
        source = io.BytesIO(mutant.data)
        try:
            info = verify(
                source,
                keyring(mutant.ring, library),
                mutant.context,
                format_1=mutant.format_1,
                primitives=library,
            )
            says = (info.size, repr(info.metadata), info.key_id, info.object_id, info.passed_over)
            if found.error:
                findings.append(Finding("verify passes what does not open", found.error))
            elif says != (len(found.plaintext), *found[1:5]):
                findings.append(Finding("verify tells something else", repr(info)))
        except SecureFSError as error:
            says = refused(error)
            if not found.error:
                findings.append(Finding("verify fails on what opens", repr(error)))
            elif says != found:
                findings.append(Finding("verify gives another reason", f"{says} for {found}"))
        except Exception as error:  # noqa: BLE001  # the same
            findings.append(Finding(f"verify, escaped {type(error).__name__}", str(error)[:200]))

    @staticmethod
    def second(mutant: Mutant) -> Found:
        try:
            if mutant.format_1 and mutant.data[:8] != MAGIC:
                return Found(second_decryptor.open_format_1(mutant.data, list(mutant.ring)), "{}")
            plaintext, metadata = second_decryptor.open_format_2(
                mutant.data, list(mutant.ring), mutant.context
            )
            return Found(plaintext, repr(metadata))
        except second_decryptor.Rejected as error:
            return Found(error=REJECTED, reason=str(error))
        except Exception as error:  # noqa: BLE001  # the same
            return escaped(error)

    def read(self, mutant: Mutant, dice: Dice, findings: list[Finding]) -> dict[str, Found]:
        """Return the result of each reader by its name."""
        found: dict[str, Found] = {}
        for library in self.libraries:
            found[f"seekable, {library.name}"] = self.seekable(mutant, library, dice, findings)
            # Format 1 has no streaming reader: its tag is at the end. It is read a second time.
            streamed = self.streaming if not mutant.format_1 else self.seekable
            found[f"streaming, {library.name}"] = streamed(mutant, library, dice, findings)
        found["second"] = self.second(mutant)
        return found

    def judge(self, mutant: Mutant, dice: Dice) -> tuple[str, list[Finding]]:
        """Return (the outcome, for the table of counts; findings)."""
        findings: list[Finding] = []
        found = self.read(mutant, dice, findings)
        first = next(iter(found.values()))
        # A header is refused in the same function by both, so one in three is enough. PyCryptodome
        # is the slower library.
        if first.reason in BODY_REASONS or dice.one_in(3):
            library = self.libraries[0 if dice.one_in(4) else 1]
            self.verified(mutant, library, found[f"seekable, {library.name}"], findings)
        _compare(mutant, found, first, findings)
        return first.reason if first.error else "opened", findings


def _compare(mutant: Mutant, found: dict[str, Found], first: Found, findings: list[Finding]) -> None:
    second = found["second"]
    for name, what in found.items():
        if what.error.startswith("ESCAPED"):
            findings.append(Finding(f"{name}: {what.error.lower()}", what.reason))
        elif name != "second" and what != first:
            findings.append(
                Finding(
                    f"ours differ: {_said(what)} | {_said(first)}",
                    f"{name}: {short(what)}; first: {short(first)}",
                )
            )
    if bool(second.error) != bool(first.error):
        findings.append(
            Finding(
                f"second differs: {_said(second)} | ours: {_said(first)}", f"{short(second)}; {short(first)}"
            )
        )
    elif second[:2] != first[:2]:
        findings.append(Finding("second finds other contents", f"{short(second)}; {short(first)}"))
    _check_expected(mutant, first, findings)
    _check_reason(mutant, first, findings)


def _check_reason(mutant: Mutant, first: Found, findings: list[Finding]) -> None:
    """Compare the reason with the outcomes that docs/format.md has for a header and a length."""
    if not mutant.format_1 or mutant.data[:8] == MAGIC:
        outcome = header_outcome(mutant.data, mutant.ring)
        allowed = {outcome} if outcome else BEHIND_THE_HEADER
    elif len(mutant.data) < 64 or len(mutant.data) % 16:
        allowed = {"truncated"}
    else:
        allowed = {"", "tag_mismatch"}
    if first.reason not in {*allowed, NO_RING}:
        said = first.reason or "opened"
        findings.append(Finding(f"outcome is {said}, not {' or '.join(sorted(allowed))}", short(first)))


def _check_expected(mutant: Mutant, first: Found, findings: list[Finding]) -> None:
    expected = mutant.expected
    if expected is UNDECIDED:
        if not first.error and first.plaintext not in mutant.genuine:
            findings.append(Finding("opened, and the plaintext is not genuine", short(first)))
    elif expected is None:
        if not first.error:
            findings.append(Finding("opened, and must be rejected", short(first)))
        elif mutant.reason and mutant.reason != first.reason:
            findings.append(Finding(f"rejected as {first.reason}, not {mutant.reason}", short(first)))
    elif first.error:
        findings.append(Finding(f"rejected as {first.reason}, and must open", short(first)))
    elif first != Found(expected.plaintext, repr(expected.metadata), *_ids(expected)):
        findings.append(
            Finding(
                "opened with other contents", f"{short(first)}; expected {expected.metadata} {_ids(expected)}"
            )
        )


def _ids(expected) -> tuple:
    return expected.key_id, expected.object_id, expected.passed_over


def _said(found: Found) -> str:
    if found.error in {"", REJECTED}:
        return found.error or "opened"
    return f"{found.error} {found.reason}"


def short(found: Found) -> str:
    if found.error:
        return f"{found.error} ({found.reason})"
    text, metadata = found.plaintext, found.metadata[:200]
    ids = f"key {found.key_id}, passed over {found.passed_over}"
    return f"opened: {len(text)} bytes {text[:16].hex()}, metadata {metadata}, {ids}"


def feeds(dice: Dice, data: bytes) -> Iterator[bytes]:
    """Yield ``data`` in pieces: one, two, equal ones or random ones."""
    way, size = dice.below(8), len(data)
    if way < 3:
        yield data
    elif way < 5:
        at = dice.below(size + 1)
        yield data[:at]
        yield b""
        yield data[at:]
    else:
        step = dice.pick(
            [1 if dice.one_in(4) else 57, 16, 56, 100, 376, 432, 16_399, 16_400, 16_401, 65_600, 65_601]
        )
        step = max(step, size // 64)
        at = 0
        while at < size:
            taken = step if way == 5 else dice.between(1, 2 * step)
            yield data[at : at + taken]
            at += taken
