"""One file of several containers that an app joined: :func:`join`, :func:`write_apart`.

Guarantees: every container is verified before one byte is written. The new file was read back from
the file system, verified, and compared with what was read, before it has its name or takes the old
one's place (:mod:`securefs.replacing`). Constant memory, whatever the number of containers.

The order is that in which the containers are stored. Nothing binds them to each other: an app may
have joined them in a wrong order, or without one. A container that is there twice is refused.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from securefs.disk import read_regular, write_atomically
from securefs.errors import VERDICTS, ConfigurationError, IntegrityError, Reason
from securefs.files import COPY_SIZE, FileInfo
from securefs.joined import Container, check_in_steps, examine, parts
from securefs.reader import open_encrypted
from securefs.replacing import check_unchanged, replacement, seal_pieces, verified_copy
from securefs.sealer import NewFiles
from securefs.secrecy import clears_frames
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from securefs.disk import StrPath
    from securefs.joined import Part
    from securefs.keys import Keyring

__all__ = ["join", "write_apart"]

_MISSING: Final = object()


@dataclass(slots=True)
class _Summary:
    """What is known of the containers so far. ``fault`` is about the first one that is wrong."""

    count: int = 0
    suite: str = ""
    metadata: dict[str, object] | None = None
    fault: Container | None = None

    def add(self, container: Container) -> None:
        self.count += 1
        if (info := container.info) is None:
            self.fault = self.fault or container
            return
        self.suite = self.suite or info.suite
        kept = info.metadata if self.metadata is None else self.metadata
        self.metadata = {
            name: value for name, value in kept.items() if info.metadata.get(name, _MISSING) == value
        }

    def check(self) -> None:
        """Raise unless there are several containers, and all of them verified."""
        if self.fault is not None and (fault := self.fault.fault) is not None:
            raise IntegrityError(f"{self.fault.place}: {fault}; nothing was written", fault.reason)
        if self.count == 1:
            raise ConfigurationError("it is one container, and it verifies: there is nothing to recover")


@clears_frames
def join(
    path: StrPath,
    target: StrPath | None,
    keyring: Keyring,
    context: bytes = b"",
    *,
    overwrite: bool = False,
    break_links: bool = False,
    on_container: Callable[[Container], object] = id,
    on_bytes: Callable[[int], object] = int,
) -> FileInfo:
    """Write one container with the plaintexts of all containers in the file at ``path``, in order.

    It is sealed under the primary key, in the suite of the first one, with the metadata that all of
    them have in common.

    :param target: a new file (mode 0600). None replaces the file itself.
    :param context: the context of each container, and of the new one.
    :param overwrite: replace an existing target.
    :param break_links: in place, accept a file with other names; they keep the old file.
    :param on_container: is called with each container, also with one that does not verify.
    :param on_bytes: is called with each number of bytes that were verified, and that were sealed.
    :raises ConfigurationError: it is one container; the target can't be written.
    :raises IntegrityError: a container does not verify, or is there twice. Nothing was written.
    :raises OSError, SourceError: a file can't be read or written, or changed meanwhile.
    """
    summary, known = _Summary(), dict[str, int]()
    with _places(path, target, overwrite=overwrite, break_links=break_links) as (source, file):
        for container in examine(source, keyring, context, on_bytes=on_bytes):
            checked = _once(container, known)
            on_container(checked)
            summary.add(checked)
        summary.check()
        new = NewFiles(keyring, suite=Suite.parse(summary.suite))
        sealer = new.sealer(context, summary.metadata)
        digest = seal_pieces(_plaintext(source, keyring, context), file, sealer, on_bytes)
        return verified_copy(file, keyring, context, digest)


def write_apart(
    path: StrPath,
    folder: StrPath,
    keyring: Keyring,
    context: bytes = b"",
    *,
    overwrite: bool = False,
    on_bytes: Callable[[int], object] = int,
) -> Iterator[tuple[Container, Path]]:
    """Write each container of the file at ``path`` into a file of its own, as it is stored.

    Yield each with its path. A container that does not verify is not written.

    :param folder: where to. The files are called ``NAME.1.enc``, ``NAME.2.enc``, and so on.
    :param context, overwrite, on_bytes: as for :func:`join`.
    :raises ConfigurationError: a file is there already.
    :raises OSError, SourceError: a file can't be read or written.
    """
    name = Path(path).name.removesuffix(".enc")
    with read_regular(path, follow_links=True) as source:
        for part in parts(source):
            target = Path(folder, f"{name}.{part.number}.enc")
            yield _copied(part, target, keyring, context, overwrite=overwrite, on_bytes=on_bytes), target


@clears_frames
def _copied(
    part: Part,
    target: Path,
    keyring: Keyring,
    context: bytes,
    *,
    overwrite: bool,
    on_bytes: Callable[[int], object],
) -> Container:
    """Write one container to ``target`` if it verifies; return what it is."""
    try:
        with write_atomically(target, overwrite=overwrite) as file:
            while data := part.read(COPY_SIZE):
                file.write(data)
            with open_encrypted(file, keyring, context) as opened:
                check_in_steps(opened, on_bytes)
                return Container(part, FileInfo.of(opened))
    except VERDICTS as error:
        return Container(part, fault=error)


@contextmanager
def _places(
    path: StrPath, target: StrPath | None, *, overwrite: bool, break_links: bool
) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Yield (the file at ``path``, the new one)."""
    if target is None:
        with (
            replacement(path, break_links=break_links) as new,
            os.fdopen(os.dup(new.descriptor), "rb") as source,
        ):
            yield source, new.file
        return
    with read_regular(path, follow_links=True) as source:
        before = os.fstat(source.fileno())
        if Path(target).exists() and os.path.samestat(before, Path(target).stat()):
            raise ConfigurationError(
                f"{os.fsdecode(target)} is the file itself: to replace it, use --in-place"
            )
        with write_atomically(target, overwrite=overwrite) as file:
            yield source, file
            check_unchanged(path, source.fileno(), before)


def _once(container: Container, known: dict[str, int]) -> Container:
    """Return ``container``, as a fault if one before it has the same object id."""
    if container.info is None:
        return container
    number = container.part.number
    first = known.setdefault(container.info.object_id, number)
    if first == number:
        return container
    message = f"it has the object id of container {first}: the app joined the same chunk twice"
    return Container(container.part, fault=IntegrityError(message, Reason.WRONG_OBJECT))


def _plaintext(file: BinaryIO, keyring: Keyring, context: bytes) -> Iterator[bytes]:
    """Yield the plaintext of each container in ``file``, piece by piece."""
    for part in parts(file):
        with open_encrypted(part, keyring, context) as opened:
            while data := opened.read(COPY_SIZE):
                yield data
