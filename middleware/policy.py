"""The policy of the middleware: every limit and choice in one frozen dataclass, with its unit."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from securefs.errors import ConfigurationError
from securefs.sealer import FORMATS
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Policy"]

KIB: Final = 1024  # bytes
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and choices of one :class:`SecureFS`.

    Paths are patterns of :mod:`fnmatch` (``*`` also matches ``/``), compared with every reading of
    ``SCRIPT_NAME`` + ``PATH_INFO``: :mod:`securefs.middleware.places`.

    :raises ConfigurationError: for an impossible value.
    """

    max_body: int = 10 * GIB  # bytes of a whole multipart request
    max_files: int = 100  # file parts in a request
    max_fields: int = 1000  # other parts in a request
    max_field_bytes: int = MIB  # bytes of one field's value
    max_part_header: int = 8 * KIB  # bytes of one part's header block
    max_filename: int = 255  # bytes of UTF-8; a longer name is shortened, its suffix kept
    # Keep the relative path in a file's name, as folder uploads have it; else its last component.
    keep_paths: bool = False
    body_timeout: float | None = None  # seconds for a whole request body; None: any number
    min_rate: int = KIB  # bytes per second, averaged over a body after its first five seconds
    # Request bodies per process that may be waited for at once; None: any number. Use fewer than
    # the server's threads, so that some stay free. A further body takes the place of a slow one, or
    # is refused with 503. It applies only if the server shows the connection: docs/servers.md.
    max_waiting: int | None = None
    # Bytes of ciphertext that are verified whole before the status line; None: always all.
    verify_first: int | None = 64 * MIB
    max_ranges: int = 16  # ranges in one request; a request for more gets the whole file
    # The body of PUT and POST on these paths is itself a file, whatever its type.
    raw_uploads: tuple[str, ...] = ()
    # Paths on which multipart uploads are accepted; elsewhere they are 415. None given: everywhere.
    upload_paths: tuple[str, ...] = ()
    # Bodies on no declared path that are no form, JSON, XML or text: "pass" them to the app as they
    # are, or "refuse" them with 415.
    other_bodies: Literal["pass", "refuse"] = "pass"
    # Files that a browser widget sends in pieces: "refuse" them, or "allow" each to become an
    # encrypted file of its own.
    chunked_uploads: Literal["refuse", "allow"] = "refuse"
    # Folders in which the app keeps what was uploaded. A response made from a file in one of them
    # must be ciphertext that verifies.
    stores: tuple[str, ...] = ()
    # Set Content-Type and Content-Disposition of downloads from the sealed metadata. The files are
    # for saving: a browser is told to show and to run nothing of them.
    restore_metadata: bool = False
    suite: Suite = Suite.CBC_HMAC  # of new files, Format 2
    format: int = 2  # of new files: 1 or 2
    # Responses on these paths may be Format 1, and must be encrypted.
    format_1_paths: tuple[str, ...] = ()
    # Bytes of a stored Format 1 file that is served; None: any number. All of it is read before the
    # first byte is sent, whatever the request asks for.
    max_format_1: int | None = GIB
    # Format 1 binds no context: such files open under every context. With SecureFS(context=…),
    # Format 1 is refused unless this is True.
    unbound_format_1: bool = False
    protected_paths: tuple[str, ...] = ()  # successful responses on these paths must be encrypted
    spool: bool = False  # always hold an upload's ciphertext until it is whole, then call the app

    def __post_init__(self) -> None:
        for name in (
            "max_body",
            "max_files",
            "max_fields",
            "max_field_bytes",
            "max_part_header",
            "max_filename",
            "max_ranges",
        ):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"Policy.{name} must be at least 1")
        if self.max_waiting is not None and self.max_waiting < 1:
            raise ConfigurationError("Policy.max_waiting must be at least 1, or None")
        if self.max_format_1 is not None and self.max_format_1 < 1:
            raise ConfigurationError("Policy.max_format_1 must be at least 1, or None")
        if (
            (self.body_timeout is not None and self.body_timeout <= 0)
            or self.min_rate < 0
            or (self.verify_first is not None and self.verify_first < 0)
        ):
            raise ConfigurationError(
                "Policy.body_timeout must be positive, min_rate and verify_first not negative"
            )
        if self.format not in FORMATS:
            raise ConfigurationError(f"Policy.format must be 1 or 2, not {self.format!r}")
        _check_word("other_bodies", self.other_bodies, ("pass", "refuse"))
        _check_word("chunked_uploads", self.chunked_uploads, ("refuse", "allow"))
        for name in ("format_1_paths", "protected_paths", "raw_uploads", "stores", "upload_paths"):
            patterns = getattr(self, name)
            if not isinstance(patterns, tuple) or not all(isinstance(item, str) for item in patterns):
                raise ConfigurationError(f'Policy.{name} must be a tuple of patterns such as ("/files/*",)')

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Policy:
        """Return the policy of ``SECUREFS_SUITE`` and the other variables in docs/deployment.md."""
        policy = cls(
            stores=_list(environ, "SECUREFS_STORES", os.pathsep),
            protected_paths=_list(environ, "SECUREFS_PROTECTED_PATHS"),
            raw_uploads=_list(environ, "SECUREFS_RAW_UPLOADS"),
            upload_paths=_list(environ, "SECUREFS_UPLOAD_PATHS"),
            format_1_paths=_list(environ, "SECUREFS_FORMAT_1_PATHS"),
        )
        if label := environ.get("SECUREFS_SUITE"):
            policy = replace(policy, suite=_suite(label))
        if text := environ.get("SECUREFS_FORMAT"):
            if text not in {"1", "2"}:
                raise ConfigurationError(f"SECUREFS_FORMAT must be 1 or 2, not {text!r}")
            policy = replace(policy, format=int(text))
        if text := environ.get("SECUREFS_OTHER_BODIES"):
            if text not in {"pass", "refuse"}:
                raise ConfigurationError(f"SECUREFS_OTHER_BODIES must be pass or refuse, not {text[:40]!r}")
            policy = replace(policy, other_bodies="refuse" if text == "refuse" else "pass")
        if text := environ.get("SECUREFS_UNBOUND_FORMAT_1"):
            if text not in {"0", "1"}:
                raise ConfigurationError(f"SECUREFS_UNBOUND_FORMAT_1 must be 0 or 1, not {text[:40]!r}")
            policy = replace(policy, unbound_format_1=text == "1")
        if text := environ.get("SECUREFS_MAX_WAITING"):
            if not re.fullmatch("[1-9][0-9]{0,5}", text):
                raise ConfigurationError(
                    f"SECUREFS_MAX_WAITING must be a number above zero, not {text[:40]!r}"
                )
            policy = replace(policy, max_waiting=int(text))
        return policy


def _check_word(name: str, value: str, words: tuple[str, str]) -> None:
    if value not in words:
        raise ConfigurationError(f"Policy.{name} must be {' or '.join(words)}, not {value!r}")


def _list(environ: Mapping[str, str], name: str, separator: str = ",") -> tuple[str, ...]:
    return tuple(item.strip() for item in environ.get(name, "").split(separator) if item.strip())


def _suite(label: str) -> Suite:
    try:
        return Suite.parse(label)
    except ConfigurationError as error:
        raise ConfigurationError(f"SECUREFS_SUITE: {error}") from None
