"""Seals new files in the chosen format; the one place that knows both formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from securefs import format1
from securefs.arguments import require
from securefs.errors import ConfigurationError
from securefs.keys import Keyring
from securefs.primitives import StreamSealer
from securefs.secrecy import HoldsSecrets
from securefs.stream import Encryptor, most_overhead
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securefs.primitives import Primitives

__all__ = ["FORMATS", "FileSealer", "NewFiles"]

ORIGINAL: Final = 1
FORMATS: Final = (ORIGINAL, 2)


class FileSealer(StreamSealer, Protocol):
    """Seals one file.

    :ivar object_id: 64 hex digits, "" in Format 1. :ivar key_id: the id, in hex, of the sealing
        key.
    """

    object_id: str
    key_id: str

    def stored_length(self, size: int) -> int:
        """Return the size in bytes of the stored file for ``size`` bytes of plaintext."""
        ...


@dataclass(frozen=True, slots=True)
class NewFiles(HoldsSecrets):
    """The settings under which new files are sealed.

    :ivar keyring: its primary key seals them.
    :ivar suite: the suite of Format 2; Format 1 has only one.
    """

    keyring: Keyring
    format: int = 2
    suite: Suite = Suite.CBC_HMAC

    def __post_init__(self) -> None:
        require("keyring", self.keyring, Keyring, "a Keyring")

    @property
    def binds(self) -> bool:
        """Whether a file has a place for a context and for metadata. Format 1 has none."""
        return self.format != ORIGINAL

    @property
    def suite_label(self) -> str | None:
        """The suite's name for records, None in Format 1."""
        return self.suite.label if self.binds else None

    def check(self) -> None:
        """Raise :class:`ConfigurationError` if the keyring can't seal files of this format."""
        if self.binds:
            self.keyring.wrapper()
        else:
            self.keyring.format_1_verifier()

    def sealer(
        self,
        context: bytes = b"",
        metadata: Mapping[str, object] | None = None,
        *,
        file_id: bytes | None = None,
        primitives: Primitives | None = None,
    ) -> FileSealer:
        """Return an object that seals one file.

        :param context, metadata, file_id: as for :class:`Encryptor`; Format 1 has none of them.
        :raises ConfigurationError: for an unusable key, context or metadata; Format 1 holds neither
            context nor metadata.
        """
        if self.binds:
            return Encryptor(
                self.keyring, self.suite, context, metadata, file_id=file_id, primitives=primitives
            )
        if context or metadata:
            raise ConfigurationError("Format 1 has no place for a context or metadata: use Format 2")
        return self.keyring.format_1_sealer(primitives)

    def most_overhead(self, metadata_size: int) -> int:
        """Return the largest number of bytes that a file adds to its plaintext.

        The growth of the plaintext itself (:func:`securefs.stream.growth`) is not counted.

        :param metadata_size: the size of the longest metadata text, in bytes.
        """
        return most_overhead(self.keyring, metadata_size) if self.binds else format1.most_overhead()
