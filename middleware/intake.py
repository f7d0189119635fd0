"""The request body: chooses what the app reads in its place.

A form is parsed and written anew with every file encrypted. A raw upload is one file. Any other
body is passed on unless it starts like an encrypted file. The path and the Content-Type decide
which of these a body is. A Content-Type that a framework may read otherwise is refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from securefs.errors import Reason
from securefs.middleware.body import RewrittenBody, prepare, prepare_raw
from securefs.middleware.chunks import ChunkedUploadError, ChunkWatch, refuse_resumed
from securefs.middleware.headers import content_length, drop_copies, has_body, is_identity
from securefs.middleware.media_type import (
    UNICODE_CHARSETS,
    MalformedTypeError,
    charset_of,
    is_media_type,
    parse_boundary,
)
from securefs.middleware.paths import any_reading_matches, every_reading_matches
from securefs.middleware.raw import RawPipeline
from securefs.middleware.refusal import Refusal
from securefs.middleware.sealing import Sealing
from securefs.middleware.servers import connection
from securefs.middleware.source import BodySource, GuardedInput
from securefs.middleware.upload import UploadPipeline

if TYPE_CHECKING:
    from securefs.middleware.transit import Transit

__all__ = ["receive"]

# Types of documents that hold no file as it is.
_DOCUMENTS: Final = re.compile(
    r"(?:application/(?:[a-z0-9.+-]+[+])?(?:json|xml)|application/x-www-form-urlencoded|text/[a-z0-9.+-]+)[ \t]*(?:;.*)?",
    re.IGNORECASE,
)
# What describes the client's body: the app gets another (RFC 1864, RFC 3230, RFC 9530).
_OF_THE_BODY: Final = ("HTTP_CONTENT_MD5", "HTTP_DIGEST", "HTTP_CONTENT_DIGEST", "HTTP_REPR_DIGEST")
# Methods by which a client stores what the body is, though it may be nothing.
_STORING: Final = frozenset({"PUT", "POST", "PATCH"})


def receive(transit: Transit) -> None:
    """Replace the request body by the body for the app.

    :raises Refusal: the body is refused before the app runs.
    """
    there = has_body(transit.inner)
    if there:
        drop_copies(transit.inner)
        _refuse_resumed(transit)
    # An empty file is a file, too.
    stores = there or str(transit.inner.get("REQUEST_METHOD")).upper() in _STORING
    if stores and any_reading_matches(transit.environ, transit.settings.policy.raw_uploads):
        transit.body = transit.inner["wsgi.input"] = _rewritten_file(transit)
    elif there:
        transit.body = transit.inner["wsgi.input"] = _rewritten(transit)


def _refuse_resumed(transit: Transit) -> None:
    if transit.settings.policy.chunked_uploads == "allow":
        return
    try:
        refuse_resumed(transit.inner)
    except ChunkedUploadError as error:
        raise Refusal(400, error.reason, str(error)) from None


def _rewritten(transit: Transit) -> RewrittenBody | GuardedInput:
    inner = transit.inner
    content_type = inner.get("CONTENT_TYPE", "")
    try:
        boundary = parse_boundary(content_type)
    except MalformedTypeError as error:
        raise Refusal(400, Reason.MALFORMED_MULTIPART, str(error)) from None
    if boundary is not None:
        _check_upload_path(transit)
        return _rewritten_form(transit, boundary)
    if transit.settings.policy.other_bodies == "refuse" and not _DOCUMENTS.fullmatch(content_type):
        detail = (
            "a body that is no form, JSON, XML or text, on no path of raw_uploads (SECUREFS_RAW_UPLOADS): other_bodies "
            "(SECUREFS_OTHER_BODIES) is refuse"
        )
        raise Refusal(415, Reason.UNDECLARED, detail)
    return GuardedInput(inner["wsgi.input"], content_length(inner))


def _check_upload_path(transit: Transit) -> None:
    """Refuse a form with files where none is expected, before a byte of it is read."""
    paths = transit.settings.policy.upload_paths
    if paths and not every_reading_matches(transit.environ, paths):
        detail = "a multipart form on a path that upload_paths (SECUREFS_UPLOAD_PATHS) does not name"
        raise Refusal(415, Reason.UNDECLARED, detail)


def _rewritten_form(transit: Transit, boundary: bytes) -> RewrittenBody:
    inner, policy = transit.inner, transit.settings.policy
    if not is_identity(inner.get("HTTP_CONTENT_ENCODING")):
        raise Refusal(400, Reason.MALFORMED_MULTIPART, "a Content-Encoding on a multipart body")
    plain = bool(policy.plain_uploads) and every_reading_matches(transit.environ, policy.plain_uploads)
    source, sealing, chunks = _source(transit), _sealing(transit), _chunks(transit)
    # A server that does not decode chunks hands out their lengths, too: before the first boundary,
    # where they would be dropped, and amid files.
    decoded = source.length is not None or bool(inner.get("wsgi.input_terminated"))
    pipeline = UploadPipeline(
        source,
        boundary,
        policy,
        sealing,
        chunks,
        plain=plain,
        preamble=decoded,
        unicode=(charset_of(inner["CONTENT_TYPE"]) or "utf-8") in UNICODE_CHARSETS,
    )
    body = prepare(pipeline, spool=policy.spool, environ=inner)
    inner["CONTENT_TYPE"] = f"multipart/form-data; boundary={pipeline.boundary}"
    return _announced(transit, body)


def _rewritten_file(transit: Transit) -> RewrittenBody:
    """Encrypt a body that is itself a file; it has the type of the request, and no name."""
    if (chunks := _chunks(transit)) is not None:
        try:
            chunks.add_query(str(transit.inner.get("QUERY_STRING", "")))
            chunks.add_file()
        except ChunkedUploadError as error:
            raise Refusal(400, error.reason, str(error)) from None
    source = _source(transit)
    media_type = transit.inner.get("CONTENT_TYPE", "")
    file = _sealing(transit).begin(media_type, {"type": media_type} if is_media_type(media_type) else {})
    policy = transit.settings.policy
    pipeline = RawPipeline(source, file, ciphertext=policy.ciphertext_uploads == "allow")
    body = prepare_raw(pipeline, spool=policy.spool, environ=transit.inner)
    return _announced(transit, body)


def _announced(transit: Transit, body: RewrittenBody) -> RewrittenBody:
    transit.inner["CONTENT_LENGTH"] = str(body.length)
    transit.inner.pop("HTTP_TRANSFER_ENCODING", None)
    for name in _OF_THE_BODY:
        transit.inner.pop(name, None)
    return body


def _source(transit: Transit) -> BodySource:
    inner, settings = transit.inner, transit.settings
    return BodySource(
        inner["wsgi.input"],
        # Without a body, nothing is read: a server may wait for bytes that nobody sends.
        content_length(inner) if has_body(inner) else 0,
        settings.policy,
        sock=connection(inner),
        room=settings.room,
    )


def _chunks(transit: Transit) -> ChunkWatch | None:
    if transit.settings.policy.chunked_uploads == "allow":
        return None
    return ChunkWatch(content_range="HTTP_CONTENT_RANGE" in transit.inner)


def _sealing(transit: Transit) -> Sealing:
    settings = transit.settings
    return Sealing(settings.new_files, transit.exchange, transit.context, settings.inspect)
