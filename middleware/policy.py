"""The policy of the middleware: every limit and choice in one frozen dataclass, with its unit."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from securefs.arguments import require
from securefs.errors import ConfigurationError
from securefs.middleware.proxies import TrustedProxies
from securefs.sealer import FORMATS
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Policy"]

KIB: Final = 1024  # bytes
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
OtherBodies = Literal["pass", "refuse"]
CiphertextUploads = Literal["refuse", "allow"]
ChunkedUploads = Literal["refuse", "allow"]
# Fields that are one of two words, and those that are lists, with an example of what they list.
_CHOICES: Final = {
    "other_bodies": ("pass", "refuse"),
    "ciphertext_uploads": ("refuse", "allow"),
    "chunked_uploads": ("refuse", "allow"),
}
# Fields that a variable switches on.
_FLAGS: Final = {"keep_paths": "SECUREFS_KEEP_PATHS", "unbound_format_1": "SECUREFS_UNBOUND_FORMAT_1"}
_LISTS: Final = {
    **dict.fromkeys(
        ("format_1_paths", "plain_uploads", "protected_paths", "raw_uploads", "upload_paths"), "/files/*"
    ),
    **dict.fromkeys(("file_fields", "plain_fields"), "document"),
    "stores": "uploads",
    "trusted_proxies": "127.0.0.1",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits and choices of one :class:`SecureFS`.

    Paths are patterns of :mod:`fnmatch` (``*`` also matches ``/``), compared with every reading of
    ``SCRIPT_NAME`` + ``PATH_INFO``: :mod:`securefs.middleware.paths`.

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
    other_bodies: OtherBodies = "pass"
    # File parts that are not encrypted: all on these paths, and those of fields with these names on
    # any path. Each is in the journal as file.plain.
    plain_uploads: tuple[str, ...] = ()
    plain_fields: tuple[str, ...] = ()
    # Names of fields that hold files, though their parts have no file name. The app gets such a
    # part with the field's name for a file name.
    file_fields: tuple[str, ...] = ()
    # Files that a browser widget sends in pieces: "refuse" them, or "allow" each to become an
    # encrypted file of its own.
    chunked_uploads: ChunkedUploads = "refuse"
    # Files that start like an encrypted file: "refuse" them, or "allow" them to be encrypted again.
    # An app that opens such a file has a ciphertext that it was given: do not let it serve that.
    ciphertext_uploads: CiphertextUploads = "refuse"
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
    # Proxies in front of the app whose X-Forwarded-For names the client, for the journal: addresses
    # and networks, and "unix" for a Unix socket.
    trusted_proxies: tuple[str, ...] = ()
    spool: bool = False  # always hold an upload's ciphertext until it is whole, then call the app

    def __post_init__(self) -> None:
        _check_types(self)
        self._check_numbers()
        for name, words in _CHOICES.items():
            if getattr(self, name) not in words:
                raise ConfigurationError(
                    f"Policy.{name} must be {' or '.join(words)}, not {getattr(self, name)!r}"
                )
        for name, example in _LISTS.items():
            given = getattr(self, name)
            if not all(isinstance(item, str) for item in given):
                raise ConfigurationError(f'Policy.{name} must be a tuple such as ("{example}",)')
        TrustedProxies(self.trusted_proxies)
        if both := set(self.plain_fields) & set(self.file_fields):
            raise ConfigurationError(
                f"Policy.plain_fields and file_fields both name {min(both)!r}: it is encrypted, or it is not"
            )

    def _check_numbers(self) -> None:
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
            (self.body_timeout is not None and not self.body_timeout > 0)  # nor is it NaN
            or self.min_rate < 0
            or (self.verify_first is not None and self.verify_first < 0)
        ):
            raise ConfigurationError(
                "Policy.body_timeout must be positive, min_rate and verify_first not negative"
            )
        if self.format not in FORMATS:
            raise ConfigurationError(f"Policy.format must be 1 or 2, not {self.format!r}")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Policy:
        """Return the policy of ``SECUREFS_SUITE`` and the other variables in docs/deployment.md."""
        policy = cls(
            stores=_list(environ, "SECUREFS_STORES", os.pathsep),
            protected_paths=_list(environ, "SECUREFS_PROTECTED_PATHS"),
            raw_uploads=_list(environ, "SECUREFS_RAW_UPLOADS"),
            upload_paths=_list(environ, "SECUREFS_UPLOAD_PATHS"),
            plain_uploads=_list(environ, "SECUREFS_PLAIN_UPLOADS"),
            plain_fields=_list(environ, "SECUREFS_PLAIN_FIELDS"),
            file_fields=_list(environ, "SECUREFS_FILE_FIELDS"),
            format_1_paths=_list(environ, "SECUREFS_FORMAT_1_PATHS"),
            trusted_proxies=_list(environ, "SECUREFS_TRUSTED_PROXIES"),
        )
        if label := environ.get("SECUREFS_SUITE"):
            policy = replace(policy, suite=_suite(label))
        if text := environ.get("SECUREFS_FORMAT"):
            if text not in {"1", "2"}:
                raise ConfigurationError(f"SECUREFS_FORMAT must be 1 or 2, not {text!r}")
            policy = replace(policy, format=int(text))
        chosen: dict[str, Any] = {name: word for name in _CHOICES if (word := _choice(environ, name))}
        chosen |= {name: True for name, variable in _FLAGS.items() if _is_set(environ, variable)}
        policy = replace(policy, **chosen)
        if text := environ.get("SECUREFS_MAX_WAITING"):
            if not re.fullmatch("[1-9][0-9]{0,5}", text):
                raise ConfigurationError(
                    f"SECUREFS_MAX_WAITING must be a number above zero, not {text[:40]!r}"
                )
            policy = replace(policy, max_waiting=int(text))
        return policy


def _choice(environ: Mapping[str, str], name: str) -> str:
    """Return the word of a variable, "" if it is not set."""
    variable, words = f"SECUREFS_{name.upper()}", _CHOICES[name]
    text = environ.get(variable, "")
    if text and text not in words:
        raise ConfigurationError(f"{variable} must be {' or '.join(words)}, not {text[:40]!r}")
    return text


def _is_set(environ: Mapping[str, str], variable: str) -> bool:
    """Return whether a variable is 1."""
    text = environ.get(variable, "")
    if text not in {"", "0", "1"}:
        raise ConfigurationError(f"{variable} must be 0 or 1, not {text[:40]!r}")
    return text == "1"


# What a field must be, by its annotation: its types, and words for them.
_TYPES: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "int": ((int,), "a whole number"),
    "int | None": ((int, type(None)), "a whole number or None"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float, type(None)), "a number or None"),
    "bool": ((bool,), "True or False"),
    "Suite": ((Suite,), "a Suite such as Suite.GCM"),
    "tuple[str, ...]": ((tuple,), 'a tuple such as ("/files/*",)'),
    "OtherBodies": ((str,), "pass or refuse"),
    "ChunkedUploads": ((str,), "refuse or allow"),
    "CiphertextUploads": ((str,), "refuse or allow"),
}


def _check_types(policy: Policy) -> None:
    for field in fields(policy):
        kinds, wanted = _TYPES[str(field.type)]
        value = getattr(policy, field.name)
        # True is a number for Python, and no limit for anyone.
        mistaken = isinstance(value, bool) and bool not in kinds
        require(f"Policy.{field.name}", value, () if mistaken else kinds, wanted)


def _list(environ: Mapping[str, str], name: str, separator: str = ",") -> tuple[str, ...]:
    return tuple(item.strip() for item in environ.get(name, "").split(separator) if item.strip())


def _suite(label: str) -> Suite:
    try:
        return Suite.parse(label)
    except ConfigurationError as error:
        raise ConfigurationError(f"SECUREFS_SUITE: {error}") from None
