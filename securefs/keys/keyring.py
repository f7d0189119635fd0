"""The keyring: one key that seals, and any number of keys that open.

A :class:`Keyring` holds the primary key, which seals, and any number of retired keys, which only
open. Its keys are file keys (32 random bytes from the environment) or any other object that wraps
and unwraps: see :mod:`securefs.keys.slots`. A repr shows key ids only, and a keyring refuses to be
pickled. An unusable key stops the program at start: there is no default key, and no fallback to
plaintext.
"""

from __future__ import annotations

import os
from secrets import token_bytes
from typing import TYPE_CHECKING

from securefs.arguments import require, require_function, require_items
from securefs.backend import default_primitives
from securefs.errors import ConfigurationError
from securefs.format1 import Format1Sealer, Format1Verifier
from securefs.keys.environment import keys_from
from securefs.keys.material import FORMAT_1_KEY_SIZES, HOW, KeyMaterial, check_key, key_id
from securefs.keys.slots import FileKey, check_wrapper, unwrapped
from securefs.primitives import BLOCK_SIZE, KEY_SIZE
from securefs.secrecy import HoldsSecrets, clears_frames

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from securefs.header import Slot
    from securefs.keys.slots import Unwrapper, Wrapper
    from securefs.primitives import Bytes, Primitives

__all__ = ["Keyring"]


class Keyring(HoldsSecrets):
    """The keys of one environment.

    :param primary: the key that seals new files: 32 bytes. With 16 or 24 bytes the ring serves
        Format 1 only.
    :param previous: retired keys, which open files and never seal one.
    :param primitives: the implementation that wraps and unwraps; the fastest one unless given.
    :raises ConfigurationError: for a key of another length, for one that repeats a single byte, and
        for two keys of different lengths that differ only in zeros at the end.
    """

    __slots__ = ("_file_keys", "_unwrappers", "_wrapper")

    @clears_frames
    def __init__(
        self, primary: bytes, previous: Iterable[bytes] = (), *, primitives: Primitives | None = None
    ) -> None:
        primitives = primitives or default_primitives()
        # A key that is given twice is one key. The first mention counts, so the primary stays the
        # primary.
        file_keys: dict[bytes, KeyMaterial] = {}
        for key in _checked(primary, previous):
            file_keys.setdefault(key_id(key), KeyMaterial(key))
        # Keys of 16 and 24 bytes never open Format 2.
        opening = [FileKey(key, primitives) for key in file_keys.values() if len(key) == KEY_SIZE]
        self._hold(file_keys, opening, opening[0] if len(primary) == KEY_SIZE else None)

    def _hold(
        self,
        file_keys: Mapping[bytes, KeyMaterial],
        unwrappers: Sequence[Unwrapper],
        wrapper: Wrapper | None,
    ) -> None:
        self._file_keys, self._unwrappers, self._wrapper = file_keys, unwrappers, wrapper

    @classmethod
    @clears_frames
    def of(cls, wrapper: Wrapper | None, *unwrappers: Unwrapper) -> Keyring:
        """Return a keyring of keys that live elsewhere, such as in a key service or a token.

        It serves Format 2 only.

        :param wrapper: seals new files; None: the ring opens files and seals none.
        :param unwrappers: open files, in the order in which they are tried.
        :raises ConfigurationError: no reader would accept the wrapper's slots, or a method is
            missing.
        """
        if wrapper is not None:
            check_wrapper(wrapper)
            _require_method(wrapper, "wrap")
        for unwrapper in unwrappers:
            _require_method(unwrapper, "unwrap")
        ring = cls.__new__(cls)
        ring._hold({}, unwrappers, wrapper)  # noqa: SLF001  # its own class
        return ring

    @classmethod
    @clears_frames
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Keyring:
        """Return the keyring that the environment describes.

        It reads ``FILE_KEY_BASE64`` and ``FILE_KEY_BASE64_PREVIOUS`` (comma-separated), or the
        files that ``FILE_KEY_BASE64_FILE`` and ``FILE_KEY_BASE64_PREVIOUS_FILE`` name.

        :raises ConfigurationError: one line that names the variable and says what to do.
        """
        return cls(*keys_from(environ))

    @property
    def primary_id(self) -> bytes:
        """The id (16 bytes) of the sealing key; :class:`ConfigurationError` if there is none."""
        return self.key_ids[0] if self.key_ids else self.wrapper().key_id

    @property
    def key_ids(self) -> tuple[bytes, ...]:
        """The ids of all file keys: the primary first, then the retired ones as given.

        For other keys, only the id of the sealing key.
        """
        return tuple(self._file_keys) or ((self._wrapper.key_id,) if self._wrapper is not None else ())

    @property
    def opens(self) -> bool:
        """Whether any key of the ring opens files. A ring of a sealing key alone opens none."""
        return bool(self._file_keys or self._unwrappers)

    def wrapper(self) -> Wrapper:
        """Return the key that seals Format 2; :class:`ConfigurationError` if there is none."""
        if self._wrapper is None:
            if not self._file_keys:
                raise ConfigurationError("no key of the ring seals: give Keyring.of a wrapper")
            size = len(self._primary())
            raise ConfigurationError(
                f"the primary key has {size} bytes and can serve Format 1 only; Format 2 needs {KEY_SIZE}: {HOW}"
            )
        return self._wrapper

    @clears_frames
    def unwrap(self, slot: Slot, bound: bytes) -> bytes | None:
        """Return the DEK in ``slot``; None if the slot is for no key of this ring.

        See :class:`Unwrapper`.
        """
        for unwrapper in self._unwrappers:
            if (dek := unwrapped(unwrapper, slot, bound)) is not None:
                return dek
        return None

    @clears_frames
    def format_1_sealer(self, primitives: Primitives | None = None) -> Format1Sealer:
        """Return a sealer for one Format 1 file under the primary key, with a fresh random IV."""
        key, name = self._primary().reveal(), self.primary_id.hex()
        return Format1Sealer(key, token_bytes(BLOCK_SIZE), primitives or default_primitives(), name)

    @clears_frames
    def format_1_verifier(self) -> Format1Verifier:
        """Return a verifier that finds which file key made a Format 1 file, which names no key."""
        self._primary()
        return Format1Verifier({name: key.reveal() for name, key in self._file_keys.items()})

    @clears_frames
    def format_1_decrypt_into(
        self, identity: bytes, iv: bytes, ciphertext: Bytes, out: memoryview, primitives: Primitives
    ) -> None:
        """Decrypt blocks of a Format 1 file that was verified under the key called ``identity``."""
        primitives.cbc_decrypt_into(self._file_keys[identity].reveal(), iv, ciphertext, out)

    def _primary(self) -> KeyMaterial:
        if not self._file_keys:
            raise ConfigurationError("this keyring holds no file key, and Format 1 needs one")
        return next(iter(self._file_keys.values()))

    def __repr__(self) -> str:
        primary, *previous = (identity.hex() for identity in self.key_ids or (b"",))
        return f"<Keyring primary={primary} previous={previous}>"


def _require_method(key: object, name: str) -> None:
    require_function(f"{type(key).__name__}.{name}", getattr(key, name, None), "a method")


def _checked(primary: bytes, previous: Iterable[bytes]) -> Iterator[bytes]:
    """Yield all keys, each of a valid size and distinct from the others."""
    require_items("previous", previous, "a list of keys")
    named = [("the primary key", primary)]
    named += [(f"a previous key (number {number})", key) for number, key in enumerate(previous, 1)]
    padded: dict[bytes, tuple[str, int]] = {}
    for name, given in named:
        require(name, given, (bytes, bytearray, memoryview), "bytes (decoded, no base64 or hex)")
        key = bytes(given)
        check_key(key, name, FORMAT_1_KEY_SIZES)
        other, size = padded.setdefault(key.ljust(KEY_SIZE, b"\0"), (name, len(key)))
        if size != len(key):
            # HMAC fills a key with zeros (RFC 2104 section 2), so both make the same Format 1 tags:
            # a file under one of them would verify under the other, and decrypt to something else.
            raise ConfigurationError(
                f"{name} ({len(key)} bytes) and {other} ({size} bytes) are the same but for zeros at the end, and can't be "
                "told apart by a Format 1 file's tag: keep the one that the files were written with"
            )
        yield key
