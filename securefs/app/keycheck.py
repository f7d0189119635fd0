"""Finds out whether the keys are the ones that this data folder's files were sealed with.

A wrong key is valid: without a check the app would start, fail to open every stored file, and seal
new ones under a key that nobody keeps. So the data folder holds a small sealed file,
``key-check.enc``. A keyring that can't open it is refused at start and by ``/readyz``, before a
file is written under it.

The file is made at the first start. If there are stored files by then, as after an upgrade, one of
the newest must open first. When the primary key was changed and a previous key opens the file, it
is rewrapped. That makes no statement about the stored files: ``securefs keys in-use`` does.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from securefs import (
    ConfigurationError,
    Encryptor,
    FileInfo,
    SecureFSError,
    UnknownKeyError,
    open_encrypted,
    rewrap,
    verify,
)
from securefs.app.database import DATA_VARIABLE, StorageError
from securefs.app.storage import owner_context
from securefs.disk import explain, read_regular, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from securefs import Keyring
    from securefs.app.storage import Storage

__all__ = ["KEY_CHECK_NAME", "KeyCheck"]

KEY_CHECK_NAME: Final = "key-check.enc"
# No owner's context: those begin with "owner:".
CONTEXT: Final = b"key-check"
NEWEST: Final = 20  # stored files of which one must open before the first key check is made


class KeyCheck:
    """The key check of one data folder.

    :param directory: the data folder.
    """

    def __init__(self, directory: Path, keyring: Keyring) -> None:
        self._path, self._keyring = directory / KEY_CHECK_NAME, keyring
        # The file's identity when it was last opened, and what was wrong with it.
        self._seen: tuple[tuple[int, ...] | None, str | None] = (None, None)

    def prepare(self, storage: Storage) -> None:
        """Open the key check at start. Make it if it is missing; rewrap it for a new primary key.

        Several processes may do this at a time.

        :raises ConfigurationError: the keys are not those of this data folder, or the file can't be
            used. Nothing was written.
        """
        try:
            if not os.path.lexists(self._path):
                self._check_stored(storage)
                self._make()
            if self._open().key_id != self._keyring.primary_id.hex():
                rewrap(self._path, self._keyring, CONTEXT, follow_links=False)
        except OSError as error:
            raise ConfigurationError(f"cannot use {self._path}: {explain(error)}") from None
        except ConfigurationError:
            raise
        except StorageError as error:
            raise ConfigurationError(f"{DATA_VARIABLE}: {error}") from None
        except SecureFSError as error:
            raise ConfigurationError(self._damaged(error)) from None

    def check(self) -> None:
        """Raise :class:`StorageError` if the keys do not open the key check.

        The file is read again only if it was changed: asking often costs a stranger's request no
        more than a look at the file's status.
        """
        try:
            status = self._path.lstat()
            mark = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            seen, fault = self._seen
            if seen != mark:
                fault = self._fault()
                self._seen = (mark, fault)
        except OSError as error:
            raise StorageError(f"cannot read {self._path}: {explain(error)}") from None
        if fault is not None:
            raise StorageError(fault)

    def _fault(self) -> str | None:
        try:
            self._open()
        except ConfigurationError as error:
            return str(error)
        except SecureFSError as error:
            return self._damaged(error)
        return None

    def _open(self) -> FileInfo:
        with read_regular(self._path, follow_links=False) as file:
            try:
                return verify(file, self._keyring, CONTEXT)
            except UnknownKeyError as error:
                raise _wrong_keys(self._path.name, self._path.parent, error) from None

    def _make(self) -> None:
        encryptor = Encryptor(self._keyring, context=CONTEXT)
        sealed = encryptor.update(b"") + encryptor.finalize()
        # Another process may have made it meanwhile. Then that one is opened, like any other.
        with suppress(ConfigurationError), write_atomically(self._path) as file:
            file.write(sealed)

    def _check_stored(self, storage: Storage) -> None:
        """Refuse keys that open none of the newest files, if that is because of the keys."""
        unknown: UnknownKeyError | None = None
        for owner, stored in storage.newest(NEWEST):
            try:
                with (
                    storage.open(stored) as file,
                    open_encrypted(file, self._keyring, owner_context(owner)),
                ):
                    return
            except UnknownKeyError as error:  # noqa: PERF203  # each file is another question
                unknown = error
            except SecureFSError:
                continue  # it is damaged or missing, whatever the keys are
        if unknown is not None:
            raise _wrong_keys("the newest files", self._path.parent, unknown)

    def _damaged(self, error: SecureFSError) -> str:
        return (
            f"{self._path} can't be used: {error}; restore it from a backup, or, if "
            "securefs verify --data-dir finds no fault, delete it and start the app"
        )


def _wrong_keys(what: str, directory: Path, error: UnknownKeyError) -> ConfigurationError:
    return ConfigurationError(
        f"FILE_KEY_BASE64: no key of the keyring opens {what} in {directory}, sealed under key "
        f"{', '.join(error.key_ids)}: set the key that the app ran with before; a key that was replaced "
        "belongs into FILE_KEY_BASE64_PREVIOUS"
    )
