"""``securefs decrypt``: one file, or standard input.

Every byte is verified before it is written. If the source can be read twice, all of it is verified
before the first byte is written to a stream.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from securefs.bulk import SUFFIX
from securefs.cli.contexts import check_format_1
from securefs.cli.report import planted_slot
from securefs.cli.terminal import (
    DONE,
    STREAM,
    Progress,
    complain,
    label,
    named,
    open_source,
    open_target,
    reading,
    shown,
)
from securefs.errors import ConfigurationError, SecureFSError
from securefs.files import COPY_SIZE
from securefs.keys import Keyring
from securefs.reader import open_encrypted
from securefs.stream import Decryptor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from securefs.reader import EncryptedFile

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Decrypt one file or standard input."""
    check_format_1(arguments)
    keyring = Keyring.from_env()
    source: str = arguments.source
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_source(source))
        if not file.seekable():
            if not arguments.format_1:
                return _write_as_it_comes(arguments, keyring, file)
            file = stack.enter_context(_spooled(file, source, quiet=arguments.quiet))
        with named(label(source)):
            opened = stack.enter_context(
                open_encrypted(file, keyring, arguments.context, format_1=arguments.format_1)
            )
        _write_verified(arguments, opened)
    return DONE


@contextlib.contextmanager
def _spooled(file: BinaryIO, name: str, *, quiet: bool) -> Iterator[BinaryIO]:
    """Yield a pipe's ciphertext as an unnamed file: Format 1 can only be verified as a whole."""
    with tempfile.TemporaryFile() as spool:
        with reading(file, name, quiet=quiet) as source, named(tempfile.gettempdir()):
            while data := source.read(COPY_SIZE):
                spool.write(data)
            spool.flush()
        yield cast("BinaryIO", spool)


def _write_verified(arguments: argparse.Namespace, opened: EncryptedFile) -> None:
    for slot, key_id in opened.passed_over:
        complain(f"{label(arguments.source)}: {planted_slot(slot, key_id, opened.key_id)}")
    target = _target(arguments, opened.metadata)
    if target == STREAM:
        # Bytes written to a stream can't be taken back, so the whole file is verified before the
        # first byte is written.
        with named(label(arguments.source)):
            opened.check()
    with (
        open_target(target, force=arguments.force) as file,
        Progress(opened.size, quiet=arguments.quiet) as progress,
    ):
        while True:
            with named(label(arguments.source)):
                data = opened.read(COPY_SIZE)
            if not data:
                return
            file.write(data)
            progress.add(len(data))


def _write_as_it_comes(arguments: argparse.Namespace, keyring: Keyring, file: BinaryIO) -> int:
    """Decrypt a pipe as a stream; verify each segment before its plaintext is written.

    Only the end proves that nothing was cut off.
    """
    if arguments.sealed_name:
        raise ConfigurationError("--sealed-name needs a file as its source: name the target with -o")
    decryptor = Decryptor(keyring, arguments.context)
    target = arguments.output or STREAM
    written = 0
    try:
        with (
            open_target(target, force=arguments.force) as output,
            reading(file, arguments.source, quiet=arguments.quiet) as source,
        ):
            while data := source.read(COPY_SIZE):
                written += output.write(decryptor.update(data))
            written += output.write(decryptor.finalize())
    except SecureFSError:
        if target == STREAM and written:
            complain(f"discard the {written} bytes that were written: the rest of the file does not verify")
        raise
    return DONE


def _target(arguments: argparse.Namespace, metadata: dict[str, object]) -> str:
    source: str = arguments.source
    if arguments.output is not None:
        return str(arguments.output)
    if arguments.sealed_name:
        folder = Path() if source == STREAM else Path(source).parent
        return str(folder / _safe_name(metadata.get("name")))
    if source == STREAM:
        return STREAM
    if not source.endswith(SUFFIX) or Path(source).name == SUFFIX:
        raise ConfigurationError(f"{source} does not end in {SUFFIX}: name the target with -o")
    return source.removesuffix(SUFFIX)


def _safe_name(name: object) -> str:
    """Return the sealed name if it is a plain file name.

    The writer of the file may have sealed a name such as ../../.profile.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError("no name is sealed in this file: name the target with -o")
    if name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        raise ConfigurationError(
            f"the sealed name {shown(name)} is not a plain file name: name the target with -o"
        )
    return name
