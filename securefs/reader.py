"""Encrypted files as seekable, read-only plaintext; every byte is verified before it is returned.

:func:`open_encrypted` reads only what it needs, and verifies what it reads. For Format 2 that is
the header, the final segment (so that truncation is detected before byte 0 is returned) and then
the segments that a read covers. Format 1 has one tag for the whole file, so opening such a file
reads all of it once. Later reads are compared with digests from that pass, so that a file that was
exchanged in between is not decrypted.

The plaintext of the last block is kept while a file is open. So opening a file and reading it in
order reads no stored byte behind the header twice, but for Format 1, whose tag takes the first of
two passes.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn, cast

from securefs.arguments import require
from securefs.backend import default_primitives
from securefs.disk import read_regular
from securefs.errors import ConfigurationError, IntegrityError, Reason, SecureFSError
from securefs.format1 import ciphertext_size
from securefs.header import FIXED_SIZE, MAGIC, PREAMBLE_SIZE, claimed_object_id, header_length
from securefs.keys import Keyring
from securefs.primitives import BLOCK_SIZE, HMAC_SIZE, unpadded_size
from securefs.secrecy import HoldsSecrets, clears_frames
from securefs.source import Source, as_a_file
from securefs.stream import TRAILER, unlock
from securefs.suites import BODY_HEAD_SIZE, check_index

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

    from securefs.primitives import Primitives
    from securefs.source import SeekableFile

__all__ = ["EncryptedFile", "forget_nested", "nested_ids", "open_encrypted"]

# Bytes of ciphertext read at a time: 4 segments of suite 1, 16 of suite 2. Four times as much made
# decryption three times slower, because the kernel supplies buffers of that size anew, page by
# page, at every read.
READ_SIZE: Final = 262_400
FORMAT_1_BLOCK: Final = 1024 * 1024  # bytes; an open file keeps one digest (32 bytes) of each block
BUFFER_SIZE: Final = 65_536  # bytes of plaintext; lines and small reads come from this buffer
# The object ids of ciphertexts that were read out of encrypted files, in this thread or task.
_NESTED: ContextVar[tuple[str, ...]] = ContextVar("securefs_nested", default=())
MAX_NESTED: Final = 64


def nested_ids() -> tuple[str, ...]:
    """Return the object ids of ciphertexts that were read as plaintext, the last 64 of them.

    Somebody encrypted a ciphertext. Whoever decrypts it a second time makes a decryption oracle.
    """
    return _NESTED.get()


def forget_nested() -> None:
    """Forget what :func:`nested_ids` returns."""
    if _NESTED.get():
        _NESTED.set(())


def _note_nested(plaintext: memoryview) -> None:
    """Note the object id of a ciphertext, if ``plaintext``, the first of a file, is one."""
    start = bytes(plaintext[:PREAMBLE_SIZE])
    object_id = claimed_object_id(start) if start.startswith(MAGIC) else None
    if object_id is not None and object_id not in _NESTED.get():
        _NESTED.set((*_NESTED.get(), object_id)[-MAX_NESTED:])


class _Plaintext(HoldsSecrets, io.RawIOBase):
    """The plaintext of an encrypted file under :class:`EncryptedFile`, which buffers it.

    It holds the plaintext of one run of blocks and of the last block.
    """

    object_id: str = ""
    key_id: str = ""
    format: int = 0
    suite: str = ""
    size: int = 0
    block_size: int = 1
    passed_over: tuple[tuple[int, str], ...] = ()
    owned: BinaryIO | None = None
    on_failure: Callable[[SecureFSError | OSError], object] | None = None
    # Python's buffer asks for it at each line; as a property it took a third of a line's time.
    closed: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.metadata: dict[str, object] = {}
        self._position = 0
        # The offset in the plaintext at which a run of blocks starts, and the plaintext of the run.
        self._cached: tuple[int, memoryview] = (0, memoryview(b""))
        self._final = self._cached  # the same of the last block alone
        # A run's plaintext is in this buffer, which is reused, because the kernel supplies fresh
        # ones page by page.
        self._output = memoryview(b"")

    def _run(self, index: int, count: int) -> memoryview:
        """Return the verified plaintext of up to ``count`` blocks, from block ``index`` on.

        It is a part of the output buffer. The last block is not among them, unless it is block
        ``index``.
        """
        raise NotImplementedError  # pragma: no cover  # abstract

    def check(self, start: int, stop: int | None) -> None:
        """See :meth:`EncryptedFile.check`."""
        raise NotImplementedError  # pragma: no cover  # abstract

    def tell_failure(self, error: SecureFSError | OSError) -> None:
        """Call :attr:`on_failure`, at the first failure alone."""
        on_failure, self.on_failure = self.on_failure, None
        if on_failure is not None:
            on_failure(error)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._check_open()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}.get(whence)
        if base is None:
            raise ValueError(f"invalid whence: {whence}")
        if base + offset < 0:
            raise ValueError(f"negative seek position: {base + offset}")
        self._position = base + offset
        return self._position

    @clears_frames
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Copy plaintext into ``buffer``, at least one byte before the end; return how many bytes.

        It is copied after its verification: nothing else ever reaches a buffer of the caller's.
        """
        self._check_open()
        view = memoryview(buffer).cast("B")
        piece = self._here(len(view))[: len(view)]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    @clears_frames
    def readall(self) -> bytes:
        """Return the plaintext from the position to the end."""
        self._check_open()
        pieces = []
        while piece := bytes(self._here(READ_SIZE)):
            self._position += len(piece)
            pieces.append(piece)
        return b"".join(pieces)

    def _here(self, wanted: int) -> memoryview:
        """Return the plaintext from the position to the end of a run of blocks.

        The run is one block, or as many as end within ``wanted`` bytes. The next call reuses its
        memory.
        """
        start, run = self._final
        if not start:
            _note_nested(run)
        if self._position < start:
            start, run = self._cached
            if not start <= self._position < start + len(run):
                start, run = self._next_run(wanted)
        return run[self._position - start :]

    def _next_run(self, wanted: int) -> tuple[int, memoryview]:
        index, offset = divmod(self._position, self.block_size)
        # If it fails, the output buffer holds no run.
        self._cached = (0, memoryview(b""))
        # Every block before the last is full, so this run is never empty.
        try:
            run = self._run(index, max(1, (offset + wanted) // self.block_size))
        except (SecureFSError, OSError) as error:
            self.tell_failure(error)
            raise
        if not index:
            _note_nested(run)
        self._cached = index * self.block_size, run
        return self._cached

    @clears_frames
    def close(self) -> None:
        self._cached = self._final = (0, memoryview(b""))
        if self.owned is not None:
            self.owned.close()
        super().close()
        self.closed = True

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")


class EncryptedFile(HoldsSecrets, io.BufferedReader):
    """The plaintext of an encrypted file, as a seekable read-only binary file.

    It is one of Python's own buffered files, so lines, :meth:`peek` and small reads are as fast as
    of those, and whatever reads from a binary file takes it. It has neither a name nor a file
    descriptor: who read by those would read ciphertext.

    Reading raises :class:`IntegrityError` if the file was changed; all bytes returned before that
    were genuine. At most :data:`READ_SIZE` bytes and two blocks of plaintext are held. It is not
    safe for use by several threads at once.

    :ivar object_id: the file's id, 64 hex digits; empty for Format 1, which has none.
    :ivar metadata: the sealed metadata, ``{}`` if none.
    :ivar size: the plaintext's size in bytes.
    :ivar key_id: the id (hex) of the key that opened it.
    :ivar format: 1 or 2.
    :ivar suite: the suite's name.
    :ivar block_size: the bytes of plaintext that are verified together: a segment, or 1 MiB of
        Format 1.
    :ivar passed_over: (number, key id in hex) of each slot that unwraps but holds a DEK other than
        the one that the contents were written with. If there is one, that key or :attr:`key_id` is
        compromised.
    """

    def __init__(self, plaintext: _Plaintext) -> None:
        # A short read costs one block, whatever the buffer could hold.
        super().__init__(plaintext, min(plaintext.block_size, BUFFER_SIZE))
        self._plaintext = plaintext
        self.object_id, self.key_id = plaintext.object_id, plaintext.key_id
        self.format, self.suite = plaintext.format, plaintext.suite
        self.size, self.block_size = plaintext.size, plaintext.block_size
        self.metadata, self.passed_over = plaintext.metadata, plaintext.passed_over

    def check(self, start: int = 0, stop: int | None = None) -> None:
        """Verify the stored bytes behind the plaintext from byte ``start`` to before ``stop``.

        ``stop`` None stands for the end.

        :raises IntegrityError: at the first segment that fails verification.
        """
        try:
            self._plaintext.check(start, stop)
        except (SecureFSError, OSError) as error:
            self._plaintext.tell_failure(error)
            raise

    def watch(self, on_failure: Callable[[SecureFSError | OSError], object] | None) -> None:
        """Call ``on_failure`` with the first error of a later read or check, before it is raised.

        None: nothing is called. What ``on_failure`` raises is raised in the error's place.
        """
        self._plaintext.on_failure = on_failure

    def keep(self, file: BinaryIO) -> None:
        """Close ``file``, which this one reads from, with it."""
        self._plaintext.owned = file

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to ``size`` bytes of plaintext; the whole rest if it is negative or None."""
        if size is None or not 0 <= size <= READ_SIZE:
            # Python's own allocates whatever size it is asked for.
            left = max(0, self.size - self.tell())
            size = left if size is None or size < 0 else min(size, left)
        return super().read(size)

    def read1(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes of plaintext, of one block; at least one before the end."""
        return super().read1(min(size, self.block_size))

    def detach(self) -> NoReturn:
        """Raise: the plaintext and its buffer belong together.

        :raises io.UnsupportedOperation: always.
        """
        raise io.UnsupportedOperation("detach")


class _Format2File(_Plaintext):
    format = 2

    def __init__(self, source: Source, keyring: Keyring, context: bytes, primitives: Primitives) -> None:
        super().__init__()
        self._source = source
        start = source.read_at(0, FIXED_SIZE)
        start += source.read_at(FIXED_SIZE, header_length(start) + BODY_HEAD_SIZE - FIXED_SIZE)
        unlocked = unlock(start, keyring, context, primitives)
        self._cipher = unlocked.cipher
        self.passed_over = unlocked.planted
        self.object_id, self.key_id, self.metadata = (
            unlocked.header.object_id,
            unlocked.key_id,
            unlocked.metadata,
        )
        suite = unlocked.header.suite
        self.suite, self.block_size, self._sealed_size = suite.label, suite.segment_size, suite.sealed_size
        self._start = len(start)
        self._buffer = memoryview(b"")  # sealed segments; reused, as the output buffer is
        self._raw = (0, self._buffer)  # the index of the first sealed segment read, and the bytes
        self._last, self._last_size = divmod(
            max(0, source.length - len(TRAILER) - self._start), self._sealed_size
        )
        check_index(self._last)
        # Bytes of its own: the output buffer will hold other runs.
        last = bytes(self._open_last(suite.min_sealed))
        self._final = (self._last * self.block_size, memoryview(last))
        self.size = self._last * self.block_size + len(last)

    def _open_last(self, least: int) -> memoryview:
        """Return the plaintext of the final segment; raise the file's first fault if the end fails.

        A stream meets that fault first, so both ways of reading give the same reason for the same
        file. A file that fails costs one pass over it.
        """
        try:
            self._check_end(least)
            return self._run(self._last, 1)
        except IntegrityError:
            for index in range(self._last):
                self._cipher.check(index, False, self._sealed(index, 1))
            raise

    def _check_end(self, least: int) -> None:
        if self._last_size < least or self._source.read_at(self._source.length - 1, 1) != TRAILER:
            # A full final segment means truncation, and so does any length that no writer produces.
            raise IntegrityError("the file was cut or extended", Reason.TRUNCATED, segment=self._last)

    def _sealed(self, index: int, count: int) -> memoryview:
        """Return stored segments from ``index`` on, at least one and up to ``count`` of them."""
        size = self._sealed_size
        first, raw = self._raw
        behind = first + -(-len(raw) // size)  # the index after the last one read, whole or cut
        if not first <= index < behind:
            # The first read takes only what was requested, the following ones more: a short range
            # costs no long read.
            goes_on = bool(raw) and index == behind
            first, raw = self._raw = index, self._read_stored(index, READ_SIZE if goes_on else count * size)
        offset = (index - first) * size
        return raw[offset : offset + count * size]

    def _read_stored(self, index: int, most: int) -> memoryview:
        """Read into the buffer the stored segments that fit into ``most`` bytes and into READ_SIZE.

        It stops before the last one, which is read alone: its plaintext is kept.
        """
        size = self._sealed_size
        wanted = self._last_size
        if index < self._last:
            wanted = min(min(most, READ_SIZE) // size, self._last - index) * size
        if len(self._buffer) < wanted:
            self._buffer = memoryview(bytearray(wanted))
        return self._buffer[: self._source.read_into(self._start + index * size, self._buffer[:wanted])]

    def _run(self, index: int, count: int) -> memoryview:
        sealed = self._sealed(index, count)
        if len(self._output) < len(sealed):
            self._output = memoryview(bytearray(len(sealed)))
        size = 0
        # At least one turn: if the file was cut since it was opened, an empty segment must be
        # refused.
        for start in range(0, max(1, len(sealed)), self._sealed_size):
            segment = sealed[start : start + self._sealed_size]
            size += self._cipher.open_into(index, index == self._last, segment, self._output[size:])
            index += 1
        return self._output[:size]

    @clears_frames
    def check(self, start: int, stop: int | None) -> None:
        end = self._last if stop is None else (stop - 1) // self.block_size
        for index in range(start // self.block_size, min(end, self._last) + 1):
            self._cipher.check(index, index == self._last, self._sealed(index, 1))


class _Format1File(_Plaintext):
    format = 1
    suite = "format-1"
    block_size = FORMAT_1_BLOCK

    def __init__(self, source: Source, keyring: Keyring, primitives: Primitives, most: int | None) -> None:
        super().__init__()
        self._source, self._primitives = source, primitives
        self._ciphertext_size = ciphertext_size(source.length, most)
        # The IV of each block is the ciphertext's 16 bytes before it.
        self._ivs: list[bytes] = []
        # Reused, as in _Format2File: a block of ciphertext, and its plaintext.
        size = min(self.block_size, self._ciphertext_size)
        self._buffer, self._output = (memoryview(bytearray(size + more)) for more in (0, BLOCK_SIZE))
        self._digests: list[bytes] = []
        self._keyring = keyring
        self._key_id, last = self._verify()
        self.key_id = self._key_id.hex()
        padded = self._decrypted(len(self._ivs) - 1, last)
        tail = bytes(padded[: unpadded_size(padded)])
        self._final = ((len(self._ivs) - 1) * self.block_size, memoryview(tail))
        self.size = self._final[0] + len(tail)

    def _stored(self, index: int) -> memoryview:
        """Return block ``index`` of the ciphertext, until the next call."""
        view = self._buffer[: self._ciphertext_size - index * self.block_size]
        if self._source.read_into(BLOCK_SIZE + index * self.block_size, view) < len(view):
            raise IntegrityError("the file ends before its length says", Reason.TRUNCATED, segment=index)
        return view

    def _verify(self) -> tuple[bytes, memoryview]:
        """Read the whole file once; return (the id of the key that made its tag, the last block).

        Keep IV and digest of each block for later reads.
        """
        verifier = self._keyring.format_1_verifier()
        stored = self._buffer
        iv = self._source.read_at(0, BLOCK_SIZE)
        verifier.update(iv)
        for index in range(-(-self._ciphertext_size // self.block_size)):
            stored = self._stored(index)
            verifier.update(stored)
            self._ivs.append(iv)
            self._digests.append(self._digest(index, stored).digest())
            iv = bytes(stored[-BLOCK_SIZE:])
        tag = self._source.read_at(self._source.length - HMAC_SIZE, HMAC_SIZE)
        return verifier.find_key(tag), stored

    def _run(self, index: int, count: int) -> memoryview:  # noqa: ARG002  # always one block
        stored = self._stored(index)
        self._compare(index, stored)
        return self._decrypted(index, stored)

    def _decrypted(self, index: int, ciphertext: memoryview) -> memoryview:
        """Return the plaintext of a block, with any padding, until the next call."""
        self._keyring.format_1_decrypt_into(
            self._key_id, self._ivs[index], ciphertext, self._output, self._primitives
        )
        return self._output[: len(ciphertext)]

    def _digest(self, index: int, stored: memoryview) -> hashlib._Hash:
        digest = hashlib.sha256(self._ivs[index])
        digest.update(stored)
        return digest

    def _compare(self, index: int, stored: memoryview) -> None:
        digest = self._digest(index, stored)
        if not hmac.compare_digest(digest.digest(), self._digests[index]):
            raise IntegrityError(
                f"block {index} changed while the file was open", segment=index, digest=digest.hexdigest()
            )

    def check(self, start: int, stop: int | None) -> None:
        """Do nothing: opening the file verified all of it, and each read is compared with that."""


@clears_frames
def open_encrypted(
    file: SeekableFile | str | os.PathLike[str],
    keyring: Keyring,
    context: bytes = b"",
    *,
    format_1: bool = False,
    unbound_format_1: bool = False,
    max_format_1: int | None = None,
    primitives: Primitives | None = None,
) -> EncryptedFile:
    """Return the plaintext of an encrypted file as a seekable, read-only binary file.

    :param file: the path of a regular file, or a binary file that can seek; it is read from its
        beginning. Closing the result closes the file only if it was opened here. Links are
        followed: to open a file of a folder that others may write to, open it with O_NOFOLLOW and
        pass the file.
    :param keyring: any of its keys may be the one that the file was sealed with.
    :param context: the context that the file was written with.
    :param format_1: open the file as Format 1 unless it starts with the magic of Format 2.
        Otherwise a file is never tried as Format 1.
    :param unbound_format_1: accept a context together with ``format_1``: a Format 1 file then
        opens, although it is not bound to a context.
    :param max_format_1: the most bytes that a stored Format 1 file may have, None for any number.
        All of them are read before this function returns.
    :raises ConfigurationError: an argument is of a wrong type; a context together with
        ``format_1``, without ``unbound_format_1``.
    :raises FormatError: not a file of that format.
    :raises UnknownKeyError: the keyring holds no key that the file names.
    :raises IntegrityError: the file was changed, cut, extended, or written in another context.
    :raises LimitExceededError: a Format 1 file is longer than ``max_format_1``; none of it was
        hashed.
    :raises OSError, SourceError: the file can't be read. A path at which there is a pipe, a device
        or a folder is a :class:`SourceError`, without waiting for it.
    """
    if format_1 and context and not unbound_format_1:
        raise ConfigurationError(
            "a Format 1 file is bound to no context, so the one that was given would be ignored: give format_1 (--format-1) or "
            "context (--context), not both"
        )
    require("keyring", keyring, Keyring, "a Keyring")
    require("max_format_1", max_format_1, (int, type(None)), "a number of bytes or None")
    primitives = primitives or default_primitives()
    with as_a_file():
        # The result owns the file and outlives this function.
        owned = read_regular(file, follow_links=True) if isinstance(file, (str, os.PathLike)) else None
    try:
        source = Source(cast("SeekableFile", owned or file))
        opened: _Plaintext
        if format_1 and source.read_at(0, len(MAGIC)) != MAGIC:
            opened = _Format1File(source, keyring, primitives, max_format_1)
        else:
            opened = _Format2File(source, keyring, context, primitives)
    except BaseException:
        # On any exception: the caller has no object yet whose close() would close the file.
        if owned is not None:
            owned.close()
        raise
    opened.owned = owned
    return EncryptedFile(opened)
