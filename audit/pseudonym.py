"""Pseudonyms keep names out of the journal, and let one search it for a known name.

Guarantees: a name has the same pseudonym for as long as the key is the same. Without that
key, nobody can check a guess at a name. A name and a principal with the same text have different
pseudonyms. Refuses: a key that other users can read or own, and a key that is not 32 bytes. Two
workers that start at once agree on one key, because only one of them can link its key to the final
name.

Implements the section on names of ``docs/journal.md``.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import stat
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from securefs.audit.folder import open_regular
from securefs.disk import explain, flush_folder, write_new
from securefs.errors import ConfigurationError
from securefs.secrecy import HoldsSecrets, clears_frames

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KEY_FILE", "Kind", "Pseudonyms", "load_key", "load_or_create", "random_pseudonyms"]

KEY_FILE: Final = "pseudonym.key"  # in the journal's folder, mode 0600
_KEY_SIZE: Final = 32  # bytes
_KEY_ID_SIZE: Final = 8  # bytes, so 16 hex digits
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

Kind = Literal["name", "principal"]


@dataclass(frozen=True, slots=True)
class Pseudonyms(HoldsSecrets):
    """Makes pseudonyms under one key, which its repr does not show.

    :ivar key_id: 16 hex digits that name the key and do not reveal it.
    """

    key: bytes = field(repr=False)
    key_id: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Once, and not for each record.
        object.__setattr__(self, "key_id", self._hmac("key-id", "")[:_KEY_ID_SIZE].hex())

    def of(self, kind: Kind, text: str) -> str:
        """Return ``hmac-sha256:<key id, 16 hex>:<64 hex>`` for this file name or principal.

        Texts that Unicode takes for equal have one pseudonym: some systems decompose names.
        """
        if not text.isascii():
            text = unicodedata.normalize("NFC", text)
        return f"hmac-sha256:{self.key_id}:{self._hmac(kind, text).hex()}"

    def at(self, _now: int) -> Pseudonyms:
        """Return these pseudonyms: they are the same at any time."""
        return self

    def _hmac(self, kind: str, text: str) -> bytes:
        # The zero byte ends the kind: no text can make one kind's input equal to another's.
        message = kind.encode("ascii") + b"\x00" + text.encode("utf-8", "surrogatepass")
        return hmac.digest(self.key, message, "sha256")


def random_pseudonyms() -> Pseudonyms:
    """Return pseudonyms under a fresh key that is stored nowhere.

    They match within one process and its forks only.
    """
    return Pseudonyms(secrets.token_bytes(_KEY_SIZE))


@clears_frames
def load_or_create(directory: Path, name: str = KEY_FILE, what: str = "the journal's folder") -> Pseudonyms:
    """Return the pseudonyms under the key ``name`` in ``directory``; create it if there is none.

    :param what: what the folder is, for messages.
    :raises ConfigurationError: the key cannot be created, or is not fit for use.
    """
    path = directory / name
    try:
        if not os.path.lexists(path):
            _create(path)
    except OSError as error:
        raise ConfigurationError(
            f"cannot create {path}: {explain(error)}; {what} needs room, and this user must be able to write there"
        ) from error
    return load_key(path)


def _create(path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with write_new(temporary) as file:
            file.write(secrets.token_bytes(_KEY_SIZE))
        # A rename would replace the key of a worker that was faster; a link fails instead.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        flush_folder(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def load_key(path: Path) -> Pseudonyms:
    """Return the pseudonyms under the key in a file.

    :raises ConfigurationError: it is not there, or not fit for use.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the pseudonym key {path}: {explain(error)}; "
            "name the folder of a journal that records pseudonyms, as the user who writes it"
        ) from error
    if file is None:
        raise ConfigurationError(f"the pseudonym key {path} is not a file; remove it and start again")
    with file:
        if os.fstat(file.fileno()).st_mode & _OTHERS:
            raise ConfigurationError(f"others can read the pseudonym key {path}; run: chmod 600 {path}")
        key = file.read(_KEY_SIZE + 1)
    if len(key) != _KEY_SIZE:
        raise ConfigurationError(
            f"the pseudonym key {path} is not {_KEY_SIZE} bytes; restore it from a backup"
        )
    return Pseudonyms(key)
