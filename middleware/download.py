"""Downloads: ciphertext from the app in, verified plaintext out.

No byte leaves before the tag over it was verified. What is to be sent, up to ``Policy.verify_first`` bytes of it, is verified
whole before the status line, so that a tampered file is a clean 500 with no byte of it. What is longer is sent segment by
segment. Here it is decided where the ciphertext is read from, and whether it may be served at all;
:mod:`securefs.middleware.delivery` does the rest.
"""

from __future__ import annotations

import errno
import os
from itertools import chain
from typing import TYPE_CHECKING

from securefs.errors import FormatError, IntegrityError, Reason, SecureFSError
from securefs.header import PREAMBLE_SIZE, claimed_object_id, claimed_suite
from securefs.middleware.delivery import FileDelivery, StreamDelivery, record_failure, record_passed_over
from securefs.middleware.refusal import Refusal
from securefs.middleware.response import SEND_SIZE, shows_breaks
from securefs.middleware.selection import Selection
from securefs.primitives import view_of
from securefs.reader import open_encrypted
from securefs.stream import Decryptor
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from securefs.keys import Keyring
    from securefs.middleware.delivery import Delivery
    from securefs.middleware.exchange import Exchange
    from securefs.middleware.policy import Policy
    from securefs.middleware.response import Response
    from securefs.middleware.spool import Spool
    from securefs.reader import SeekableFile

__all__ = ["open_download", "open_part"]


def open_download(
    response: Response,
    exchange: Exchange,
    policy: Policy,
    keyring: Keyring,
    context: bytes,
    *,
    asked: Mapping[str, Any],
    format_1: bool,
) -> Delivery:
    """Return the plaintext of the app's response, verified as far as the policy asks, its start recorded.

    For a HEAD request only what the headers need is read, and nothing is recorded: no content goes out.

    :param asked: the server's environ, with the ranges that the app never saw.
    :raises Refusal: the response must not be sent; the journal has the reason.
    """
    about: dict[str, str | int] = {}
    try:
        _check_servable(response)
        length = _announced_length(response)
        limit = None if format_1 else policy.verify_first
        source = response.seekable_file()
        chunks = response.chunks()
        is_head = asked.get("REQUEST_METHOD") == "HEAD"
        if source is None and not is_head and not shows_breaks(asked):
            # Its length is what tells the client that nothing is missing: hold what has none before it is whole.
            known, chunks = _length_is_known(chunks, length)
            limit = limit if known else None
        if source is None and (limit is None or length is None or length <= limit):
            source, chunks = _hold(response.spool(), chunks, limit)
        delivery: Delivery
        if source is None:
            delivery = StreamDelivery(exchange, chunks, Decryptor(keyring, context), length)
        else:
            about = _peek(source)
            file = open_encrypted(
                source, keyring, context, format_1=format_1, unbound_format_1=policy.unbound_format_1
            )
            delivery = FileDelivery(exchange, file)
        about = delivery.about
        record_passed_over(exchange, about, delivery.passed_over)
        if exchange.expected is not None and about.get("id") != exchange.expected:
            raise IntegrityError("the file is not the one that was asked for", Reason.WRONG_OBJECT)
        if policy.restore_metadata:
            delivery.restore()
        if not is_head:
            delivery.select(response, asked, policy.max_ranges)
            delivery.begin(policy.verify_first)
    except (SecureFSError, OSError, Refusal) as error:
        raise record_failure(exchange, error, about, 500) from None
    return delivery


def open_part(
    response: Response, asked: Mapping[str, Any], limit: int
) -> tuple[Selection, Iterator[bytes]] | None:
    """Return the part of a plain file that the request asks for; None where the app's response goes out as it is.

    The app never sees a Range, so it can't serve one, though it would without us: of a file that can seek, and whose
    Content-Length says that all of it is the body, the part is taken here.
    """
    file = response.seekable_file()
    if file is None or (response.header("accept-ranges") or "bytes").lower() != "bytes":
        return None
    size = file.seek(0, os.SEEK_END) or file.tell()
    file.seek(0)
    if _announced_length(response) != size:
        return None
    selection = Selection(size)
    types = [value for name, value in response.headers if name.lower() == "content-type"]
    selection.choose(response, asked, limit, types)
    return None if selection.status is None else (selection, _read_part(selection, file))


def _read_part(selection: Selection, file: SeekableFile) -> Iterator[bytes]:
    while selection.plan:
        item = selection.take(SEND_SIZE)
        if isinstance(item, bytes):
            yield item
            continue
        file.seek(item.start)
        data = file.read(len(item))
        if len(data) < len(item):
            raise OSError(errno.EIO, "the file became shorter while it was sent")
        yield data


def _check_servable(response: Response) -> None:
    """Refuse what would make the client take plaintext for something that it is not."""
    if response.status.startswith("206"):
        raise FormatError(
            "the app answered a part of a ciphertext; ranges are ours to serve", Reason.BAD_HEADER
        )
    if (response.header("content-encoding") or "identity").lower() != "identity":
        raise FormatError("the app put a Content-Encoding on a ciphertext", Reason.BAD_HEADER)


def _announced_length(response: Response) -> int | None:
    text = response.header("content-length")
    return int(text) if text is not None and text.isascii() and text.isdigit() else None


def _length_is_known(chunks: Iterator[bytes], length: int | None) -> tuple[bool, Iterator[bytes]]:
    """Return whether the plaintext's length follows from the ciphertext's before its end, and ``chunks`` again.

    Suite 1 pads: only its last segment tells.
    """
    start = b""
    while len(start) < PREAMBLE_SIZE and (chunk := next(chunks, None)) is not None:
        start += chunk
    known = length is not None and claimed_suite(start) is Suite.GCM
    return known, chain((start,), chunks)


def _hold(
    spool: Spool, chunks: Iterator[bytes], limit: int | None
) -> tuple[SeekableFile | None, Iterator[bytes]]:
    """Hold a body that ends within ``limit`` bytes of ciphertext and return it as a file.

    A longer one comes back as an iterator over all of it.
    """
    size = 0
    for chunk in chunks:
        size += len(chunk)
        spool.write(chunk)
        if limit is not None and size > limit:
            return None, chain(spool.pieces(), chunks)
    return spool.finish(), iter(())


def _peek(source: SeekableFile) -> dict[str, str | int]:
    """Return the object id that a file claims, for the record of its failure."""
    source.seek(0)
    object_id = claimed_object_id(bytes(view_of(source.read(PREAMBLE_SIZE))))
    return {} if object_id is None else {"id": object_id}
