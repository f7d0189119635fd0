"""Another strict parser's reading of a client's body, compared with ours: the package ``multipart``."""

from __future__ import annotations

import re
from itertools import chain

import multipart as oracle

from securefs.middleware.filename import normalise

# Dispositions whose names both parsers take as they stand. Others we decode, or read up to the last
# quotation mark, or to the semicolon.
_VALUE = rb"""(?:"[^"]*"|[!#$%&'*+\-.^_`|~0-9A-Za-z]+)"""
_PLAIN_NAMES = re.compile(
    rb'(?i:content-disposition: form-data; *name=%b(?:; *filename=(?!"?=\?)%b(?!"))?) *(?=\r\n)'
    % (_VALUE, _VALUE)
)
# What it refuses and we take, in its words: a disposition of attachment, and a part's own length,
# which nobody behind us sees.
_MORE_LENIENT = re.compile(
    "Wrong type|[Ss]egment Content-Length|Content-Length header|segment Content-Length"
)

# ... and a name without quotes that is no token, or behind a tab.
_NO_TOKEN = re.compile(
    rb"""(?i); *name=(?!")[!#$%&'*+\-.^_`|~0-9A-Za-z]*[^!#$%&'*+\-.^_`|~0-9A-Za-z;"\r\n]|; *\t[ \t]*name="""
)


def read_by_oracle(body: bytes, boundary: bytes):
    """Return what its strict parser makes of a body: [(name, file name, content)]; raise its error."""
    parts = []
    with oracle.PushMultipartParser(
        boundary, strict=True, max_header_size=65536, max_header_count=1000
    ) as parser:
        # The last byte by itself: it looks at nothing that comes in the same piece as the end.
        for event in chain(parser.parse(body[:-1]), parser.parse(body[-1:])):
            if isinstance(event, oracle.MultipartSegment):
                parts.append((event.name, event.filename, bytearray()))
            elif event is not None:
                parts[-1][2].extend(event)
    return [(name, filename, bytes(content)) for name, filename, content in parts]


def _comparable(name: str | None) -> str | None:
    """Return a name with its percent escapes decoded, and without backslashes that may be escapes."""
    if name is None:
        return None
    for escape, character in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):
        name = name.replace(escape, character)
    return re.sub(r'\\+(?=["\\])', "", name)


def assert_read_alike(ours, body: bytes, boundary: bytes) -> bool:
    """Fail where that parser reads a body otherwise than ``ours``, [(name, file name, content)]; return whether it takes it.

    A part that is a file to it is a file to us.
    """
    theirs, refused = _read_or_refused(_form_in(body, b"--" + boundary), boundary)
    if refused:
        unquoted = "Missing name option" in refused and _NO_TOKEN.search(body)
        assert unquoted or _MORE_LENIENT.search(refused), f"taken, but refused by multipart: {refused}"
        return False
    assert [content for _, _, content in ours] == [content for _, _, content in theirs], (
        "read otherwise by multipart"
    )
    for (_, name, _), (_, its_name, _) in zip(ours, theirs, strict=True):
        assert its_name is None or name is not None, "a file is taken for a field"
    if len(_PLAIN_NAMES.findall(body)) == body.lower().count(b"content-disposition"):
        assert [_names(part) for part in ours] == [_names(part) for part in theirs], "named otherwise"
    return True


def _form_in(body: bytes, mark: bytes) -> bytes:
    """Return a body without what precedes its first boundary and follows its last: that is dropped."""
    start, end = body.find(mark), body.rfind(mark) + len(mark) + 2
    assert body[:start].endswith(b"\r\n") or not start, "a boundary amid a line"
    assert body[end : end + 1] in {b"", b"\r", b"\n"}, "a longer boundary"
    return body[start:end]


def _read_or_refused(body: bytes, boundary: bytes):
    try:
        return read_by_oracle(body, boundary), ""
    except oracle.MultipartError as error:
        return [], str(error)


def _names(part) -> tuple[str | None, str | None]:
    name, filename, _ = part
    return _comparable(name), filename and normalise(_comparable(filename))
