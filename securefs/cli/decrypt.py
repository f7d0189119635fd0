"""``securefs decrypt``: one file, or standard input.

Every byte is verified before it is written. If the source can be read twice, all of it is verified
before the first byte is written to a stream. With a journal (``SECUREFS_AUDIT_DIR``), nothing is
written of a file that it can't record.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from securefs.bulk import SUFFIX
from securefs.cli.contexts import check_format_1
from securefs.cli.operator import record, record_failure
from securefs.cli.report import planted_slot
from securefs.cli.service import journal_of
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
from securefs.errors import ConfigurationError, JournalError, SecureFSError
from securefs.files import COPY_SIZE
from securefs.keys import Keyring
from securefs.reader import open_encrypted
from securefs.stream import Decryptor

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from securefs.audit import Journal
    from securefs.reader import EncryptedFile
    from securefs.stream import Unlocked

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Decrypt one file or standard input."""
    check_format_1(arguments)
    keyring = Keyring.from_env()
    with journal_of() as journal:
        try:
            return _decrypt(arguments, keyring, journal)
        except JournalError:
            raise
        except (SecureFSError, OSError) as error:
            if not isinstance(error, ConfigurationError):
                record_failure(journal, error, _name_of(arguments.source))
            raise


def _decrypt(arguments: argparse.Namespace, keyring: Keyring, journal: Journal | None) -> int:
    source: str = arguments.source
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_source(source))
        if not file.seekable():
            if not arguments.format_1:
                return _write_as_it_comes(arguments, keyring, file, journal)
            file = stack.enter_context(_spooled(file, source, quiet=arguments.quiet))
        with named(label(source)):
            opened = stack.enter_context(
                open_encrypted(file, keyring, arguments.context, format_1=arguments.format_1)
            )
        _write_verified(arguments, opened, journal)
    return DONE


def _name_of(source: str) -> str:
    return "" if source == STREAM else Path(source).name


@contextlib.contextmanager
def _spooled(file: BinaryIO, name: str, *, quiet: bool) -> Iterator[BinaryIO]:
    """Yield a pipe's ciphertext as an unnamed file: Format 1 can only be verified as a whole."""
    with tempfile.TemporaryFile() as spool:
        with reading(file, name, quiet=quiet) as source, named(tempfile.gettempdir()):
            while data := source.read(COPY_SIZE):
                spool.write(data)
            spool.flush()
        yield cast("BinaryIO", spool)


def _write_verified(arguments: argparse.Namespace, opened: EncryptedFile, journal: Journal | None) -> None:
    for slot, key_id in opened.passed_over:
        complain(f"{label(arguments.source)}: {planted_slot(slot, key_id, opened.key_id)}")
    target = _target(arguments, opened.metadata)
    if target == STREAM:
        # Bytes written to a stream can't be taken back, so the whole file is verified before the
        # first byte is written.
        with named(label(arguments.source)):
            opened.check()
    about: dict[str, str | int | None] = {
        "key_id": opened.key_id,
        "format": opened.format,
        "size": opened.size,
    }
    if opened.object_id:
        about |= {"id": opened.object_id, "suite": opened.suite}
    record(journal, "file.open", about={**about, "name": _name_of(arguments.source)})
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


def _write_as_it_comes(
    arguments: argparse.Namespace, keyring: Keyring, file: BinaryIO, journal: Journal | None
) -> int:
    """Decrypt a pipe as a stream; verify each segment before its plaintext is written.

    Only the end proves that nothing was cut off.
    """
    if arguments.sealed_name:
        raise ConfigurationError("--sealed-name needs a file as its source: name the target with -o")
    decryptor = Decryptor(keyring, arguments.context)
    target = arguments.output or STREAM
    written, recorded = 0, False
    try:
        with (
            open_target(target, force=arguments.force) as output,
            reading(file, arguments.source, quiet=arguments.quiet) as source,
        ):
            while data := source.read(COPY_SIZE):
                plaintext = decryptor.update(data)
                if decryptor.unlocked is not None and not recorded:
                    recorded = True
                    record(journal, "file.open", about=_about(decryptor.unlocked))
                written += output.write(plaintext)
            written += output.write(decryptor.finalize())
    except SecureFSError:
        if target == STREAM and written:
            complain(f"discard the {written} bytes that were written: the rest of the file does not verify")
        raise
    return DONE


def _about(unlocked: Unlocked) -> dict[str, str | int | None]:
    header = unlocked.header
    return {"id": header.object_id, "key_id": unlocked.key_id, "format": 2, "suite": header.suite.label}


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
