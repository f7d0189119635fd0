"""Encrypted files as seekable, read-only plaintext; every byte is verified before it is returned.

:func:`open_encrypted` finds out which format a file has. What is verified when is the format's:
:mod:`securefs.format2_reader` verifies what a read covers, :mod:`securefs.format1_reader` the whole
file when it is opened. :class:`EncryptedFile` is what the caller gets, for both.

The plaintext of the last block is kept while a file is open. So opening a file and reading it in
order reads no stored byte behind the header twice, but for Format 1, whose tag takes the first of
two passes.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn, cast

from securefs.arguments import require
from securefs.backend import default_primitives
from securefs.disk import read_regular
from securefs.errors import ConfigurationError, SecureFSError
from securefs.format1_reader import Format1File
from securefs.format2_reader import Format2File
from securefs.header import MAGIC
from securefs.keys import Keyring
from securefs.plaintext import READ_SIZE, Plaintext, forget_nested, nested_ids
from securefs.secrecy import HoldsSecrets, clears_frames
from securefs.source import Source, as_a_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from securefs.primitives import Primitives
    from securefs.source import SeekableFile

__all__ = ["EncryptedFile", "forget_nested", "nested_ids", "open_encrypted"]

BUFFER_SIZE: Final = 65_536  # bytes of plaintext; lines and small reads come from this buffer


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

    def __init__(self, plaintext: Plaintext) -> None:
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
        opened: Plaintext
        if format_1 and source.read_at(0, len(MAGIC)) != MAGIC:
            opened = Format1File(source, keyring, primitives, max_format_1)
        else:
            opened = Format2File(source, keyring, context, primitives)
    except BaseException:
        # On any exception: the caller has no object yet whose close() would close the file.
        if owned is not None:
            owned.close()
        raise
    opened.owned = owned
    return EncryptedFile(opened)
