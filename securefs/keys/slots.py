"""Key slots: the interface between a slot table, which is bytes, and keys that may live elsewhere.

A :class:`Wrapper` is a key that can wrap a file's data encryption key (DEK) into a slot. An
:class:`Unwrapper` is a key that can unwrap it. A :class:`FileKey` is both, for slots of kind 1
(docs/format.md, "Slot table"). A key service or a recipient is a small class of another kind;
nothing else has to know of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from securefs.errors import ConfigurationError, IntegrityError, Reason, UnknownKeyError
from securefs.header import KIND_FILE_KEY, may_have_payload, slot_head
from securefs.keys.material import KEY_ID_SIZE, KeyMaterial, key_id
from securefs.primitives import GCM_NONCE_SIZE, GCM_TAG_SIZE, KEY_SIZE
from securefs.secrecy import HoldsSecrets, clears_all_frames, clears_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from securefs.header import Header, Slot
    from securefs.primitives import Primitives

__all__ = [
    "WRAP_SALT_SIZE",
    "FileKey",
    "Unwrapper",
    "Wrapper",
    "check_wrapper",
    "claimed_slots",
    "new_slot",
    "unwrapped",
]

WRAP_SALT_SIZE: Final = 32  # bytes
_WRAP_INFO: Final = b"securefs/2 wrap\0"


class Wrapper(Protocol):
    """A key that can seal.

    :ivar kind: the kind of its slots: 1 file key, 2 key service, 3 recipient.
    :ivar key_id: the 16 bytes that name the key in its slots.
    :ivar payload_size: the payload size of its slots, in bytes. It is constant, because it is bound
        into the wrap.
    """

    kind: int
    key_id: bytes
    payload_size: int

    def wrap(self, dek: bytes, bound: bytes, draw: Callable[[int], bytes]) -> bytes:
        """Return a slot's payload: ``dek`` (32 bytes), wrapped and bound to ``bound`` (72 bytes).

        :param draw: returns the requested number of random bytes.
        """
        ...


class Unwrapper(Protocol):
    """A key that can open."""

    def unwrap(self, slot: Slot, bound: bytes) -> bytes | None:
        """Return the DEK in ``slot``; None if the slot is not for this key.

        :raises IntegrityError: the slot names this key and does not unwrap.
        """
        ...


class FileKey(HoldsSecrets):
    """A file key K: :class:`Wrapper` and :class:`Unwrapper` of kind 1."""

    kind = KIND_FILE_KEY
    payload_size = WRAP_SALT_SIZE + KEY_SIZE + GCM_TAG_SIZE  # 80 bytes

    @clears_frames
    def __init__(self, material: KeyMaterial, primitives: Primitives) -> None:
        self.key_id = key_id(material.reveal())
        self._material = material
        self._primitives = primitives

    def wrap(self, dek: bytes, bound: bytes, draw: Callable[[int], bytes]) -> bytes:
        """See :meth:`Wrapper.wrap`. The salt is fresh: no pair of key and nonce repeats."""
        salt = draw(WRAP_SALT_SIZE)
        wrap_key, nonce = self._wrap_keys(salt, bound)
        return salt + self._primitives.gcm(wrap_key).seal(nonce, dek)

    def unwrap(self, slot: Slot, bound: bytes) -> bytes | None:
        """See :meth:`Unwrapper.unwrap`."""
        if slot.kind != self.kind or slot.key_id != self.key_id:
            return None
        wrap_key, nonce = self._wrap_keys(slot.payload[:WRAP_SALT_SIZE], bound)
        return self._primitives.gcm(wrap_key).open(nonce, slot.payload[WRAP_SALT_SIZE:])

    def _wrap_keys(self, salt: bytes, bound: bytes) -> tuple[bytes, bytes]:
        okm = self._material.derive(salt, _WRAP_INFO + bound, KEY_SIZE + GCM_NONCE_SIZE)
        return okm[:KEY_SIZE], okm[KEY_SIZE:]

    def __repr__(self) -> str:
        return f"<FileKey {self.key_id.hex()}>"


def new_slot(
    wrapper: Wrapper, dek: bytes, preamble: bytes, generation: int, draw: Callable[[int], bytes]
) -> bytes:
    """Return a slot, without the zeros behind it, from which ``wrapper`` can recover ``dek``.

    :raises ConfigurationError: the wrapper does not return what it announced.
    """
    check_wrapper(wrapper)
    head = slot_head(wrapper.kind, wrapper.payload_size, generation, wrapper.key_id)
    payload = _wrapped(wrapper, dek, preamble + head, draw)
    if not isinstance(payload, bytes):
        raise ConfigurationError(
            f"{type(wrapper).__name__} wrapped a key into {type(payload).__name__}, not bytes"
        )
    if len(payload) != wrapper.payload_size:
        raise ConfigurationError(
            f"{type(wrapper).__name__} wrapped a key into {len(payload)} bytes and not the {wrapper.payload_size} that it announced"
        )
    return head + payload


@clears_all_frames
def _wrapped(wrapper: Wrapper, dek: bytes, bound: bytes, draw: Callable[[int], bytes]) -> object:
    return wrapper.wrap(dek, bound, draw)


@clears_all_frames
def unwrapped(unwrapper: Unwrapper, slot: Slot, bound: bytes) -> bytes | None:
    """Return what ``unwrapper`` returns."""
    return unwrapper.unwrap(slot, bound)


def check_wrapper(wrapper: Wrapper) -> None:
    """Raise :class:`ConfigurationError` for a wrapper whose slots no reader would accept."""
    name = type(wrapper).__name__
    kind, key, size = (getattr(wrapper, field, None) for field in ("kind", "key_id", "payload_size"))
    if not isinstance(key, bytes) or len(key) != KEY_ID_SIZE:
        raise ConfigurationError(f"{name}.key_id must be {KEY_ID_SIZE} bytes")
    if not isinstance(kind, int) or not isinstance(size, int) or not may_have_payload(kind, size):
        raise ConfigurationError(f"{name}: a slot of kind {kind!r} can't have a payload of {size!r} bytes")


def claimed_slots(header: Header, unwrapper: Unwrapper) -> Iterator[tuple[Slot, bytes | None]]:
    """Yield (slot, DEK) for each slot of ``unwrapper``; None as DEK if the slot does not unwrap.

    The highest generation comes first; equal generations come in table order. A holder of the key
    may have put any DEK there: the commitment tells whether it is the file's own.

    :raises UnknownKeyError: there is no such slot.
    """
    found = False
    # Sorting is stable: equal generations stay in the order of the table.
    for slot in sorted(header.slots, key=lambda slot: slot.generation, reverse=True):
        try:
            dek = unwrapper.unwrap(slot, header.preamble + slot.head)
            if dek is None:
                continue
            _check_size(dek)
        except IntegrityError:
            dek = None
        found = True
        yield slot, dek
    if not found:
        names = tuple(slot.key_id.hex() for slot in header.slots)
        raise UnknownKeyError(
            f"no key of the keyring opens this file; it names {', '.join(names) or 'none'}", names
        )


def _check_size(dek: object) -> None:
    if not isinstance(dek, bytes) or len(dek) != KEY_SIZE:
        raise IntegrityError("a slot holds no key of 32 bytes", Reason.TAG_MISMATCH)
