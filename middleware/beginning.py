"""The first bytes of a body, and what they say it is.

Eight bytes tell: those of the magic are ciphertext, and so are half of them, because then something
changed it. No more of a body is held than it takes to know. What is compressed is told by what is
inside, because a browser would unpack it and show ciphertext.
"""

from __future__ import annotations

from operator import eq

from securefs.header import MAGIC
from securefs.middleware.codings import Inside, decoder_of
from securefs.middleware.headers import is_identity

__all__ = ["Beginning"]


class Beginning:
    """The first bytes of one body.

    :ivar head: up to eight bytes.
    :ivar claims_ciphertext: whether they are the magic, or half of them are. Of a file that was cut
        inside its magic, four bytes are enough.
    :ivar is_opaque: whether a library is missing for its Content-Encoding: nobody knows what is
        inside.
    """

    head: bytes = b""
    claims_ciphertext: bool = False
    is_opaque: bool = False
    _coding: str | None = None  # its Content-Encoding
    _inside: Inside | None = None  # what is inside of it

    def add(self, data: bytes, coding: str) -> bool:
        """Add what comes next of the body; return whether that is enough to identify it.

        :param coding: its Content-Encoding, "" if it has none. The first call's counts.
        """
        if missing := len(MAGIC) - len(self.head):
            self.head += data[:missing]
        alike = _alike(self.head)
        self.claims_ciphertext = 2 * alike >= len(MAGIC)
        is_enough = _is_enough(self.head, alike)
        if self._coding is None:
            self._coding = coding
            if not is_identity(coding):
                self._look_inside(coding)
        if self._inside is None or self.claims_ciphertext:
            return is_enough
        self._inside.add(data)
        inside = self._inside.head
        return is_enough and (_is_enough(inside, _alike(inside)) or self._inside.is_full)

    def _look_inside(self, coding: str) -> None:
        decode = decoder_of(coding)
        self.is_opaque = decode is None
        if decode is not None:
            self._inside = Inside(decode, len(MAGIC))

    @property
    def packs_ciphertext(self) -> bool:
        """Whether ciphertext is inside of the Content-Encoding: something compressed it."""
        if self._inside is None:
            return False
        self._inside.look()
        return 2 * _alike(self._inside.head) >= len(MAGIC)


def _alike(head: bytes) -> int:
    """Return how many bytes of ``head`` are those of the magic."""
    return sum(map(eq, MAGIC, head))


def _is_enough(head: bytes, alike: int) -> bool:
    """Return whether ``head``, with that many bytes of the magic, tells what follows.

    A body that starts otherwise is not held for more, however small its first chunk is.
    """
    return len(head) == len(MAGIC) or 2 * alike < len(head)
