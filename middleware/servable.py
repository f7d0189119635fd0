"""Whether a response of the app is a file to decrypt, and may be.

A response is a file if it begins with the magic, or if the app opened it itself. Refused are
plaintext where only a file may be, ciphertext from a place that is not declared, ciphertext that
something compressed or cut, a stored file that the proxy in front would send in the body's place,
and what a crash leaves of a file. Each message names the setting that declares it otherwise. What
becomes of a file is for :mod:`securefs.middleware.download`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securefs.errors import FormatError, IntegrityError, Reason
from securefs.middleware.delivery import record_failure
from securefs.middleware.refusal import Refusal
from securefs.middleware.servers import OFFLOAD_HEADERS

if TYPE_CHECKING:
    from securefs.middleware.response import Response
    from securefs.middleware.transit import Transit

__all__ = ["is_file", "refuse_part"]

_OFFLOADED: Final = (
    "the app left a stored file to the proxy (X-Sendfile, X-Accel-Redirect), which would send ciphertext: turn that off for "
    "stores (SECUREFS_STORES) and protected_paths (SECUREFS_PROTECTED_PATHS)"
)
_PLAINTEXT: Final = (
    "the body is not encrypted where only a stored file may be: a file of stores (SECUREFS_STORES), a path of protected_paths "
    "(SECUREFS_PROTECTED_PATHS) or format_1_paths (SECUREFS_FORMAT_1_PATHS), or a response that expect() was called for"
)
_BEHIND: Final = "the app wrote something before it returned a file of stores (SECUREFS_STORES) or protected_paths (SECUREFS_PROTECTED_PATHS)"
_EMPTIED: Final = (
    "an empty file, or zeros, and no encrypted file is that. If it is a file of yours that is not stored by uploads, declare "
    "stores (SECUREFS_STORES) or protected_paths (SECUREFS_PROTECTED_PATHS)"
)
_UNDECLARED: Final = (
    "ciphertext from a place that is not declared: if it is a stored file, add its folder to stores (SECUREFS_STORES), or its path, "
    "as the request spells it, to protected_paths (SECUREFS_PROTECTED_PATHS)"
)
_COMPRESSED: Final = (
    "something between the app and securefs compressed a stored file (Content-Encoding: {coding}): compress outside of SecureFS(app), or "
    "have the app answer with Content-Encoding: identity where it serves stored files"
)


def is_file(transit: Transit) -> bool:
    """Return whether the body is a file: ciphertext, or what the app opened with open_encrypted().

    :raises Refusal: it is plaintext where only a file may be, ciphertext from a place that is not
        declared, or ciphertext that something compressed.
    """
    begun = transit.response.started
    if begun:
        transit.exchange.check()
    try:
        return _is_nothing_behind(transit) if begun else _is_servable_file(transit)
    except (FormatError, IntegrityError, Refusal) as error:
        raise record_failure(transit.exchange, error, {}, None if begun else 500) from None


def _is_servable_file(transit: Transit) -> bool:
    response, places = transit.response, transit.settings.places
    claims = response.beginning.claims_ciphertext if response.opened is None else response.is_opened_whole()
    stored = response.is_stored()
    is_place = stored or response.wants_ciphertext or transit.shows_file
    must_be_file = is_place and response.status.startswith("2")
    if (is_place or transit.place is not None) and _is_offloaded(response):
        # Whatever the status and the method: the proxy replaces the status, and sends a file.
        raise FormatError(_OFFLOADED, Reason.NOT_ENCRYPTED)
    if must_be_file:
        transit.exchange.check()
        if not claims:
            return _is_file_without_magic(transit, stored=stored)
    if response.opened is not None:
        # It was opened on purpose, wherever it came from. What it gives is never decrypted.
        return claims
    if response.beginning.packs_ciphertext:
        raise _compressed(response)
    if not places.declared:
        _check_not_emptied(transit)
        return claims
    known = response.begins_as_stored_file() or (must_be_file and transit.exchange.expected is not None)
    if claims and not known and not places.opens(transit.environ):
        raise Refusal(500, Reason.UNDECLARED, _UNDECLARED)
    return claims


def _compressed(response: Response) -> Refusal:
    return Refusal(500, Reason.COMPRESSED, _COMPRESSED.format(coding=response.coding))


def _is_offloaded(response: Response) -> bool:
    """Return whether the proxy in front is to send a file in the place of the body."""
    return any(response.header(name) is not None for name in OFFLOAD_HEADERS)


def _is_nothing_behind(transit: Transit) -> bool:
    """Return False: what follows something that the app wrote is no file to decrypt.

    What the app writes is sent at once, unless it may be ciphertext. So the file can't be decrypted
    any more, and as it is, it is of no use, or not what was stored.

    :raises FormatError: it is one where only a file may be; what was written is with the client.
    """
    response = transit.response
    if response.status.startswith("2") and (response.is_stored() or transit.shows_file):
        raise FormatError(_BEHIND, Reason.NOT_ENCRYPTED)
    return False


def _check_not_emptied(transit: Transit) -> None:
    """Refuse what a crash or an attacker leaves of a file: nothing, or zeros.

    With places declared, this is not asked: there a file must be encrypted, and elsewhere it need
    not be.
    """
    response, head = transit.response, transit.head
    if head.strip(b"\0") or not response.status.startswith("200"):
        return
    # A list is a page, of compressed bytes nothing is known, and in the place of some the proxy
    # sends a file.
    is_page = response.known_length() is not None or _is_offloaded(response)
    if is_page or response.header("content-encoding") is not None:
        return
    if head or response.is_file or response.announced_length:
        raise FormatError(_EMPTIED, Reason.NOT_ENCRYPTED)


def _is_file_without_magic(transit: Transit, *, stored: bool) -> bool:
    """Return True for Format 1 and False for no content, where a file must be.

    :raises FormatError, Refusal: it is neither.
    """
    response = transit.response
    if response.opened is not None:
        raise FormatError(
            "the body may be a part of the file that the app opened, where only a whole one may be (stores, protected_paths, expect): "
            "a Content-Length of all of it tells that it is the whole",
            Reason.NOT_ENCRYPTED,
        )
    if response.status.startswith("204") and not transit.head:
        return False
    if transit.place == 1:
        # Its tag will tell.
        return True
    # What was read of a store itself was compressed by nobody on the way.
    if response.beginning.packs_ciphertext or (response.beginning.is_opaque and not stored):
        raise _compressed(response)
    raise FormatError(_PLAINTEXT, Reason.NOT_ENCRYPTED)


def refuse_part(response: Response) -> None:
    """Refuse a response whose plaintext a client would misinterpret."""
    if response.status.startswith("206"):
        raise FormatError(
            "the app returned a part of a ciphertext; the middleware serves ranges itself", Reason.BAD_HEADER
        )
