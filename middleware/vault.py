"""For apps that look into files: :class:`Vault` opens and seals them, as the middleware does.

A request has it as ``environ["securefs"]`` (:class:`securefs.middleware.Exchange`), and a worker,
which serves no request, makes one: :meth:`Vault.from_env`. Guarantees: every byte is verified
before the app gets it, each file that is opened or sealed is in the journal, and what can't be
recorded is not done.

To decrypt is to permit, so not every ciphertext is opened. A request opens what it sealed itself,
and files of declared stores. A vault opens files of declared stores; with nothing declared,
whatever it is given, and then it warns at start. Refuses: a ciphertext that was read out of an
encrypted file.
"""

from __future__ import annotations

import inspect
import os
import stat
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from securefs.arguments import require, require_function
from securefs.errors import (
    VERDICTS,
    ConfigurationError,
    FormatError,
    Reason,
)
from securefs.header import MAGIC
from securefs.middleware.evidence import Evidence
from securefs.middleware.file_wrapper import opened_by_app
from securefs.middleware.filename import shortened
from securefs.middleware.made import Sealed
from securefs.middleware.means import Means, check_bound
from securefs.middleware.media_type import is_media_type
from securefs.middleware.opening import open_file, opened_of, own_of, source_of, start_of
from securefs.middleware.refusal import Refusal
from securefs.middleware.sealing import Sealing, refuse_ciphertext
from securefs.primitives import view_of
from securefs.secrecy import HoldsSecrets, clears_frames
from securefs.source import as_a_file

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from securefs.audit import Entry, Journal
    from securefs.keys import Keyring
    from securefs.middleware.evidence import Upload
    from securefs.middleware.policy import Policy
    from securefs.middleware.sealing import Piece
    from securefs.primitives import Bytes
    from securefs.reader import EncryptedFile
    from securefs.source import SeekableFile

    StrPath = str | os.PathLike[str]
    Context = bytes | Callable[[], bytes]

__all__ = ["PER_REQUEST", "Vault"]

COPY_SIZE: Final = 128 * 1024  # bytes of plaintext read at a time, as in securefs.middleware.sealing
MAX_NAME: Final = 1024  # bytes of a sealed file name

# What an operator reads at start, if nothing is declared.
UNDECLARED: Final = (
    "no store is declared: a vault opens ciphertext from anywhere, so a file that somebody put in another place, or had the app "
    'fetch, is decrypted. Name the folders of your uploads: Vault(stores=["uploads"]) or SECUREFS_STORES'
)
_SEALED_ALREADY: Final = "it starts like an encrypted file, so it is sealed already: ciphertext_uploads (SECUREFS_CIPHERTEXT_UPLOADS) is refuse"


def PER_REQUEST() -> bytes:  # noqa: N802  # it stands in a context's place
    """Refuse to guess the context of a request that is not there.

    :raises ConfigurationError: always.
    """
    raise ConfigurationError(
        "SecureFS(context=…) asks the request which context a file is bound to, and here is none: "
        'say open(file, context=b"…"), seal(file, context=b"…"), or make a Vault(context=…) of your own'
    )


class Vault(HoldsSecrets):
    """Opens and seals an app's files, with the keys, the journal and the stores of the middleware.

    ``SecureFS(app).vault`` is the middleware's own. It may be used by several threads and forked
    processes. It does not check at start that it can seal, because a worker may only read.

    :param stores, keyring, journal, policy, on_event: as for :class:`SecureFS`; from the
        environment unless given.
    :param context: what files are bound to, unless a call says otherwise: bytes, or a function
        without arguments that returns them.
    :raises ConfigurationError: one of them is unusable.
    """

    @clears_frames
    def __init__(
        self,
        *,
        stores: Iterable[StrPath] | None = None,
        keyring: Keyring | None = None,
        journal: Journal | None = None,
        policy: Policy | None = None,
        context: Context | None = None,
        on_event: Callable[[Entry], object] | None = None,
    ) -> None:
        self._hold(Means.of(stores, keyring, journal, policy, on_event), context)
        self._means.announce(UNDECLARED)

    @classmethod
    @clears_frames
    def from_env(cls, environ: Mapping[str, str] = os.environ, *, context: Context | None = None) -> Vault:
        """Return the vault of ``FILE_KEY_BASE64``, ``SECUREFS_STORES`` and the others.

        They are those that the middleware reads: docs/deployment.md.
        """
        means = Means.from_env(environ)
        vault = cls.of(means, context)
        means.announce(UNDECLARED)
        return vault

    @classmethod
    @clears_frames
    def of(cls, means: Means, context: Context | None) -> Vault:
        """Return the vault of a :class:`SecureFS`, which has told what is declared."""
        vault = cls.__new__(cls)
        vault._hold(means, context)  # noqa: SLF001  # its own class
        return vault

    def _hold(self, means: Means, context: Context | None) -> None:
        _check_context(context)
        if context:
            check_bound(means.policy, "Vault(context=…)")
        self._means, self._context = means, context

    @clears_frames
    def open(
        self,
        file: Any,
        *,
        context: Context | None = None,
        object_id: str | None = None,
        anywhere: bool = False,
    ) -> EncryptedFile:
        """Return the verified plaintext of a stored file, as a seekable, read-only binary file.

        The journal has a ``file.open`` before it is returned. A failure is recorded, too, also one
        that a later read meets.

        :param file: a path, or a binary file that can seek; it is read from its beginning. Closing
            the result closes a file that was opened here, by its path.
        :param context: the context that it was sealed in; the vault's unless given.
        :param object_id: the object id that the app expects, e.g. that of its database. It catches
            a file that was swapped for another, or rolled back to an older version.
        :param anywhere: open it though it is in no store: the caller vouches for its place. This is
            for object stores, which no folder holds, and never for what a client names or sends.
        :raises FormatError: it is in no store, or it is not encrypted.
        :raises IntegrityError: it was changed, is of another context, or is not the one expected.
        :raises UnknownKeyError: no key of this process opens it.
        :raises LimitExceededError: a Format 1 file is longer than ``Policy.max_format_1``.
        :raises SourceError, OSError: it can't be read.
        :raises JournalError: it can't be recorded. :raises ConfigurationError: an argument is
            unusable.
        """
        evidence = Evidence(self._means.journal, self._means.on_event)
        return open_file(self._means, evidence, file, self._chosen(context), object_id, anywhere=anywhere)

    @clears_frames
    def seal(
        self, file: Any, *, name: str = "", content_type: str = "", context: Context | None = None
    ) -> Sealed:
        """Return the stored form of a file that the app made, such as a thumbnail, as a stream.

        Nothing is read before the first byte is asked for. ``seal(file).save(path)`` writes it.

        :param file: a path, or a readable binary file, which is read from where it stands.
        :param name, content_type: are sealed with it, and restored by ``Policy.restore_metadata``.
            Format 1 has no place for them. Of a name of more than 1,024 bytes, the beginning and
            the suffix are kept.
        :param context: what it is bound to; the vault's unless given.
        :raises ConfigurationError: no key of this process seals, or an argument is unusable.
        :raises SourceError, OSError: a path can't be opened.
        """
        evidence = Evidence(self._means.journal, self._means.on_event)
        return self._seal(evidence, file, self._chosen(context), name, content_type)

    @clears_frames
    def is_sealed(self, file: Any) -> bool:
        """Return whether a file is encrypted: whether it starts as a Format 2 file does.

        If the policy reads Format 1, a file is also sealed if its Format 1 tag verifies; all of it
        is read. Otherwise nothing is verified: :meth:`open` tells. A file that can seek is left
        where it stands. Nothing is recorded.

        :param file: a path, or a binary file that can seek.
        :raises SourceError, OSError: it can't be read.
        """
        source, owned = source_of(file)
        try:
            with as_a_file():
                here = source.tell()
            try:
                return self._is_sealed(source)
            finally:
                with as_a_file():
                    source.seek(here)
        finally:
            if owned is not None:
                owned.close()

    def unsealed(self) -> Iterator[Path]:
        """Yield each regular file in a store that is not encrypted: see :meth:`is_sealed`.

        A storage that forgot to seal left it there. Links are not followed, and nothing is
        verified: ``securefs verify --all`` does.

        :raises OSError: a file or a folder can't be read.
        """
        for store in self._means.policy.stores:
            for folder, _, names in os.walk(store, onerror=_raise):
                for name in sorted(names):
                    path = Path(folder, name)
                    if stat.S_ISREG(path.lstat().st_mode) and not self.is_sealed(path):
                        yield path

    def _is_sealed(self, source: SeekableFile) -> bool:
        if start_of(source).startswith(MAGIC):
            return opened_by_app(source) is None
        if not self._means.reads_format_1:
            return False
        try:
            opened_of(self._means, source, b"").close()
        except VERDICTS:
            return False
        return True

    # --- for a request: securefs.middleware.exchange

    @clears_frames
    def open_in(
        self,
        evidence: Evidence,
        file: Any,
        context: Callable[[], bytes],
        object_id: str | None,
        *,
        anywhere: bool,
    ) -> EncryptedFile:
        """Open a file for a request: what it sealed, one of a store, or one that is vouched for."""
        return open_file(self._means, evidence, file, context, object_id, anywhere=anywhere)

    @clears_frames
    def seal_in(
        self, evidence: Evidence, file: Any, context: Callable[[], bytes], name: str, content_type: str
    ) -> Sealed:
        """Seal what the app made in a request."""
        return self._seal(evidence, file, context, name, content_type)

    @clears_frames
    def find(self, evidence: Evidence, file: Any) -> Upload | None:
        """Return what a request sealed that ``file`` claims to be, None if it is nothing of it."""
        source, owned = source_of(file)
        try:
            return own_of(evidence, source)
        finally:
            if owned is not None:
                owned.close()

    # --- opening

    def _chosen(self, given: Context | None) -> Callable[[], bytes]:
        """Return what gives the context of one call."""
        _check_context(given)
        context = self._context if given is None else given
        return partial(self._bound, b"" if context is None else context)

    def _bound(self, context: object) -> bytes:
        value = context() if callable(context) else context
        require("context", value, bytes, "bytes, or a function without arguments that returns them")
        if value:
            check_bound(self._means.policy, "the context")
        return cast("bytes", value)

    # --- sealing

    def _seal(
        self, evidence: Evidence, file: Any, context: Callable[[], bytes], name: str, content_type: str
    ) -> Sealed:
        require("name", name, str, "a str")
        require("content_type", content_type, str, "a str")
        if content_type and not is_media_type(content_type):
            raise ConfigurationError(
                'content_type must be a media type such as "image/png", of at most 127 characters'
            )
        metadata = {"name": shortened(name, MAX_NAME), "type": content_type}
        bound = context()
        sealing = Sealing(self._means.new_files, evidence, lambda: bound)
        sealed = sealing.begin(content_type, {key: text for key, text in metadata.items() if text}, name=name)
        source, owned = source_of(file)
        content = _content(source)
        if self._means.policy.ciphertext_uploads == "refuse":
            content = refuse_ciphertext(content, _SEALED_ALREADY)
        return Sealed(sealed, _pieces(sealed.pieces(content)), owned)


def _check_context(context: object) -> None:
    if context is None or isinstance(context, bytes):
        return
    wanted = "bytes, or a function without arguments"
    require_function("context", context, wanted)
    try:
        inspect.signature(cast("Any", context)).bind()
    except TypeError:
        raise ConfigurationError(f"context must be {wanted}, and this one takes some") from None
    except ValueError:
        return  # some of C's functions don't tell


def _raise(error: OSError) -> NoReturn:
    # What can't be listed can't be said to be encrypted.
    raise error


def _content(file: SeekableFile) -> Iterator[memoryview | None]:
    """Yield what a file gives, from where it stands."""
    while data := _read(file):
        yield data


def _read(file: SeekableFile) -> memoryview:
    # A file with nothing to read yet returns None. Taking that for the end would store a part as
    # the whole: view_of refuses it.
    with as_a_file():
        return view_of(file.read(COPY_SIZE))


def _pieces(pieces: Generator[Piece | None, None, None]) -> Generator[Bytes, None, None]:
    """Yield the stored bytes of a file; raise a refusal as an error of the file."""
    with closing(pieces):
        try:
            for piece in pieces:
                if piece is not None:
                    yield piece.data
        except Refusal as refusal:
            raise FormatError(str(refusal), Reason.CIPHERTEXT_INJECTION) from None
