"""Many files: what is done to each that is under some paths. Prints nothing.

Guarantees: everything under a path is accounted for. :func:`walk` yields what is there, and each
function on one of them returns a :class:`Verdict` and raises for no fault of a file. What a file is
and which verdict that is, :mod:`securefs.judging` knows; this module verifies, rewraps, imports and
re-encrypts.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Final

from securefs.disk import remove_stale, temporary_of
from securefs.errors import VERDICTS, IntegrityError, Reason
from securefs.files import FileInfo
from securefs.importing import check_form, encrypt_in_place
from securefs.joined import check_in_steps, examine, is_joined, parts
from securefs.judging import Acts, Status, Verdict, judge
from securefs.reader import open_encrypted
from securefs.reencryption import needs_reencryption, reencrypt
from securefs.replacing import refuse_other_names
from securefs.rotation import opening_key, rewrap
from securefs.secrecy import clears_frames
from securefs.suites import Suite
from securefs.walking import SUFFIX, Found, walk

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from securefs.keys import Keyring

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

_JOINED: Final = "containers one behind another: an app joined encrypted chunks"
_LEFT: Final = "a run that was killed had left it"


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

    acts = Acts(encrypted, old, lambda file: _examined(found, file, keyring, context_of))
    return judge(found, keyring, acts, everything=everything)


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

    acts = Acts(encrypted, _old_key(found, keyring), lambda file: _joined(found, file))
    return judge(found, keyring, acts, everything=everything, settled=True, what="cannot be rewrapped")


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

    acts = Acts(encrypted, old, lambda file: _joined(found, file))
    return judge(found, keyring, acts, settled=True)


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

    acts = Acts(
        kept,
        lambda _info, _required: seal(format_1=True),
        lambda file: _joined(found, file),
        lambda: seal(format_1=False),
    )
    return judge(found, keyring, acts, settled=True, what="cannot be encrypted")


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

    acts = Acts(encrypted, _old_key(found, keyring), lambda file: _joined(found, file))
    return judge(found, keyring, acts, everything=everything, settled=True, what="cannot be re-encrypted")


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
