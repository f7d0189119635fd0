"""What a file is, and the verdict on it.

Guarantees: :func:`judge` returns a :class:`Verdict` and raises for no fault of a file, so that one
bad file does not hide the others. A pipe is not opened.

A file is known by its contents: the magic of Format 2, or a Format 1 tag that a key of the keyring
made. A file that is neither is damaged if at least half of the magic is there, or if it names a key
of the keyring where slots are. Anything else is not encrypted. That is a failure for a file that
was named, for one whose name ends in ``.enc``, and where everything must be encrypted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from operator import eq
from typing import TYPE_CHECKING, BinaryIO, Final

from securefs.disk import explain, read_regular
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
from securefs.joined import is_joined
from securefs.walking import Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from securefs.keys import Keyring
    from securefs.reencryption import Before
    from securefs.rotation import Rewrapped
    from securefs.walking import Found

__all__ = ["Acts", "Status", "Verdict", "judge"]

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


@dataclass(frozen=True, slots=True)
class Acts:
    """What is done to a file: if it is in Format 2, in Format 1, or not encrypted.

    :ivar old: takes what is known of the file, and whether it must be encrypted.
    :ivar joined: takes a file of several containers.
    :ivar plain: None: the verdict on such a file follows from its name.
    """

    encrypted: Callable[[BinaryIO], Verdict]
    old: Callable[[FileInfo, bool], Verdict]
    joined: Callable[[BinaryIO], Verdict]
    plain: Callable[[], Verdict] | None = None


def judge(
    found: Found,
    keyring: Keyring,
    acts: Acts,
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
    if found.kind is not Kind.FILE:
        return _no_file(found, everything=everything, settled=settled)
    try:
        return _by_contents(found, keyring, acts, required=everything or found.must_be_encrypted)
    except FileNotFoundError as error:
        if not (found.named or settled):
            return Verdict(found.path, Status.GONE, "it was removed meanwhile")
        return _failed(found, error, what)
    except (*VERDICTS, SourceError, OSError) as error:
        return _failed(found, error, what)


def _by_contents(found: Found, keyring: Keyring, acts: Acts, *, required: bool) -> Verdict:
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
    if found.kind is Kind.UNREADABLE:
        return Verdict(found.path, Status.FAILED, found.detail, Reason.IO_ERROR)
    if found.kind is Kind.LINK:
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
