"""The commands that work on files: keygen, encrypt, decrypt, inspect, verify, rewrap.

Keys come from the environment, never from an argument, where every user of the machine could read them. Decrypted bytes are
written only after they were verified; where the source can be read twice, only after the whole of it was.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from securefs.cli.terminal import (
    STREAM,
    Progress,
    complain,
    label,
    named,
    open_source,
    open_target,
    reading,
    say,
    say_json,
    shown,
)
from securefs.errors import ConfigurationError, Reason, SecureFSError
from securefs.files import COPY_SIZE, copy_sealed, verify
from securefs.header import FIXED_SIZE, MAGIC, header_length, parse_header
from securefs.keys import Keyring, generate_key
from securefs.reader import open_encrypted
from securefs.rotation import rewrap
from securefs.stream import Decryptor, Encryptor
from securefs.suites import Suite

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from securefs.audit import Journal
    from securefs.header import Header
    from securefs.primitives import StreamSealer
    from securefs.reader import EncryptedFile

__all__ = ["decrypt", "encrypt", "inspect", "keygen", "rewrap_paths", "verify_paths"]

SUFFIX: Final = ".enc"
DONE: Final = 0  # exit code
FINDING: Final = 1  # exit code: something does not verify
_KINDS: Final = {1: "file key", 2: "key service", 3: "hpke recipient"}


def keygen(arguments: argparse.Namespace) -> int:
    """Print a fresh key, or write it into a new file that only its owner can read."""
    key = generate_key()
    if arguments.output is None:
        say(key)
        return DONE
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(arguments.output, flags, 0o600)
    except FileExistsError:
        # There is no --force here: a key that is overwritten takes every file under it along.
        raise ConfigurationError(f"{arguments.output} exists already: a key is never overwritten") from None
    try:
        with named(arguments.output), os.fdopen(descriptor, "wb") as file:
            file.write(key.encode("ascii") + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        # Interrupted too: half a key must not pass for one.
        Path(arguments.output).unlink()
        raise
    return DONE


def encrypt(arguments: argparse.Namespace) -> int:
    """Encrypt one file or standard input."""
    source, target = arguments.source, arguments.output
    if target is None:
        target = STREAM if source == STREAM else source + SUFFIX
    sealer = _sealer(arguments, Keyring.from_env())
    with (
        open_source(source) as file,
        open_target(target, force=arguments.force) as sealed,
        reading(file, source) as plain,
    ):
        copy_sealed(plain, sealed, sealer)
    return DONE


def _sealer(arguments: argparse.Namespace, keyring: Keyring) -> StreamSealer:
    metadata = {key: value for key in ("name", "type") if (value := getattr(arguments, key)) is not None}
    if not arguments.format_1:
        suite = Suite.parse(arguments.suite or Suite.CBC_HMAC.label)
        return Encryptor(keyring, suite, arguments.context, metadata)
    if arguments.suite or arguments.context or metadata:
        raise ConfigurationError(
            "--format-1 has no place for --suite, --context, --name or --type: use Format 2"
        )
    return keyring.format_1_sealer()


def decrypt(arguments: argparse.Namespace) -> int:
    """Decrypt one file or standard input."""
    _check_format_1(arguments)
    keyring = Keyring.from_env()
    source: str = arguments.source
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_source(source))
        if not file.seekable():
            if not arguments.format_1:
                return _decrypt_stream(arguments, keyring, file)
            file = stack.enter_context(_spooled(file, source))
        with named(label(source)):
            opened = stack.enter_context(
                open_encrypted(file, keyring, arguments.context, format_1=arguments.format_1)
            )
        _decrypt_seekable(arguments, opened)
    return DONE


def _check_format_1(arguments: argparse.Namespace) -> None:
    if arguments.format_1 and arguments.context:
        raise ConfigurationError(
            "--format-1 has no place for --context: Format 1 binds none, and would ignore it"
        )


@contextlib.contextmanager
def _spooled(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Yield a pipe's ciphertext as a file without a name: Format 1 can be verified only as a whole."""
    with tempfile.TemporaryFile() as spool:
        with reading(file, name) as source, named(tempfile.gettempdir()):
            while data := source.read(COPY_SIZE):
                spool.write(data)
            spool.flush()
        yield cast("BinaryIO", spool)


def _decrypt_seekable(arguments: argparse.Namespace, opened: EncryptedFile) -> None:
    for slot, key_id in opened.passed_over:
        complain(f"{label(arguments.source)}: {_planted(slot, key_id, opened.key_id)}")
    target = _decrypt_target(arguments, opened.metadata)
    if target == STREAM:
        # What was written to a stream can't be taken back, so the whole file is verified before the first byte.
        with named(label(arguments.source)):
            opened.check()
    with open_target(target, force=arguments.force) as file, Progress(opened.size) as progress:
        while True:
            with named(label(arguments.source)):
                data = opened.read(COPY_SIZE)
            if not data:
                return
            file.write(data)
            progress.add(len(data))


def _decrypt_stream(arguments: argparse.Namespace, keyring: Keyring, file: BinaryIO) -> int:
    """Decrypt a pipe as it comes, each segment verified; only its end tells that nothing was cut off."""
    if arguments.sealed_name:
        raise ConfigurationError("--sealed-name needs a file as its source: name the target with -o")
    decryptor = Decryptor(keyring, arguments.context)
    target = arguments.output or STREAM
    written = 0
    try:
        with open_target(target, force=arguments.force) as output, reading(file, arguments.source) as source:
            while data := source.read(COPY_SIZE):
                written += output.write(decryptor.update(data))
            written += output.write(decryptor.finalize())
    except SecureFSError:
        if target == STREAM and written:
            complain(f"discard the {written} bytes that were written: the rest of the file does not verify")
        raise
    return DONE


def _decrypt_target(arguments: argparse.Namespace, metadata: dict[str, object]) -> str:
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
    """Return the sealed name if it is nothing but a name: whoever wrote the file may have sealed ../../.profile."""
    if not isinstance(name, str) or not name:
        raise ConfigurationError("no name is sealed in this file: name the target with -o")
    if name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        raise ConfigurationError(
            f"the sealed name {shown(name)} is not a plain file name: name the target with -o"
        )
    return name


def inspect(arguments: argparse.Namespace) -> int:
    """Print what a Format 2 header says. It needs no key, so nothing of it is verified."""
    with open_source(arguments.file) as file, reading(file, arguments.file) as source:
        start = source.read(FIXED_SIZE)
        start += source.read(header_length(start) - len(start))
    header = parse_header(start)
    document: dict[str, object] = {
        "format": 2,
        "suite": header.suite.label,
        "object_id": header.object_id,
        "header_size": header.length,
        "sealed_metadata_size": len(header.sealed_metadata),
        "slots": [
            {"kind": _KINDS[slot.kind], "generation": slot.generation, "key_id": slot.key_id.hex()}
            for slot in header.slots
        ],
        "free_slots": header.slot_count - len(header.slots),
    }
    if arguments.file != STREAM:
        document |= _sizes(header, Path(arguments.file).stat().st_size)
    if arguments.json:
        say_json(document)
        return DONE
    for key, value in document.items():
        for item in value if isinstance(value, list) else [value]:
            text = (
                ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in item.items())
                if isinstance(item, dict)
                else item
            )
            say(f"{key.replace('_', ' ')}: {text}")
    say("not verified: this is what the header says; securefs verify tells whether it is true")
    return DONE


def _sizes(header: Header, length: int) -> dict[str, object]:
    """Return the file's size, and the plaintext's as far as it follows from it: suite 1 pads, to within one block."""
    if not header.may_be_whole(length):
        return {"file_size": length, "plaintext_size": "unknown: the file was cut or extended"}
    least, most = header.plaintext_bounds(length)
    return {"file_size": length, "plaintext_size": most if most == least else f"{least} to {most}"}


def verify_paths(arguments: argparse.Namespace) -> int:
    """Verify every byte of the named files, and of the encrypted files under the named folders."""
    _check_format_1(arguments)
    keyring = Keyring.from_env()
    results: list[dict[str, Any]] = []
    for path in _encrypted_files(arguments.paths, format_1=arguments.format_1):
        result = _verify_one(path, keyring, arguments)
        results.append(result)
        if not arguments.json:
            say(f"FAILED  {path}: {result['error']}" if "error" in result else f"ok      {path}")
            for slot in result.get("planted", ()):
                say(f"PLANTED {path}: {_planted(slot['slot'], slot['key_id'], result['key_id'])}")
    _require_some(results, arguments)
    failed = sum("error" in result for result in results)
    planted = sum("planted" in result for result in results)
    if arguments.json:
        counts = {"verified": len(results) - failed, "failed": failed, "planted": planted}
        say_json({**counts, "files": results})
    else:
        text = f"{len(results) - failed} verified, {failed} failed"
        say(f"{text}, {planted} with planted slots" if planted else text)
    return FINDING if failed or planted else DONE


def _planted(slot: int, key_id: str, opened_by: str) -> str:
    return f"slot {slot} (key {key_id}) and the contents (key {opened_by}) do not fit: somebody else has one of these keys"


def _verify_one(path: Path, keyring: Keyring, arguments: argparse.Namespace) -> dict[str, Any]:
    try:
        info = verify(path, keyring, arguments.context, format_1=arguments.format_1)
    except (SecureFSError, OSError) as error:
        # A file that can't be read was not verified: a finding, as much as one that was changed.
        return _finding(path, error, "cannot be read")
    result: dict[str, Any] = {
        "path": str(path),
        "format": info.format,
        "suite": info.suite,
        "object_id": info.object_id,
        "key_id": info.key_id,
        "size": info.size,
    }
    if info.passed_over:
        result["planted"] = [{"slot": index, "key_id": key_id} for index, key_id in info.passed_over]
    return result


def _finding(path: Path, error: SecureFSError | OSError, what: str) -> dict[str, object]:
    if isinstance(error, OSError):
        return {
            "path": str(path),
            "error": f"{what}: {error.strerror or error}",
            "reason": Reason.IO_ERROR.value,
        }
    reason = getattr(error, "reason", None)
    return {"path": str(path), "error": str(error), "reason": reason.value if reason else None}


def _require_some(results: list[dict[str, object]], arguments: argparse.Namespace) -> None:
    if not results:
        # Nothing failed, and nothing was done either: most likely the wrong folder.
        raise ConfigurationError(f"no encrypted file found in {', '.join(arguments.paths)}")


def rewrap_paths(arguments: argparse.Namespace) -> int:
    """Let the primary key, and no previous one, open the named files and the encrypted files under the named folders."""
    keyring = Keyring.from_env()
    results: list[dict[str, object]] = []
    with _journal() as journal:
        for path in _encrypted_files(arguments.paths, format_1=False):
            result = _rewrap_one(path, keyring, arguments.context, journal)
            results.append(result)
            if not arguments.json:
                word = "rewrapped" if result.get("changed") else "unchanged"
                say(f"FAILED     {path}: {result['error']}" if "error" in result else f"{word}  {path}")
    _require_some(results, arguments)
    failed = sum("error" in result for result in results)
    changed = sum(bool(result.get("changed")) for result in results)
    unchanged = len(results) - changed - failed
    if arguments.json:
        say_json({"rewrapped": changed, "unchanged": unchanged, "failed": failed, "files": results})
    else:
        text = f"{changed} rewrapped, {unchanged} unchanged, {failed} failed"
        say(
            text if arguments.context is not None else f"{text}; --any-context: commitments were not verified"
        )
    return FINDING if failed else DONE


@contextlib.contextmanager
def _journal() -> Iterator[Journal | None]:
    """Yield the journal, where there is a folder for it: on standard error its lines would be among the messages."""
    if "SECUREFS_AUDIT_DIR" not in os.environ:
        yield None
        return
    from securefs.audit import Journal  # noqa: PLC0415  # lazy: quick --help

    journal = Journal.from_env()
    try:
        yield journal
    finally:
        journal.close()


def _rewrap_one(
    path: Path, keyring: Keyring, context: bytes | None, journal: Journal | None
) -> dict[str, object]:
    if journal is not None:
        journal.check()  # before anything is changed
    reason = None
    about: dict[str, str | int] = {"name": path.name}
    try:
        done = rewrap(path, keyring, context)
    except (SecureFSError, OSError) as error:
        result = _finding(path, error, "cannot be rewrapped")
        reason = Reason(result["reason"] or Reason.IO_ERROR)
    else:
        about |= {"id": done.object_id, "key_id": done.key_id}
        result = {
            "path": str(path),
            "object_id": done.object_id,
            "key_id": done.key_id,
            "removed": list(done.removed),
            "changed": done.changed,
        }
    if journal is not None and (reason or result["changed"]):
        outcome, severity = ("failure", 3) if reason else ("success", 1)
        journal.record("key.rewrap", outcome=outcome, severity=severity, reason=reason, obj=about)
    return result


def _encrypted_files(names: list[str], *, format_1: bool) -> Iterator[Path]:
    """Yield what is to be worked on: named files whatever they are called, in folders what looks encrypted."""
    for name in names:
        # Raises for a name that leads nowhere: a typing error is no finding.
        mode = os.stat(name).st_mode  # noqa: PTH116  # Path.stat would turn "" into "."
        if not stat.S_ISDIR(mode):
            yield Path(name)
            continue
        for folder, folders, files in os.walk(name, onerror=_raise):
            folders.sort()
            for file in sorted(files):
                path = Path(folder, file)
                if not path.is_symlink() and path.is_file() and _looks_encrypted(path, format_1=format_1):
                    yield path


def _raise(error: OSError) -> None:
    raise error


def _looks_encrypted(path: Path, *, format_1: bool) -> bool:
    if path.name.endswith(SUFFIX):
        return True
    if format_1:
        return False  # Format 1 has no magic by which to know it
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return True  # verifying it will say why it can't be read
