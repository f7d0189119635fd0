"""Sealing and opening a stream: feed bytes, take bytes, in constant memory.

:class:`Encryptor` turns plaintext into one Format 2 file. :class:`Decryptor` opens such a file from
its first byte on, and returns the plaintext of a segment only after the segment's tag was verified.
Only :meth:`Decryptor.finalize` proves that the file is whole: if it raises, the caller must discard
everything that was returned before. If the source can seek, :func:`securefs.open_encrypted` detects
truncation at once.

The public constructor draws the randomness; :func:`seal_with` does the same with every random value
as an argument.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field, replace
from secrets import token_bytes
from typing import TYPE_CHECKING

from securefs.arguments import require
from securefs.backend import default_primitives
from securefs.errors import (
    ConfigurationError,
    FormatError,
    IntegrityError,
    LimitExceededError,
    Reason,
)
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
from securefs.keys import Keyring
from securefs.keys.slots import WRAP_SALT_SIZE, claimed_slots, new_slot
from securefs.metadata import encode_metadata, open_metadata, seal_metadata
from securefs.primitives import BLOCK_SIZE, KEY_SIZE, view_of
from securefs.secrecy import HoldsSecrets, clears_frames
from securefs.suites import BODY_HEAD_SIZE, SALT_SIZE, TRAILER, Suite, body_context, check_index, derive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from securefs.header import Header, Slot
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
class Randomness(HoldsSecrets):
    """Every random value of one file. Only tests choose them; :meth:`draw` asks the system."""

    file_id: bytes  # 32 bytes
    dek: bytes  # 32 bytes
    wrap_salt: bytes  # 32 bytes
    body_salt: bytes  # 24 bytes
    draw_iv: Callable[[], bytes]  # 16 bytes at every call; suite 1

    def of_file(self, file_id: bytes) -> Randomness:
        """Return the same values, but for the file id: see :class:`Encryptor`."""
        if len(file_id) != FILE_ID_SIZE:
            raise ConfigurationError(f"a file id has {FILE_ID_SIZE} bytes, not {len(file_id)}")
        return replace(self, file_id=file_id)

    def draw_for_wrap(self, size: int) -> bytes:
        """Return the chosen salt, or, for any other size, random bytes from the system."""
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


class Encryptor(HoldsSecrets):
    """Turns a stream of plaintext into one Format 2 file.

    :param keyring: its primary key seals the file.
    :param suite: the algorithms.
    :param context: the caller's own binding, 0 to 65,535 bytes, e.g. a tenant. It is not stored: a
        reader must know it.
    :param metadata: sealed into the header, e.g. ``{"name": …, "type": …}``; JSON values, at most
        65,520 bytes and 32 levels of nesting.
    :param file_id: 32 bytes that become the object id. Leave it out, so that it is random, unless
        the file takes the place of the one that had this id.
    :raises ConfigurationError: for an unusable key, context, metadata or file id.
    """

    @clears_frames
    def __init__(
        self,
        keyring: Keyring,
        suite: Suite = Suite.CBC_HMAC,
        context: bytes = b"",
        metadata: Mapping[str, object] | None = None,
        *,
        file_id: bytes | None = None,
        primitives: Primitives | None = None,
    ) -> None:
        require("keyring", keyring, Keyring, "a Keyring")
        require("suite", suite, Suite, "a Suite such as Suite.GCM")
        primitives = primitives or default_primitives()
        require("file_id", file_id, (bytes, type(None)), "bytes, or None for random ones")
        random = Randomness.draw()
        if file_id is not None:
            random = random.of_file(file_id)
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
        """Return the size in bytes of the whole file for ``size`` bytes of plaintext."""
        return self._header_size + self.suite.body_length(size) + len(TRAILER)

    @clears_frames
    def update(self, data: Bytes) -> bytes:
        """Take plaintext of any length; return the stored bytes that are ready (perhaps none).

        It is fastest with 64 to 256 KiB at a time.

        :raises ValueError: after :meth:`finalize`.
        :raises SourceError: the data is not bytes.
        :raises LimitExceededError: the file would exceed the suite's maximum size. The limit
            applies to the writers of both libraries.
        """
        view = view_of(data)
        start = self._begin()
        self._taken += len(view)
        if self._taken > self.suite.max_size:
            raise LimitExceededError(f"a file of this suite holds at most {self.suite.max_size} bytes")
        return start + self._sealer.update(view)

    @clears_frames
    def finalize(self) -> bytes:
        """Return the last stored bytes. The encryptor cannot be used again."""
        start = self._begin()
        self._spent = True
        return start + self._sealer.finalize() + TRAILER

    def _begin(self) -> bytes:
        """Return the header the first time; refuse data after the final segment."""
        if self._spent:
            raise ValueError("this encryptor is finalized: make a new one for every file")
        start, self._start = self._start, b""
        return start


class _SegmentSealer(HoldsSecrets):
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
    """Return (preamble, whole header) of a new file.

    The header has one slot of generation 1, and an empty one for a rewrap.
    """
    preamble = build_preamble(suite, random.file_id, len(metadata_text))
    wrapper = keyring.wrapper()
    slot = new_slot(wrapper, random.dek, preamble, 1, random.draw_for_wrap)
    table = slot_table([slot], DEFAULT_SLOTS, fitting_slot_size(wrapper.payload_size))
    sealed = seal_metadata(metadata_text, random.dek, random.file_id, preamble, primitives)
    return preamble, preamble + table + sealed


def most_overhead(keyring: Keyring, metadata_size: int) -> int:
    """Return the largest number of bytes that a new file adds to its plaintext.

    The :func:`growth` of the plaintext itself is not counted.

    :param metadata_size: the size of the longest metadata text, in bytes.
    """
    header = new_header_size(keyring.wrapper().payload_size, metadata_size)
    # An empty segment, and the rounding of its padding.
    last = max(suite.min_sealed + BLOCK_SIZE for suite in Suite)
    return header + BODY_HEAD_SIZE + last + len(TRAILER)


def growth(size: int) -> int:
    """Return the most bytes by which full segments enlarge ``size`` bytes of plaintext.

    It is the larger value of the two suites.
    """
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
    """Return a whole file made from the given random values.

    It does the same as :class:`Encryptor`, but draws nothing.
    """
    preamble, header = _header(keyring, suite, metadata_text, random, primitives)
    sealer: StreamSealer = _SegmentSealer(suite, random, body_context(preamble, context), primitives)
    return header + sealer.update(plaintext) + sealer.finalize() + TRAILER


@dataclass(frozen=True, slots=True)
class Unlocked(HoldsSecrets):
    """A file whose slot was unwrapped, and whose metadata and commitment were verified.

    Its segments are ready to be opened.

    :ivar passed_over: slots that unwrap under the key that they name, but hold a DEK other than the
        one that the contents were written with. Somebody planted these slots, with that key, or the
        contents, with the key that opened them.
    """

    header: Header
    key_id: str
    metadata: dict[str, object] = field(repr=False)  # sealed in the file: not for a log
    cipher: SegmentCipher
    passed_over: tuple[Slot, ...] = ()

    @property
    def planted(self) -> tuple[tuple[int, str], ...]:
        """The passed over slots as (number, key id in hex): the part that may be disclosed."""
        return tuple((slot.index, slot.key_id.hex()) for slot in self.passed_over)


def unlock(start: bytes, keyring: Keyring, context: bytes, primitives: Primitives) -> Unlocked:
    """Return the unlocked file whose header and body head (56 bytes) are ``start``.

    The first slot counts whose DEK the metadata and the commitment verify under. So the holder of
    one key of the ring can lock nobody out by planting a slot.

    :raises FormatError: it is not a Format 2 file, or its header is not well-formed.
    :raises UnknownKeyError: the keyring holds no key that it names.
    :raises IntegrityError: it was changed, or was written in another context.
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
    """Return (header, body head): the two parts of a file that depend on its DEK."""
    header = parse_header(start)
    body_head = start[header.length : header.length + BODY_HEAD_SIZE]
    if len(body_head) < BODY_HEAD_SIZE:
        raise FormatError("the file ends before its first segment", Reason.TRUNCATED)
    return header, body_head


def open_with(
    dek: bytes, header: Header, body_head: bytes, context: bytes, primitives: Primitives
) -> tuple[dict[str, object], SegmentCipher]:
    """Return (metadata, the cipher of the segments) of a file that was written under ``dek``.

    :raises FormatError, IntegrityError: it was not, the file was changed, or it was written in
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


class Decryptor(HoldsSecrets):
    """Opens one Format 2 file as a stream.

    Memory use is a few segments plus the size of the pieces that are fed.

    :param keyring: any of its keys may be the one that the file names.
    :param context: the context that the file was written with.
    :ivar size: the size in bytes of the whole plaintext. 0 until :meth:`finalize` has returned.
    """

    @clears_frames
    def __init__(
        self, keyring: Keyring, context: bytes = b"", *, primitives: Primitives | None = None
    ) -> None:
        require("keyring", keyring, Keyring, "a Keyring")
        self._keyring = keyring
        self._context = context
        self._primitives = primitives or default_primitives()
        self._buffer = bytearray()
        self._index = self._first = 0
        self.size = 0
        self.unlocked: Unlocked | None = None  # None until the header was read and verified

    @clears_frames
    def update(self, data: Bytes) -> bytes:
        """Take stored bytes; return the verified plaintext that is ready (perhaps none).

        :raises FormatError, UnknownKeyError, IntegrityError: as :func:`unlock`, and for a segment
            that fails verification.
        :raises SourceError: the data is not bytes.
        """
        self._buffer += view_of(data)
        self.unlocked = self.unlocked or self._try_unlock()
        return self._open_full_segments(self.unlocked) if self.unlocked else b""

    def skip_to(self, index: int) -> None:
        """Skip the segments before ``index`` that are still to come: they are not verified."""
        self._first = index

    @clears_frames
    def finalize(self) -> bytes:
        """Return the last plaintext. The file is proven whole only once this returns.

        :raises IntegrityError: the file was cut, extended or changed.
        """
        if self.unlocked is None:
            # Too short for a header and a first segment: the parser reports where the file ends.
            self.unlocked = unlock(bytes(self._buffer), self._keyring, self._context, self._primitives)
        if self._buffer[-1:] != TRAILER:
            raise IntegrityError(
                "the file does not end in its trailer", Reason.TRUNCATED, segment=self._index
            )
        check_index(self._index)
        last = self.unlocked.cipher.open(self._index, True, self._buffer[:-1])
        self.size = self._index * self.unlocked.header.suite.segment_size + len(last)
        return last

    def _try_unlock(self) -> Unlocked | None:
        buffer = self._buffer
        # Junk is refused as soon as it can't be a header, not only when enough bytes have arrived.
        if bytes(buffer[: len(MAGIC)]) != MAGIC[: len(buffer)]:
            header_length(bytes(buffer[: len(MAGIC)]))
        if len(buffer) < FIXED_SIZE:
            return None
        needed = header_length(bytes(buffer[:FIXED_SIZE])) + BODY_HEAD_SIZE
        if len(buffer) < needed:
            return None
        unlocked = unlock(bytes(buffer[:needed]), self._keyring, self._context, self._primitives)
        # Only now: a refused header stays in the buffer, so that further data is refused again.
        # Otherwise a good file behind a bad header would open for a caller that continued after the
        # error.
        del buffer[:needed]
        return unlocked

    def _open_full_segments(self, unlocked: Unlocked) -> bytes:
        size = unlocked.header.suite.sealed_size
        output = memoryview(bytearray(len(self._buffer)))
        position = opened = 0
        # The final segment is always shorter than a full one, and one trailer byte follows it. So
        # if there are more bytes than a full segment has, the first of them are not the final
        # segment.
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
