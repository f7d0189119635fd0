"""The error tree: every error that securefs raises on purpose.

All errors descend from :class:`SecureFSError`. No message and no attribute carries key bytes or
plaintext, so all of them may be logged. A client of a server sees less: the middleware tells it
only that an operation failed, and writes the reason to the audit journal.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

__all__ = [
    "ConfigurationError",
    "FormatError",
    "IntegrityError",
    "JournalError",
    "LimitExceededError",
    "Reason",
    "SecureFSError",
    "SourceError",
    "UnknownKeyError",
]


class Reason(str, Enum):
    """The reason of a failure: a closed list, the ``reason`` field of the audit journal."""

    TAG_MISMATCH = "tag_mismatch"
    COMMITMENT_MISMATCH = "commitment_mismatch"
    TRUNCATED = "truncated"
    BAD_HEADER = "bad_header"
    UNKNOWN_KEY = "unknown_key"
    WRONG_OBJECT = "wrong_object"
    WRONG_CONTEXT = "wrong_context"
    NOT_ENCRYPTED = "not_encrypted"
    UNDECLARED = "undeclared"
    COMPRESSED = "compressed"
    CIPHERTEXT_INJECTION = "ciphertext_injection"
    MALFORMED_MULTIPART = "malformed_multipart"
    CHUNKED_UPLOAD = "chunked_upload"
    LIMIT = "limit"
    INSPECTION = "inspection"
    TIMEOUT = "timeout"
    CLIENT_GONE = "client_gone"
    IO_ERROR = "io_error"
    JOURNAL_ERROR = "journal_error"


class SecureFSError(Exception):
    """The root of all errors that securefs raises on purpose.

    :ivar reason: the journal's code for it, None if the journal has none.
    """

    reason: Reason | None = None


class ConfigurationError(SecureFSError):
    """A key, variable, argument or path is not usable. The message says which, and what to do."""


class FormatError(SecureFSError):
    """The input is not a file of the requested format; nothing in it was trusted."""

    def __init__(self, message: str, reason: Reason = Reason.BAD_HEADER) -> None:
        super().__init__(message)
        self.reason: Reason = reason


class IntegrityError(SecureFSError):
    """The file failed verification: it was changed, cut, extended, moved or is in another context.

    :param message: which check failed, in words that may be logged.
    :param reason: the journal's code for it.
    :param segment: the index of the segment concerned; None if it is not one segment.
    :param digest: hex SHA-256 of that **ciphertext** segment as it was read (never of plaintext).
    """

    def __init__(
        self,
        message: str,
        reason: Reason = Reason.TAG_MISMATCH,
        *,
        segment: int | None = None,
        digest: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.segment = segment
        self.digest = digest


class UnknownKeyError(SecureFSError):
    """The file names no key of the keyring. :attr:`key_ids` are the ids (hex) that it names."""

    reason: Reason = Reason.UNKNOWN_KEY

    def __init__(self, message: str, key_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.key_ids = key_ids


class LimitExceededError(SecureFSError):
    """A limit was reached: of the format (segments in a file) or of the caller's policy."""

    reason: Reason = Reason.LIMIT


class SourceError(SecureFSError):
    """The source is not a binary file or stream: it gave text, nothing (None) or too much.

    Or it is a pipe, a device, a folder or a link where a regular file is needed.
    """

    reason: Reason = Reason.IO_ERROR


class JournalError(SecureFSError):
    """The audit journal cannot be written, so the operation must not go on."""

    reason: Reason = Reason.JOURNAL_ERROR


# These errors are about a file; all others are about the command or this machine.
VERDICTS: Final = (FormatError, IntegrityError, LimitExceededError, UnknownKeyError)
