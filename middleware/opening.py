"""Which files an app may open, how they are opened, and what is recorded of it.

To decrypt is to permit. Guarantees: nothing of a file is decrypted before it is known that it may
be, and the journal has a record before the app gets a byte. Refuses: a file that a request did not
seal and that is in no store, and a ciphertext that was read out of an encrypted file. Which errors
are recorded as which event is decided here.
"""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any, Final, cast

from securefs.arguments import require
from securefs.disk import explain, read_regular
from securefs.errors import (
    VERDICTS,
    ConfigurationError,
    FormatError,
    IntegrityError,
    JournalError,
    Reason,
    SecureFSError,
    SourceError,
    UnknownKeyError,
)
from securefs.header import PREAMBLE_SIZE, claimed_object_id
from securefs.middleware.evidence import record_passed_over
from securefs.middleware.file_wrapper import opened_by_app
from securefs.middleware.refusal import log
from securefs.primitives import HMAC_SIZE, view_of
from securefs.reader import nested_ids, open_encrypted
from securefs.source import as_a_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from securefs.middleware.evidence import Evidence, Upload
    from securefs.middleware.means import Means
    from securefs.reader import EncryptedFile
    from securefs.source import SeekableFile

__all__ = ["may_open", "open_file", "opened_of", "own_of", "source_of", "start_of"]

# Failures of a request to open a file; every other one is a failure of the file itself.
_REFUSED: Final = frozenset({Reason.UNDECLARED, Reason.CIPHERTEXT_INJECTION, Reason.LIMIT, Reason.IO_ERROR})
_ELSEWHERE: Final = (
    "it is in no declared store, so it is not opened: add its folder to stores (SECUREFS_STORES), or, of an object store that your "
    "settings name, say Vault.open(file, anywhere=True)"
)
_NOT_OF_REQUEST: Final = "this request did not seal it, and it is in no declared store, so it is not opened: add its folder to stores (SECUREFS_STORES)"
_NESTED: Final = "it was read out of an encrypted file: somebody encrypted it twice, and would have it decrypted by way of the app"
_SEALS_ONLY: Final = (
    "the keyring of this process has no key that opens files, only one that seals: it may store files and not read them. Give it a "
    "key that opens (FILE_KEY_BASE64, or Keyring.of(wrapper, unwrapper)), or leave the reading to another process"
)


def open_file(
    means: Means,
    evidence: Evidence,
    file: Any,
    context: Callable[[], bytes],
    object_id: str | None,
    *,
    anywhere: bool = False,
) -> EncryptedFile:
    """Return the verified plaintext of a file that may be opened; see :meth:`Vault.open`.

    :param evidence: whose records are written, and what was sealed there.
    :param context: returns what the file is bound to.
    """
    require("object_id", object_id, (str, type(None)), "64 hex digits, or None")
    if opened_by_app(file) is not None:
        raise ConfigurationError("the file is open already: what it gives is verified plaintext")
    bound = context()
    failure = _Failure(evidence, _name_of(file))
    owned: IO[bytes] | None = None
    try:
        source, owned = source_of(file)
        upload = may_open(means, evidence, source, anywhere=anywhere)
        failure.is_about(upload, source)
        opened = opened_of(means, source, bound)
        failure.is_of(opened)
        _check_expected(opened, object_id, upload)
        record_passed_over(evidence, failure.about, opened.passed_over)
        evidence.record("file.open", about=failure.about)
    except BaseException as error:
        # On any exception, an interrupt too: nobody else has the file that was opened here.
        if owned is not None:
            owned.close()
        if isinstance(error, (SecureFSError, OSError)):
            failure.tell(error)
        raise
    opened.watch(failure.tell_late)
    if owned is not None:
        opened.keep(cast("Any", owned))
    return opened


def may_open(means: Means, evidence: Evidence, source: SeekableFile, *, anywhere: bool) -> Upload | None:
    """Return what the request sealed that this is; None if it is a file of a store.

    :raises FormatError: it is neither, or it must not be opened.
    """
    if claimed_object_id(start_of(source)) in nested_ids():
        raise FormatError(_NESTED, Reason.CIPHERTEXT_INJECTION)
    if (upload := own_of(evidence, source)) is not None:
        return upload
    places, in_request = means.places, evidence.own is not None
    is_open_to_all = anywhere or not (places.declared or in_request)
    if not (is_open_to_all or (places.has_stores and places.holds(source))):
        raise FormatError(_NOT_OF_REQUEST if in_request else _ELSEWHERE, Reason.UNDECLARED)
    return None


def opened_of(means: Means, source: SeekableFile, context: bytes) -> EncryptedFile:
    """Return the plaintext of a file, wherever it is."""
    if not means.keyring.opens:
        raise UnknownKeyError(_SEALS_ONLY)
    try:
        return open_encrypted(
            source,
            means.keyring,
            context,
            format_1=means.reads_format_1,
            unbound_format_1=means.policy.unbound_format_1,
            max_format_1=means.policy.max_format_1,
        )
    except UnknownKeyError as error:
        hint = "if it is a key of yours, add it to FILE_KEY_BASE64_PREVIOUS"
        raise UnknownKeyError(f"{error}: {hint}", error.key_ids) from None


class _Failure:
    """Tells the journal and the operator why a file was not opened, or could not be read on.

    :ivar about: what is known of the file: first what it claims, then what was verified.
    """

    def __init__(self, evidence: Evidence, name: str) -> None:
        self.about: dict[str, str | int] = {"name": os.path.basename(name)}  # noqa: PTH119  # text
        self._evidence = evidence
        self._shown = ascii(name)[1:-1]

    def is_about(self, upload: Upload | None, source: SeekableFile) -> None:
        """Note what the file claims to be."""
        if upload is not None:
            self.about["name"] = upload.filename
            self._shown = f"the upload {upload.filename!a}"
        self.about["id"] = claimed_object_id(start_of(source)) or ""

    def is_of(self, opened: EncryptedFile) -> None:
        """Note what was verified of the file."""
        self.about |= {"key_id": opened.key_id, "format": opened.format, "size": opened.size}
        if opened.object_id:
            self.about |= {"id": opened.object_id, "suite": opened.suite}

    def tell(self, error: SecureFSError | OSError) -> None:
        """Record it, tell the operator, and have the error name the file.

        :raises JournalError: it can't be recorded.
        """
        reason = Reason.IO_ERROR if isinstance(error, OSError) else error.reason
        if reason is None or isinstance(error, JournalError):
            # It is no fault of the file, or there is nowhere to tell it.
            return
        about = dict(self.about)
        if isinstance(error, IntegrityError) and error.segment is not None:
            about |= {"segment": error.segment, "digest": error.digest or ""}
        event = "file.open" if reason in _REFUSED else "file.integrity_failure"
        self._evidence.record(event, outcome="failure", reason=reason, about=about)
        detail = explain(error) if isinstance(error, OSError) else str(error)
        log.warning("%s can't be opened: %s", self._shown or "a file", ascii(detail)[1:-1])
        if self._shown and isinstance(error, (*VERDICTS, SourceError)):
            error.args = (f"{self._shown}: {detail}",)

    def tell_late(self, error: SecureFSError | OSError) -> None:
        """Do the same for what a later read met: a response may be half sent."""
        self._evidence.spoil(
            error.reason if isinstance(error, SecureFSError) else Reason.IO_ERROR, str(error)
        )
        self.tell(error)


def _name_of(file: object) -> str:
    """Return the path of a file, or the name that it has, "" if it has none."""
    if isinstance(file, (str, os.PathLike)):
        return os.fsdecode(file)
    name = getattr(file, "name", None)
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else ""


def source_of(file: Any) -> tuple[SeekableFile, IO[bytes] | None]:
    """Return (a file to read from, the same if it was opened here)."""
    if not isinstance(file, (str, os.PathLike)):
        return file, None
    with as_a_file():
        owned = read_regular(file, follow_links=True)
    return cast("SeekableFile", owned), owned


def start_of(source: SeekableFile) -> bytes:
    """Return the first bytes of a file."""
    with as_a_file():
        source.seek(0)
        return bytes(view_of(source.read(PREAMBLE_SIZE)))


def own_of(evidence: Evidence, source: SeekableFile) -> Upload | None:
    """Return what the request sealed that a file claims to be.

    That it is so, its verification tells: an object id is bound to all of a file, and so is a tag.
    """
    own = evidence.own
    if not own:
        return None
    object_id = claimed_object_id(start_of(source))
    if object_id is not None:
        return own.get(object_id)
    with as_a_file():
        source.seek(-min(HMAC_SIZE, source.seek(0, os.SEEK_END) or source.tell()), os.SEEK_END)
        return own.get(bytes(view_of(source.read(HMAC_SIZE))).hex())


def _check_expected(opened: EncryptedFile, object_id: str | None, upload: Upload | None) -> None:
    """Refuse another file than the app expects, or than the request sealed."""
    expected = {object_id, None if upload is None else upload.object_id} - {None}
    if expected - {opened.object_id}:
        raise IntegrityError("the file is not the one that was asked for", Reason.WRONG_OBJECT)
