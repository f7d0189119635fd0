"""Many files: what is under some paths, and what becomes of each file. Prints nothing.

Guarantees: everything under a path is accounted for. :func:`walk` yields each file, link, special
file and folder that can't be listed, and each function on one of them returns a :class:`Verdict`
and raises for no fault of a file, so that one bad file does not hide the others. Nothing is waited
for: a pipe is not opened. A link that was found in a folder is not followed; it is named, with
whether its target is among the paths.

A file is known by its contents: the magic of Format 2, or a Format 1 tag that a key of the keyring
made. A file that is neither is damaged if at least half of the magic is there, or if it names a key
of the keyring where slots are. Anything else is not encrypted. That is a failure for a file that
was named, for one whose name ends in ``.enc``, and where everything must be encrypted.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from securefs.disk import explain, read_regular, remove_stale, special_kind, temporary_of
from securefs.errors import (
    VERDICTS,
    ConfigurationError,
    FormatError,
    IntegrityError,
    Reason,
    SecureFSError,
    SourceError,
)
from securefs.files import FileInfo, verify
from securefs.header import FIXED_SIZE, MAGIC, MAX_SLOT_SIZE, MAX_SLOTS
from securefs.importing import check_form, encrypt_in_place
from securefs.joined import check_in_steps, examine, is_joined, parts
from securefs.reader import open_encrypted
from securefs.reencryption import needs_reencryption, reencrypt
from securefs.replacing import refuse_other_names
from securefs.rotation import opening_key, rewrap
from securefs.secrecy import clears_frames
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from securefs.keys import Keyring
    from securefs.reencryption import Before
    from securefs.rotation import Rewrapped

__all__ = [
    "SUFFIX",
    "Found",
    "Status",
    "Verdict",
    "import_one",
    "key_of",
    "reencrypt_one",
    "rewrap_one",
    "verify_one",
    "walk",
]

SUFFIX: Final = ".enc"
_JOINED: Final = "containers one behind another: an app joined encrypted chunks"
_LEFT: Final = "a run that was killed had left it"
# Bytes at a file's start that hold its slot table, wherever a writer put the slots.
_SLOTS_END: Final = FIXED_SIZE + MAX_SLOTS * MAX_SLOT_SIZE


class Status(str, Enum):
    """What became of one file: a closed list."""

    VERIFIED = "verified"
    REWRAPPED = "rewrapped"
    IMPORTED = "imported"
    REENCRYPTED = "reencrypted"
    PLANNED = "planned"
    DUE = "due"
    UNCHANGED = "unchanged"
    OPENS = "opens"
    FAILED = "failed"
    JOINED = "joined"
    FORMAT_1 = "format_1"
    PLAIN = "plain"
    EMPTY = "empty"
    LINK = "link"
    SPECIAL = "special"
    GONE = "gone"
    REMOVED = "removed"


class _Kind(Enum):
    FILE = 1
    LINK = 2
    SPECIAL = 3
    UNREADABLE = 4


@dataclass(frozen=True, slots=True)
class Found:
    """Something under a path, as it was found. ``size`` is the stored size of a file in bytes.

    :ivar named: the caller named it, so a link in its place is followed.
    :ivar detail: what a link or a special file is, or why a folder can't be listed; in words.
    :ivar accounted: False for a link that leads out of the paths, or to nothing.
    """

    path: Path
    size: int = 0
    named: bool = False
    kind: _Kind = _Kind.FILE
    detail: str = ""
    accounted: bool = True

    @property
    def must_be_encrypted(self) -> bool:
        """Whether its name says that it is encrypted, or the caller does."""
        return self.named or self.path.name.endswith(SUFFIX)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one file.

    :ivar message: why, in one line; empty if there is nothing to say.
    :ivar reason: the code of a failure, where there is one.
    :ivar info: a file that verified, or was imported or re-encrypted.
    :ivar rewrapped: a file that was rewrapped, or did not need it.
    :ivar before: what a file was that was re-encrypted, or did not need it.
    :ivar key_id: the id (hex) of the key that the file needs (:func:`key_of`, and Format 1).
    :ivar containers: how many containers are in a file that an app joined, and how many of them do
        not verify, where that was looked at.
    """

    path: Path
    status: Status
    message: str = ""
    reason: Reason | None = None
    info: FileInfo | None = None
    rewrapped: Rewrapped | None = None
    before: Before | None = None
    key_id: str = ""
    containers: tuple[int, int | None] | None = None

    @property
    def failed(self) -> bool:
        """Whether it is a failure."""
        return self.status in {Status.FAILED, Status.JOINED}


def walk(names: Sequence[str]) -> Iterator[Found]:
    """Yield everything under the named files and folders, in order of the names.

    :raises OSError: a name does not exist. Nothing was yielded before.
    """
    # All of them first: a typing error is not a finding.
    statuses = [os.stat(name) for name in names]  # noqa: PTH116  # Path("") would be "."
    roots = [os.path.realpath(name) for name in names]
    for name, status in zip(names, statuses, strict=True):
        if stat.S_ISDIR(status.st_mode):
            yield from _tree(Path(name), roots)
        else:
            yield _found(Path(name), status, named=True)


def _tree(top: Path, roots: Sequence[str]) -> Iterator[Found]:
    """Yield what is in a folder, its files before its folders.

    It keeps a list and does not call itself: no tree is too deep.
    """
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            yield _unreadable(folder, error, "cannot be listed")
            continue
        folders = []
        for entry in entries:
            path = folder / entry.name
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                yield Found(path)  # its opening tells
                continue
            except OSError as error:
                yield _unreadable(path, error, "cannot be read")
                continue
            if stat.S_ISDIR(status.st_mode):
                folders.append(path)
            elif stat.S_ISLNK(status.st_mode):
                yield _link(path, roots)
            else:
                yield _found(path, status, named=False)
        waiting += reversed(folders)


def _found(path: Path, status: os.stat_result, *, named: bool) -> Found:
    if stat.S_ISREG(status.st_mode):
        return Found(path, status.st_size, named)
    kind = special_kind(path, follow_links=named) or "a special file"
    return Found(path, 0, named, _Kind.SPECIAL, f"{path} is {kind}, not a regular file")


def _unreadable(path: Path, error: OSError, what: str) -> Found:
    return Found(path, kind=_Kind.UNREADABLE, detail=f"{what}: {explain(error)}")


def _link(path: Path, roots: Sequence[str]) -> Found:
    try:
        target = os.path.realpath(path, strict=True)
    except OSError as error:
        detail = f"a symbolic link that leads to nothing that can be found: {explain(error)}"
        return Found(path, kind=_Kind.LINK, detail=detail, accounted=False)
    if any(target == root or target.startswith(root.rstrip("/") + "/") for root in roots):
        return Found(path, kind=_Kind.LINK, detail=f"a symbolic link to {target}")
    detail = f"a symbolic link to {target}, which is not under the named paths: name it too"
    return Found(path, kind=_Kind.LINK, detail=detail, accounted=False)


class _Look(Enum):
    """What a file's size and first bytes say."""

    ENCRYPTED = 1
    EMPTY = 2
    DAMAGED = 3
    UNMARKED = 4


def _look(file: BinaryIO, keyring: Keyring) -> _Look:
    head = file.read(len(MAGIC))
    if head == MAGIC:
        found = _Look.ENCRYPTED
    elif not head:
        found = _Look.EMPTY
    else:
        rest = file.read(_SLOTS_END)
        names_key = any(identity in rest for identity in keyring.key_ids)
        near = 2 * sum(map(eq, MAGIC, head)) >= len(MAGIC)
        found = _Look.DAMAGED if near or names_key else _Look.UNMARKED
    file.seek(0)
    return found


@clears_frames
def verify_one(
    found: Found,
    keyring: Keyring,
    context_of: Callable[[Path], bytes],
    *,
    format_1: bool = False,
    everything: bool = False,
    on_bytes: Callable[[int], object] = int,
) -> Verdict:
    """Verify every byte of a file.

    :param context_of: returns the context of the file at a path. If it is not known, it raises
        :class:`IntegrityError`, and that is the verdict.
    :param format_1: a Format 1 file is verified like another. Without it, it is only recognised.
    :param everything: whatever is no encrypted file, and not accounted for otherwise, is a failure.
    :param on_bytes: is called with each number of bytes that were verified.
    """

    def encrypted(file: BinaryIO) -> Verdict:
        with open_encrypted(file, keyring, context_of(found.path)) as plain:
            check_in_steps(plain, on_bytes)
            return Verdict(found.path, Status.VERIFIED, info=FileInfo.of(plain))

    def old(info: FileInfo, required: bool) -> Verdict:
        if format_1:
            return Verdict(found.path, Status.VERIFIED, info=info)
        message = "a Format 1 file, which is read with --format-1 only"
        status = Status.FAILED if required else Status.FORMAT_1
        return Verdict(found.path, status, message, Reason.NOT_ENCRYPTED, key_id=info.key_id)

    acts = _Acts(encrypted, old, lambda file: _examined(found, file, keyring, context_of))
    return _judged(found, keyring, acts, everything=everything)


@clears_frames
def rewrap_one(
    found: Found,
    keyring: Keyring,
    context_of: Callable[[Path], bytes | None],
    *,
    everything: bool = False,
) -> Verdict:
    """Let the keyring's primary key, and no previous one, open a file.

    Only a failure leaves open whether a previous key is still needed: so does everything that could
    not be looked at, and a link that leads to files that were not.

    :param context_of, everything: as for :func:`verify_one`; a context None is one of
        :func:`securefs.rewrap`.
    """

    def encrypted(file: BinaryIO) -> Verdict:
        context = context_of(found.path)
        if _hides_others(file, keyring, context):
            return _joined(found, file)
        done = rewrap(found.path, keyring, context, follow_links=found.named)
        status = Status.REWRAPPED if done.changed else Status.UNCHANGED
        return Verdict(found.path, status, rewrapped=done)

    acts = _Acts(encrypted, _old_key(found, keyring), lambda file: _joined(found, file))
    return _judged(found, keyring, acts, everything=everything, settled=True, what="cannot be rewrapped")


@clears_frames
def key_of(found: Found, keyring: Keyring, context_of: Callable[[Path], bytes | None]) -> Verdict:
    """Find the key of the keyring that a file needs; :attr:`Verdict.key_id` is its id.

    A file that the primary key opens needs no other key. Whatever may need a key that can't be told
    is a failure.

    :param context_of: as for :func:`rewrap_one`.
    """

    def encrypted(file: BinaryIO) -> Verdict:
        context = context_of(found.path)
        if _hides_others(file, keyring, context):
            return _joined(found, file)
        key = opening_key(found.path, keyring, context, follow_links=found.named)
        message = "" if key == keyring.primary_id.hex() else f"key {key}"
        return Verdict(found.path, Status.OPENS, message, key_id=key)

    def old(info: FileInfo, required: bool) -> Verdict:  # noqa: ARG001  # it needs its key in any case
        return Verdict(found.path, Status.OPENS, f"key {info.key_id}, Format 1", key_id=info.key_id)

    acts = _Acts(encrypted, old, lambda file: _joined(found, file))
    return _judged(found, keyring, acts, settled=True)


@clears_frames
def import_one(
    found: Found,
    keyring: Keyring,
    context_of: Callable[[Path], bytes],
    *,
    suite: Suite = Suite.CBC_HMAC,
    dry_run: bool = False,
    break_links: bool = False,
    on_bytes: Callable[[int], object] = int,
) -> Verdict:
    """Encrypt a file in place, unless it is in Format 2 already.

    A Format 1 file under a key of the keyring is decrypted first. A damaged file is a failure, and
    so is one in Format 2 that has not the form of a whole file; its contents are not verified.

    :param context_of: as for :func:`verify_one`.
    :param dry_run: change nothing; tell what would be done.
    :param suite, break_links, on_bytes: as for :func:`encrypt_in_place`.
    """
    if not dry_run and _remove_left(found):
        return Verdict(found.path, Status.REMOVED, _LEFT)

    def seal(*, format_1: bool) -> Verdict:
        what = "Format 1" if format_1 else ""
        context = context_of(found.path)
        if dry_run:
            if not break_links:
                refuse_other_names(found.path, os.stat(found.path))  # noqa: PTH116  # as it was opened
            return Verdict(found.path, Status.PLANNED, what)
        info = encrypt_in_place(
            found.path,
            keyring,
            context,
            suite=suite,
            format_1=format_1,
            follow_links=found.named,
            break_links=break_links,
            on_bytes=on_bytes,
        )
        return Verdict(found.path, Status.IMPORTED, what, info=info)

    def kept(file: BinaryIO) -> Verdict:
        check_form(file)
        return Verdict(found.path, Status.UNCHANGED)

    acts = _Acts(
        kept,
        lambda _info, _required: seal(format_1=True),
        lambda file: _joined(found, file),
        lambda: seal(format_1=False),
    )
    return _judged(found, keyring, acts, settled=True, what="cannot be encrypted")


@clears_frames
def reencrypt_one(
    found: Found,
    keyring: Keyring,
    context_of: Callable[[Path], bytes],
    *,
    everything: bool = False,
    again: bool = False,
    dry_run: bool = False,
    suite: Suite | None = None,
    keep_id: bool = False,
    break_links: bool = False,
    on_bytes: Callable[[int], object] = int,
) -> Verdict:
    """Write a file anew, with a new data key, under the primary key: see :func:`reencrypt`.

    A file whose data key no other key ever had is left alone. Only a failure leaves open whether
    there is something to do.

    :param context_of, everything: as for :func:`verify_one`.
    :param again: also a file that needs nothing.
    :param dry_run: change nothing; tell what would be done.
    :param suite, keep_id, break_links, on_bytes: as for :func:`reencrypt`.
    """
    if not dry_run and _remove_left(found):
        return Verdict(found.path, Status.REMOVED, _LEFT)

    def encrypted(file: BinaryIO) -> Verdict:
        context = context_of(found.path)
        before = needs_reencryption(file, keyring, context)
        if not (before.needed or again):
            return Verdict(found.path, Status.UNCHANGED, before=before)
        if dry_run:
            if not break_links:
                refuse_other_names(found.path, os.fstat(file.fileno()))
            return Verdict(found.path, Status.DUE, f"key {before.key_id}", before=before)
        done = reencrypt(
            found.path,
            keyring,
            context,
            suite=suite,
            keep_id=keep_id,
            follow_links=found.named,
            break_links=break_links,
            on_bytes=on_bytes,
        )
        return Verdict(found.path, Status.REENCRYPTED, info=done.info, before=done.before)

    acts = _Acts(encrypted, _old_key(found, keyring), lambda file: _joined(found, file))
    return _judged(found, keyring, acts, everything=everything, settled=True, what="cannot be re-encrypted")


def _remove_left(found: Found) -> bool:
    """Return whether ``found`` was what a killed process left that wrote a file beside it.

    It was removed. What a living process writes is locked, and stays.
    """
    target = temporary_of(found.path)
    return target is not None and target.is_file() and found.path in remove_stale(target)


def _hides_others(file: BinaryIO, keyring: Keyring, context: bytes | None) -> bool:
    """Return whether an encrypted file is several containers: its header tells of the first alone.

    The end of such a file does not verify. Without the context that can't be known, and all of the
    file is read.
    """
    if context is not None:
        with suppress(*VERDICTS):
            open_encrypted(file, keyring, context).close()
            return False
    return is_joined(file)


def _joined(found: Found, file: BinaryIO) -> Verdict:
    count = sum(1 for _ in parts(file))
    message = f"{count} {_JOINED}: use securefs recover first"
    return Verdict(found.path, Status.JOINED, message, Reason.CHUNKED_UPLOAD, containers=(count, None))


def _examined(found: Found, file: BinaryIO, keyring: Keyring, context_of: Callable[[Path], bytes]) -> Verdict:
    """Return the verdict on a file of several containers, each of which is verified."""
    try:
        context = context_of(found.path)
    except IntegrityError:
        return _joined(found, file)
    count = broken = 0
    first = ""
    for container in examine(file, keyring, context):
        count += 1
        if container.fault is not None:
            broken += 1
            first = first or f"{container.place}: {container.fault}"
    what = f"{broken} are broken, first {first}" if broken else "all of them verify"
    return Verdict(
        found.path,
        Status.JOINED,
        f"{count} {_JOINED}; {what}; see securefs recover",
        Reason.CHUNKED_UPLOAD,
        containers=(count, broken),
    )


def _old_key(found: Found, keyring: Keyring) -> Callable[[FileInfo, bool], Verdict]:
    def old(info: FileInfo, required: bool) -> Verdict:  # noqa: ARG001  # the key decides
        if info.key_id == keyring.primary_id.hex():
            return Verdict(found.path, Status.FORMAT_1, "under the primary key", key_id=info.key_id)
        message = (
            f"a Format 1 file under key {info.key_id}: Format 1 names no key, "
            "so it can only be encrypted anew (securefs import)"
        )
        return Verdict(found.path, Status.FAILED, message, Reason.NOT_ENCRYPTED, key_id=info.key_id)

    return old


@dataclass(frozen=True, slots=True)
class _Acts:
    """What is done to a file: if it is in Format 2, in Format 1, or not encrypted.

    :ivar old: takes what is known of the file, and whether it must be encrypted.
    :ivar joined: takes a file of several containers.
    :ivar plain: None: the verdict on such a file follows from its name.
    """

    encrypted: Callable[[BinaryIO], Verdict]
    old: Callable[[FileInfo, bool], Verdict]
    joined: Callable[[BinaryIO], Verdict]
    plain: Callable[[], Verdict] | None = None


def _judged(
    found: Found,
    keyring: Keyring,
    acts: _Acts,
    *,
    everything: bool = False,
    settled: bool = False,
    what: str = "cannot be read",
) -> Verdict:
    """Return the verdict on ``found``, and let no fault of it be raised.

    :param settled: what is not accounted for is a failure, also where not everything must be
        encrypted.
    :param what: what an OSError prevents, in words.
    """
    if found.kind is not _Kind.FILE:
        return _no_file(found, everything=everything, settled=settled)
    try:
        return _by_contents(found, keyring, acts, required=everything or found.must_be_encrypted)
    except FileNotFoundError as error:
        if not (found.named or settled):
            return Verdict(found.path, Status.GONE, "it was removed meanwhile")
        return _failed(found, error, what)
    except (*VERDICTS, SourceError, OSError) as error:
        return _failed(found, error, what)


def _by_contents(found: Found, keyring: Keyring, acts: _Acts, *, required: bool) -> Verdict:
    with read_regular(found.path, follow_links=found.named) as file:
        look = _look(file, keyring)
        if look is _Look.ENCRYPTED:
            try:
                return acts.encrypted(file)
            except VERDICTS:
                # Only now: a file that verifies is one container, and not searched for others.
                if is_joined(file):
                    return acts.joined(file)
                raise
        info = None if look is _Look.EMPTY else _format_1(file, keyring)
        if look is _Look.DAMAGED and info is None and is_joined(file):
            return acts.joined(file)
    if info is not None:
        return acts.old(info, required)
    if acts.plain is not None and look is not _Look.DAMAGED:
        return acts.plain()
    return _not_encrypted(found, look, required=required)


def _no_file(found: Found, *, everything: bool, settled: bool) -> Verdict:
    if found.kind is _Kind.UNREADABLE:
        return Verdict(found.path, Status.FAILED, found.detail, Reason.IO_ERROR)
    if found.kind is _Kind.LINK:
        # What a link in the tree leads to is looked at in its own place.
        bad = not found.accounted and (everything or settled or found.must_be_encrypted)
        return Verdict(found.path, *_bad_or(Status.LINK, bad=bad, detail=found.detail))
    bad = everything or found.must_be_encrypted
    return Verdict(found.path, *_bad_or(Status.SPECIAL, bad=bad, detail=found.detail))


def _bad_or(status: Status, *, bad: bool, detail: str) -> tuple[Status, str, Reason | None]:
    return (Status.FAILED, detail, Reason.IO_ERROR) if bad else (status, detail, None)


def _not_encrypted(found: Found, look: _Look, *, required: bool) -> Verdict:
    if look is _Look.EMPTY:
        status, message, reason = Status.EMPTY, "the file is empty", Reason.TRUNCATED
    elif look is _Look.DAMAGED:
        required = True
        status, reason = Status.PLAIN, Reason.BAD_HEADER
        message = "damaged: it nearly starts as an encrypted file does, or names a key of the keyring"
    else:
        status, message, reason = (
            Status.PLAIN,
            "not a securefs file, neither Format 2 nor Format 1 under a key of the keyring",
            Reason.NOT_ENCRYPTED,
        )
    if required:
        return Verdict(found.path, Status.FAILED, message, reason)
    return Verdict(found.path, status)


def _format_1(file: BinaryIO, keyring: Keyring) -> FileInfo | None:
    """Return a Format 1 file that a key of the keyring made; None for any other file.

    A file whose length no Format 1 file has is not read.
    """
    try:
        return verify(file, keyring, format_1=True)
    except (FormatError, IntegrityError, ConfigurationError):  # the last one: no file key
        return None


def _failed(found: Found, error: SecureFSError | OSError, what: str) -> Verdict:
    if isinstance(error, OSError):
        return Verdict(found.path, Status.FAILED, f"{what}: {explain(error)}", Reason.IO_ERROR)
    return Verdict(found.path, Status.FAILED, str(error), error.reason)
