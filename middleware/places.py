"""What is declared: in which folders stored files are, and which paths lead to them.

A file that is recognised by its first bytes can be exchanged: who writes to the storage puts
plaintext in its place, and who makes the app repeat bytes has them decrypted. A declaration decides
instead. A response made from a file in a store, or on a protected path, must be ciphertext that
verifies. With either declared, nothing else is ever decrypted (no decryption oracle).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from securefs.errors import ConfigurationError, FormatError, Reason
from securefs.middleware.paths import any_reading_matches, every_reading_matches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securefs.middleware.policy import Policy

__all__ = ["Places"]


class Places:
    """The places that a policy declares.

    :ivar has_stores: whether there is any.
    :raises ConfigurationError: a store is no folder.
    """

    def __init__(self, policy: Policy) -> None:
        self._protected, self._format_1 = policy.protected_paths, policy.format_1_paths
        self._stores = tuple(map(_folder, policy.stores))
        self.has_stores = bool(self._stores)

    @property
    def declared(self) -> bool:
        """Whether ciphertext is decrypted only where it is declared to be."""
        return bool(self._stores or self._protected)

    def format_of(self, environ: Mapping[str, Any]) -> int | None:
        """Return what a file on this path is: 1 (either format), 2, or None if not declared."""
        if any_reading_matches(environ, self._format_1):
            return 1
        return 2 if any_reading_matches(environ, self._protected) else None

    def opens(self, environ: Mapping[str, Any]) -> bool:
        """Return whether each reading of the path is declared, with the mount or without it.

        To decrypt is to permit: by a spelling that looks like a declared path, a client could have
        decrypted what the app repeats on another.
        """
        return every_reading_matches(environ, (*self._protected, *self._format_1), within_mount=True)

    def holds(self, file: object) -> bool:
        """Return whether an open file is in a store. The open file is asked, not its name alone.

        :raises FormatError: its name is in a store and it is not (a link leads out), or it is no
            regular file.
        """
        try:
            descriptor = file.fileno()  # type: ignore[attr-defined]  # what has none is no file of a store
            status = os.fstat(descriptor)
        except (AttributeError, OSError, ValueError, TypeError):
            return False
        inside = self._is_inside(_opened(descriptor))
        name = getattr(file, "name", None)
        if not inside and isinstance(name, (str, bytes)):
            folder = os.path.realpath(os.path.dirname(os.fsdecode(name)))  # noqa: PTH120  # "" is here
            if self._is_inside(os.path.join(folder, os.path.basename(os.fsdecode(name)))):  # noqa: PTH118, PTH119
                raise FormatError(
                    "a link in a store leads out of it (stores, SECUREFS_STORES)", Reason.NOT_ENCRYPTED
                )
        if inside and not stat.S_ISREG(status.st_mode):
            raise FormatError(
                "what is in a store is no regular file (stores, SECUREFS_STORES)", Reason.NOT_ENCRYPTED
            )
        return inside

    def _is_inside(self, path: str) -> bool:
        return any(path.startswith(store) for store in self._stores)


def _folder(store: str) -> str:
    """Return the resolved path of a store, with a slash behind it."""
    path = Path(store).resolve()
    if not path.is_dir():
        raise ConfigurationError(
            f"stores (SECUREFS_STORES) names {store}, which is no folder: create it before the app starts"
        )
    return os.path.join(path, "")  # noqa: PTH118  # the slash keeps /a/bc out of /a/b


def _opened(descriptor: int) -> str:
    """Return the path of an open file, links resolved; "" if the system does not tell."""
    try:
        path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115  # no path of ours
    except OSError:
        return ""
    # Also of a file that was removed or replaced meanwhile.
    return path.removesuffix(" (deleted)")
