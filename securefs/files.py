"""Whole files: encrypt, decrypt, verify.

A target file appears whole or not at all (:mod:`securefs.disk`). Everything streams: memory use
does not depend on the size of a file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final

from securefs.arguments import require_path
from securefs.disk import read_regular, write_atomically
from securefs.primitives import view_of
from securefs.reader import open_encrypted
from securefs.sealer import NewFiles
from securefs.secrecy import clears_frames
from securefs.source import as_a_file
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securefs.disk import StrPath
    from securefs.keys import Keyring
    from securefs.primitives import Primitives, StreamSealer
    from securefs.reader import EncryptedFile
    from securefs.source import SeekableFile

__all__ = [
    "FileInfo",
    "copy_sealed",
    "decrypt_file",
    "encrypt_file",
    "verify",
]

# Bytes read at a time. With 1 MiB and more, encryption took 1.4 to 1.7 times as long, because the
# kernel supplies buffers of that size anew.
COPY_SIZE: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is known of an encrypted file that verified. ``size`` is the plaintext's, in bytes.

    :ivar passed_over: as in :class:`EncryptedFile`: if it is not empty, a file key is compromised.
    """

    object_id: str
    key_id: str
    format: int
    suite: str
    size: int
    metadata: dict[str, object] = field(repr=False)  # sealed in the file: not for a log
    passed_over: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, file: EncryptedFile) -> FileInfo:
        """Return the information about the open file ``file``."""
        return cls(
            file.object_id, file.key_id, file.format, file.suite, file.size, file.metadata, file.passed_over
        )


def copy_sealed(source: BinaryIO, target: BinaryIO, sealer: StreamSealer) -> int:
    """Seal everything from ``source`` into ``target``; return the plaintext's size in bytes.

    :raises SourceError: the source does not return bytes.
    """
    size = 0
    # A source with nothing to read yet returns None. Taking that for the end would store a part as
    # the whole.
    while data := _read(source):
        size += len(data)
        target.write(sealer.update(data))
    target.write(sealer.finalize())
    return size


def _read(source: BinaryIO) -> memoryview:
    with as_a_file():
        return view_of(source.read(COPY_SIZE))


def _open(path: StrPath) -> BinaryIO:
    with as_a_file():
        return read_regular(path, follow_links=True)


@clears_frames
def encrypt_file(
    source: StrPath,
    target: StrPath,
    keyring: Keyring,
    *,
    suite: Suite = Suite.CBC_HMAC,
    context: bytes = b"",
    metadata: Mapping[str, object] | None = None,
    format_1: bool = False,
    overwrite: bool = False,
    primitives: Primitives | None = None,
) -> str:
    """Encrypt the regular file ``source`` into the new file ``target`` (mode 0600).

    Return the object id, "" for Format 1. For a pipe or a device use :class:`Encryptor`: a pipe
    whose writer dies ends like one whose writer is done.

    :param suite, context, metadata: as for :class:`Encryptor`; Format 1 has none of them.
    :param format_1: write the original layout instead of Format 2.
    :raises ConfigurationError: the target exists and ``overwrite`` is false, or an argument is
        unusable.
    :raises OSError, SourceError: a file can't be read or written; the target is then as it was.
    """
    require_path("source", source)
    require_path("target", target)
    new = NewFiles(keyring, 1 if format_1 else 2, suite)
    sealer = new.sealer(context, metadata, primitives=primitives)
    with _open(source) as plain, write_atomically(target, overwrite=overwrite) as sealed:
        copy_sealed(plain, sealed, sealer)
    return sealer.object_id


@clears_frames
def decrypt_file(
    source: StrPath,
    target: StrPath,
    keyring: Keyring,
    *,
    context: bytes = b"",
    format_1: bool = False,
    overwrite: bool = False,
    primitives: Primitives | None = None,
) -> FileInfo:
    """Decrypt the file ``source`` into the new file ``target`` (mode 0600).

    The target appears only if every byte of the source verifies.

    :raises ConfigurationError, FormatError, UnknownKeyError, IntegrityError: as
        :func:`securefs.open_encrypted`; the target is then as it was.
    """
    require_path("target", target)
    with (
        open_encrypted(source, keyring, context, format_1=format_1, primitives=primitives) as plain,
        write_atomically(target, overwrite=overwrite) as file,
    ):
        while data := plain.read(COPY_SIZE):
            file.write(data)
        return FileInfo.of(plain)


@clears_frames
def verify(
    file: SeekableFile | StrPath,
    keyring: Keyring,
    context: bytes = b"",
    *,
    format_1: bool = False,
    primitives: Primitives | None = None,
) -> FileInfo:
    """Verify every byte of an encrypted file; return what is known of it.

    A file that fails verification raises, and nothing is returned.

    :raises ConfigurationError, FormatError, UnknownKeyError, IntegrityError: as
        :func:`securefs.open_encrypted`.
    """
    with open_encrypted(file, keyring, context, format_1=format_1, primitives=primitives) as plain:
        plain.check()
        return FileInfo.of(plain)
