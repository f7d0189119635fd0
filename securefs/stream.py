"""Sealing and opening a stream: feed bytes, take bytes, in constant memory.

:class:`Encryptor` turns plaintext into one Format 2 file. :class:`Decryptor` opens such a file from
    its first byte on
and hands out a segment's plaintext only after that segment's tag was verified; only
:meth:`Decryptor.finalize` tells that the file is whole, so what it gave before must be thrown away
if that raises. Where the source can seek,
:func:`securefs.open_encrypted` knows at once whether the end is there.

The public constructor draws the randomness; :func:`seal_with` is the same with every random value
as an argument.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from secrets import token_bytes
from typing import TYPE_CHECKING

from securefs.backend import default_primitives
from securefs.errors import FormatError, IntegrityError, LimitExceededError, Reason
from securefs.header import (
    DEFAULT_SLOTS,
    FILE_ID_SIZE,
    FIXED_SIZE,
    MAGIC,
    build_preamble,
    fitting_slot_size,
    header_length,
    new_header_size,
    parse_header,
    slot_table,
)
from securefs.keys.slots import WRAP_SALT_SIZE, claimed_slots, new_slot
from securefs.metadata import encode_metadata, open_metadata, seal_metadata
from securefs.primitives import BLOCK_SIZE, KEY_SIZE, view_of
from securefs.suites import BODY_HEAD_SIZE, SALT_SIZE, TRAILER, Suite, body_context, check_index, derive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from securefs.header import Header, Slot
    from securefs.keys import Keyring
    from securefs.primitives import Bytes, Primitives, StreamSealer
    from securefs.suites import SegmentCipher

__all__ = [
    "TRAILER",
    "Decryptor",
    "Encryptor",
    "Randomness",
    "Unlocked",
    "growth",
    "most_overhead",
    "open_with",
    "seal_with",
    "split_start",
    "unlock",
]


@dataclass(frozen=True, slots=True, repr=False)
class Randomness:
    """Every random value of one file. Only tests choose them; :meth:`draw` asks the system."""

    file_id: bytes  # 32 bytes
    dek: bytes  # 32 bytes
    wrap_salt: bytes  # 32 bytes
    body_salt: bytes  # 24 bytes
    draw_iv: Callable[[], bytes]  # 16 bytes at every call; suite 1

    def draw_for_wrap(self, size: int) -> bytes:
        """Return what a wrap asks for: the chosen salt, or, of another size, what the system gives."""
        return self.wrap_salt if size == len(self.wrap_salt) else token_bytes(size)

    @classmethod
    def draw(cls) -> Randomness:
        """Return fresh values from the system's CSPRNG."""
        return cls(
            file_id=token_bytes(FILE_ID_SIZE),
            dek=token_bytes(KEY_SIZE),
            wrap_salt=token_bytes(WRAP_SALT_SIZE),
            body_salt=token_bytes(SALT_SIZE),
            draw_iv=_draw_iv,
        )


def _draw_iv() -> bytes:
    return token_bytes(BLOCK_SIZE)


class Encryptor:
    """Turns a stream of plaintext into one Format 2 file.

    :param keyring: its primary key seals the file.
    :param suite: the algorithms.
    :param context: the caller's own binding, 0 to 65,535 bytes, e.g. a tenant. Not stored: a reader
        must know it.
    :param metadata: sealed into the header, e.g. ``{"name": …, "type": …}``; JSON values, at most
        65,520 bytes and 32 levels of nesting.
    :raises ConfigurationError: for an unusable key, context or metadata.
    """

    def __init__(
        self,
        keyring: Keyring,
        suite: Suite = Suite.CBC_HMAC,
        context: bytes = b"",
        metadata: Mapping[str, object] | None = None,
        *,
        primitives: Primitives | None = None,
    ) -> None:
        primitives = primitives or default_primitives()
        random = Randomness.draw()
        text = encode_metadata(metadata or {})
        preamble, header = _header(keyring, suite, text, random, primitives)
        ctx = body_context(preamble, context)
        sealer = primitives.cobblestone_sealer(random.dek, ctx) if suite is Suite.GCM else None
        self._sealer = sealer or _SegmentSealer(suite, random, ctx, primitives)
        self._start, self._header_size = header, len(header)
        self._spent = False
        self._taken = 0  # bytes of plaintext
        self.object_id: str = random.file_id.hex()
        self.key_id: str = keyring.primary_id.hex()
        self.suite = suite

    def stored_length(self, size: int) -> int:
        """Return how many bytes the whole file has if ``size`` bytes of plaintext go into it."""
        return self._header_size + self.suite.body_length(size) + len(TRAILER)

    def update(self, data: Bytes) -> bytes:
        """Take plaintext of any length, return the stored bytes that are ready (perhaps none).

        It goes fastest with 64 to 256 KiB at a time.

        :raises ValueError: after :meth:`finalize`.
        :raises SourceError: these are no bytes.
        :raises LimitExceededError: a file does not hold so much. Both libraries' writers are held
            to it here.
        """
        view = view_of(data)
        start = self._begin()
        self._taken += len(view)
        if self._taken > self.suite.max_size:
            raise LimitExceededError(f"a file of this suite holds at most {self.suite.max_size} bytes")
        return start + self._sealer.update(view)

    def finalize(self) -> bytes:
        """Return the last stored bytes. The encryptor is spent after this: one encryptor, one file."""
        start = self._begin()
        self._spent = True
        return start + self._sealer.finalize() + TRAILER

    def _begin(self) -> bytes:
        """Return the header the first time; refuse what would come after the last segment."""
        if self._spent:
            raise ValueError("this encryptor is finalized: make a new one for every file")
        start, self._start = self._start, b""
        return start


class _SegmentSealer:
    """Cuts a stream into segments and seals each: salt, commitment, segments."""

    def __init__(self, suite: Suite, random: Randomness, ctx: bytes, primitives: Primitives) -> None:
        self._cipher, commitment = derive(
            suite, random.dek, random.body_salt, ctx, primitives, random.draw_iv
        )
        self._start = random.body_salt + commitment
        self._size = suite.segment_size
        self._pending = bytearray()  # less than a segment of plaintext
        self._index = 0

    def update(self, data: Bytes) -> bytes:
        view, size = memoryview(data), self._size
        output = [self._start]
        self._start = b""
        position = 0
        if self._pending:
            position = min(size - len(self._pending), len(view))
            self._pending += view[:position]
            if len(self._pending) < size:
                return output[0]
            output.append(self._seal(self._pending, final=False))
            self._pending = bytearray()
        while len(view) - position >= size:
            output.append(self._seal(view[position : position + size], final=False))
            position += size
        self._pending += view[position:]
        return b"".join(output)

    def finalize(self) -> bytes:
        # A plaintext that fills its last segment ends in one more, empty segment: see
        # securefs.suites.
        return self._start + self._seal(self._pending, final=True)

    def _seal(self, plaintext: Bytes, *, final: bool) -> bytes:
        check_index(self._index)
        sealed = self._cipher.seal(self._index, final, plaintext)
        self._index += 1
        return sealed


def _header(
    keyring: Keyring, suite: Suite, metadata_text: bytes, random: Randomness, primitives: Primitives
) -> tuple[bytes, bytes]:
    """Return (preamble, whole header) of a new file: one slot of generation 1, and an empty one for a rewrap."""
    preamble = build_preamble(suite, random.file_id, len(metadata_text))
    wrapper = keyring.wrapper()
    slot = new_slot(wrapper, random.dek, preamble, 1, random.draw_for_wrap)
    table = slot_table([slot], DEFAULT_SLOTS, fitting_slot_size(wrapper.payload_size))
    sealed = seal_metadata(metadata_text, random.dek, random.file_id, preamble, primitives)
    return preamble, preamble + table + sealed


def most_overhead(keyring: Keyring, metadata_size: int) -> int:
    """Return how many bytes a new file has at most beyond its plaintext and the :func:`growth` of that.

    :param metadata_size: of the longest metadata text, in bytes.
    """
    header = new_header_size(keyring.wrapper().payload_size, metadata_size)
    # An empty segment, and the rounding of its padding.
    last = max(suite.min_sealed + BLOCK_SIZE for suite in Suite)
    return header + BODY_HEAD_SIZE + last + len(TRAILER)


def growth(size: int) -> int:
    """Return how many bytes ``size`` bytes of plaintext grow by at most, in either suite, by their full segments."""
    return max(size * (suite.sealed_size - suite.segment_size) // suite.segment_size for suite in Suite)


def seal_with(
    random: Randomness,
    plaintext: bytes,
    keyring: Keyring,
    suite: Suite,
    primitives: Primitives,
    *,
    context: bytes = b"",
    metadata_text: bytes = b"",
) -> bytes:
    """Return a whole file made of the given random values: what :class:`Encryptor` does, without the drawing."""
    preamble, header = _header(keyring, suite, metadata_text, random, primitives)
    sealer: StreamSealer = _SegmentSealer(suite, random, body_context(preamble, context), primitives)
    return header + sealer.update(plaintext) + sealer.finalize() + TRAILER


@dataclass(frozen=True, slots=True)
class Unlocked:
    """A file whose slot was unwrapped, whose metadata and commitment were verified: ready to open segments.

    :ivar passed_over: slots that were passed over: the key that they name unwraps them, and what
        they hold is not the DEK that the contents were written with. Somebody planted them, with
        that key, or the contents, with the key that opened them.
    """

    header: Header
    key_id: str
    metadata: dict[str, object] = field(repr=False)  # sealed in the file: not for a log
    cipher: SegmentCipher
    passed_over: tuple[Slot, ...] = ()

    @property
    def planted(self) -> tuple[tuple[int, str], ...]:
        """The passed over slots as (number, key id in hex): what may be told of them."""
        return tuple((slot.index, slot.key_id.hex()) for slot in self.passed_over)


def unlock(start: bytes, keyring: Keyring, context: bytes, primitives: Primitives) -> Unlocked:
    """Return the file whose header and body head (56 bytes) are ``start``, or raise what the file deserves.

    The first slot counts whose DEK the metadata and the commitment hold under: who holds one key of
    the ring can shut nobody out by planting a slot of their own.

    :raises FormatError: it is no Format 2 file, or its header is not well-formed.
    :raises UnknownKeyError: the keyring holds no key that it names.
    :raises IntegrityError: it was changed, or is opened in another context than it was written in.
    """
    header, body_head = split_start(start)
    planted: list[Slot] = []
    first: FormatError | IntegrityError | None = None
    for slot, dek in claimed_slots(header, keyring):
        if dek is None:
            continue
        try:
            metadata, cipher = open_with(dek, header, body_head, context, primitives)
        except (FormatError, IntegrityError) as error:
            first = first or error
            planted.append(slot)
        else:
            return Unlocked(header, slot.key_id.hex(), metadata, cipher, tuple(planted))
    raise first or IntegrityError("no key slot unwraps: the preamble or the slot was changed")


def split_start(start: bytes) -> tuple[Header, bytes]:
    """Return (header, body head): the two parts of a file that say under which DEK it was written."""
    header = parse_header(start)
    body_head = start[header.length : header.length + BODY_HEAD_SIZE]
    if len(body_head) < BODY_HEAD_SIZE:
        raise FormatError("the file ends before its first segment", Reason.TRUNCATED)
    return header, body_head


def open_with(
    dek: bytes, header: Header, body_head: bytes, context: bytes, primitives: Primitives
) -> tuple[dict[str, object], SegmentCipher]:
    """Return (metadata, the cipher of the segments) of a file whose DEK this is.

    :raises FormatError, IntegrityError: it is not, the file was changed, or it was written in
        another context.
    """
    metadata = open_metadata(header.sealed_metadata, dek, header.file_id, header.preamble, primitives)
    ctx = body_context(header.preamble, context)
    cipher, commitment = derive(header.suite, dek, body_head[:SALT_SIZE], ctx, primitives, _draw_iv)
    if not hmac.compare_digest(commitment, body_head[SALT_SIZE:]):
        raise IntegrityError(
            "the commitment does not match: the file was changed, or written in another context",
            Reason.COMMITMENT_MISMATCH,
        )
    return metadata, cipher


class Decryptor:
    """Opens one Format 2 file as it streams by.

    Memory stays at a few segments whatever the size of the pieces that are fed, as long as those
    are bounded.

    :param keyring: any of its keys may be the one that the file names.
    :param context: what the file was written with.
    """

    def __init__(
        self, keyring: Keyring, context: bytes = b"", *, primitives: Primitives | None = None
    ) -> None:
        self._keyring = keyring
        self._context = context
        self._primitives = primitives or default_primitives()
        self._buffer = bytearray()
        self._index = self._first = 0
        self.unlocked: Unlocked | None = None  # None until the header was read and verified

    def update(self, data: Bytes) -> bytes:
        """Take stored bytes, return the verified plaintext that is ready (perhaps none).

        :raises FormatError, UnknownKeyError, IntegrityError: as :func:`unlock`, and for a segment
            that does not verify.
        :raises SourceError: these are no bytes.
        """
        self._buffer += view_of(data)
        self.unlocked = self.unlocked or self._try_unlock()
        return self._open_full_segments(self.unlocked) if self.unlocked else b""

    def skip_to(self, index: int) -> None:
        """Pass over the segments before ``index`` that did not come yet: they are neither opened nor verified."""
        self._first = index

    def finalize(self) -> bytes:
        """Return the last plaintext. Only when this returns is the file known to be whole.

        :raises IntegrityError: the file was cut, extended or changed.
        """
        if self.unlocked is None:
            # Too short for a header and a first segment: let the parser say where it ends.
            self.unlocked = unlock(bytes(self._buffer), self._keyring, self._context, self._primitives)
        if self._buffer[-1:] != TRAILER:
            raise IntegrityError(
                "the file does not end in its trailer", Reason.TRUNCATED, segment=self._index
            )
        check_index(self._index)
        return self.unlocked.cipher.open(self._index, True, self._buffer[:-1])

    def _try_unlock(self) -> Unlocked | None:
        buffer = self._buffer
        # Junk is refused as soon as it can't be a header, not when enough of it has come.
        if bytes(buffer[: len(MAGIC)]) != MAGIC[: len(buffer)]:
            header_length(bytes(buffer[: len(MAGIC)]))
        if len(buffer) < FIXED_SIZE:
            return None
        needed = header_length(bytes(buffer[:FIXED_SIZE])) + BODY_HEAD_SIZE
        if len(buffer) < needed:
            return None
        unlocked = unlock(bytes(buffer[:needed]), self._keyring, self._context, self._primitives)
        # Only now: a header that was refused stays where it is, so that feeding on is refused
        # again. Otherwise a good file behind a bad header would open for a caller that went on
        # after the error.
        del buffer[:needed]
        return unlocked

    def _open_full_segments(self, unlocked: Unlocked) -> bytes:
        size = unlocked.header.suite.sealed_size
        output = memoryview(bytearray(len(self._buffer)))
        position = opened = 0
        # The last segment is always shorter than a full one, and one trailer byte follows it: more
        # than a full segment's bytes mean that the first of them are not the last segment.
        with memoryview(self._buffer) as view:
            while len(view) - position > size:
                check_index(self._index)
                with view[position : position + size] as segment:
                    if self._index >= self._first:
                        opened += unlocked.cipher.open_into(self._index, False, segment, output[opened:])
                self._index += 1
                position += size
        del self._buffer[:position]
        return bytes(output[:opened])
