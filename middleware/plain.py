"""Ranges of plain files.

The app never sees a Range header, so it can't serve ranges as it would without the middleware. They
are served here for each file whose size equals the Content-Length: from the file itself, or, where
something was put around it, from what comes out of that.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from securefs.middleware.headers import values_of
from securefs.middleware.response import SEND_SIZE, length_of
from securefs.middleware.selection import Selection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from securefs.middleware.transit import Transit
    from securefs.source import SeekableFile

__all__ = ["select_of_plain_file"]


def select_of_plain_file(transit: Transit) -> tuple[Selection, Iterator[bytes]] | None:
    """Return the ranges of a plain file that the request asks for; None if there are none."""
    if "HTTP_RANGE" not in transit.environ:
        # Of most pages: nothing more is looked at.
        return None
    response = transit.response
    if (response.header("accept-ranges") or "bytes").lower() != "bytes":
        return None
    file, size = response.seekable_file(), response.announced_length
    passes_on = file is None and response.whole_file() is not None
    if size is None or not (passes_on or (file is not None and length_of(file) == size)):
        return None
    selection = Selection(size, forwards=file is None)
    types = values_of(response.headers, "content-type")
    selection.choose(response, transit.environ, transit.settings.policy.max_ranges, types)
    if selection.status is None:
        return None
    return selection, _sliced(selection, response.chunks()) if file is None else _selected(selection, file)


def _selected(selection: Selection, file: SeekableFile) -> Iterator[bytes]:
    """Yield what is selected of a file that can seek."""
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


def _sliced(selection: Selection, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what is selected of a body that is read once, and no chunk behind that.

    What is around a file may change its bytes, and nothing verifies them. So the range is that of
    what comes out.
    """
    position, chunk = 0, b""  # the last chunk, and its offset in the body
    while selection.plan:
        item = selection.take(selection.length)
        if isinstance(item, bytes):
            yield item
            continue
        while item:
            if part := chunk[item.start - position : item.stop - position]:
                yield part
                item = item[len(part) :]
                continue
            position += len(chunk)
            following = next(chunks, None)
            if following is None:
                raise OSError(errno.EIO, "the body is shorter than its Content-Length")
            chunk = following
