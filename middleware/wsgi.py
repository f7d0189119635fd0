"""The middleware itself: ``app = SecureFS(app)``.

A request passes four gates, and each may answer in the app's place: who asks (``authorize``), what is uploaded
(:mod:`securefs.middleware.upload`), what the app made of it, and what is served (:mod:`securefs.middleware.download`). Whatever is neither
an upload nor ciphertext goes through untouched.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

from securefs import format1
from securefs.audit import Journal
from securefs.errors import ConfigurationError, FormatError, JournalError, Reason
from securefs.header import MAGIC
from securefs.keys import Keyring
from securefs.middleware.body import RewrittenBody, prepare, prepare_raw
from securefs.middleware.delivery import STALE_HEADERS, record_failure
from securefs.middleware.download import open_download, open_part
from securefs.middleware.exchange import Exchange, Upload
from securefs.middleware.multipart import MEDIA_TYPE, MalformedBodyError, parse_boundary
from securefs.middleware.policy import Policy, matches
from securefs.middleware.raw import RawPipeline
from securefs.middleware.refusal import BodyRefusedError, Refusal, problem
from securefs.middleware.response import Closing, FileWrapper, Response
from securefs.middleware.sealing import SealedFile
from securefs.middleware.source import BodySource, GuardedInput, content_length, has_body
from securefs.middleware.upload import UploadPipeline
from securefs.middleware.waiting import WaitingRoom
from securefs.stream import Encryptor, most_overhead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from securefs.middleware.inspection import Inspector
    from securefs.middleware.sealing import PartSealer

    Environ = dict[str, Any]
    WSGIApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

__all__ = ["SecureFS"]

# A part of the ciphertext is nothing that anyone could verify, so the app never hears of ranges.
_HIDDEN: Final = ("HTTP_RANGE", "HTTP_IF_RANGE")
_OFFLOAD_HEADERS: Final = ("x-sendfile", "x-accel-redirect")
# SERVER_SOFTWARE of those that read what the app left of a chunked body before the next request: docs/servers.md.
_DRAINING: Final = ("gunicorn/", "waitress")


class SecureFS:
    """Encrypts what is uploaded to a WSGI app and decrypts what the app serves of it.

    :param app: any WSGI application.
    :param keyring: the file keys; from ``FILE_KEY_BASE64`` and its relatives unless given.
    :param journal: the audit journal; from ``SECUREFS_AUDIT_DIR`` unless given, on standard error without that.
    :param policy: limits and choices; from ``SECUREFS_SUITE`` and its relatives unless given.
    :param context: ``context(environ) -> bytes`` is bound into every file, e.g. the tenant: a file that was written under one
        context does not open under another. Called when a file is sealed or opened. Format 1 binds none: with it, the policy must
        say ``unbound_format_1``.
    :param authorize: ``authorize(environ) -> str | None`` names the principal; None is a 401 before the app runs.
    :param inspect: ``inspect(part, chunks)`` sees the plaintext of each file before the app sees its ciphertext, and may
        refuse it: :mod:`securefs.middleware.inspection`.
    :raises ConfigurationError: where one of them is unusable. There is no fallback to plaintext.
    """

    def __init__(
        self,
        app: WSGIApp,
        *,
        keyring: Keyring | None = None,
        journal: Journal | None = None,
        policy: Policy | None = None,
        context: Callable[[Environ], bytes] | None = None,
        authorize: Callable[[Environ], str | None] | None = None,
        inspect: Inspector | None = None,
    ) -> None:
        self._app = app
        self._keyring = keyring or Keyring.from_env()
        self._journal = journal or Journal.from_env()
        self._policy = policy or Policy.from_env()
        self._room = WaitingRoom(self._policy.max_waiting)
        self._context = context
        self._authorize = authorize
        self._inspect = inspect
        if self._policy.format == 1 or self._policy.format_1_paths:
            # Format 1 knows file keys alone: a ring without one is found now, and not at the first request.
            self._keyring.format_1_verifier()
        if self._policy.format == 2:  # noqa: PLR2004  # a format's number
            # A key that can't seal is found now and not at the first upload.
            self._keyring.wrapper()
        if self._context is not None:
            _check_bound(self._policy)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request (PEP 3333)."""
        exchange = Exchange(environ, self._journal)
        inner = {name: value for name, value in environ.items() if name not in _HIDDEN}
        inner["securefs"] = exchange
        inner["wsgi.file_wrapper"] = FileWrapper
        is_head = environ.get("REQUEST_METHOD") == "HEAD"
        if is_head:
            # Only a GET shows whether the answer is ciphertext, and so how long the plaintext is.
            inner["REQUEST_METHOD"] = "GET"
        body: RewrittenBody | GuardedInput | None = None
        rule = self._rule(exchange, inner)
        response = Response(
            start_response, hold=lambda: rule is not None or exchange.expected is not None, is_head=is_head
        )
        try:
            self._admit(inner, exchange)
            body = self._receive(inner, exchange)
            head = self._run(inner, response, body)
            return self._deliver(environ, inner, exchange, response, body, head)
        except Refusal as refusal:
            _finish(response, body)
            return _answer(environ, response, start_response, exchange, _report(exchange, body, refusal))
        except BaseException:
            # The app's own error, or one of ours: the server reports it, and what is open is closed as after any response.
            _finish(response, body)
            raise

    def _rule(self, exchange: Exchange, inner: Environ) -> int | None:
        """Return the format (1: or 2) that successful answers on this path must have, None where any may pass."""
        if inner.get("REQUEST_METHOD") != "GET":
            return None
        if matches(exchange.path, self._policy.format_1_paths):
            return 1
        return 2 if matches(exchange.path, self._policy.protected_paths) else None

    def _admit(self, inner: Environ, exchange: Exchange) -> None:
        if self._authorize is None:
            return
        exchange.principal = self._authorize(inner)
        if exchange.principal is None:
            raise Refusal(401, None, "no principal")

    def _receive(self, inner: Environ, exchange: Exchange) -> RewrittenBody | GuardedInput | None:
        """Put what the app may read in the place of the request body; return it, None where there is no body."""
        if not has_body(inner):
            return None
        body: RewrittenBody | GuardedInput
        media_type = inner.get("CONTENT_TYPE", "").strip(" \t").lower()
        if inner.get("REQUEST_METHOD") in {"PUT", "POST"} and matches(
            exchange.path, self._policy.raw_uploads
        ):
            body = self._rewrite_raw(inner, exchange)
        elif "multipart/form-data" in media_type:
            # Not only at the beginning: frameworks strip what Python takes for white space, and servers join fields.
            body = self._rewrite(inner, exchange)
        elif "multipart/" in media_type or media_type.strip().startswith("multipart"):
            # Bottle and CherryPy read forms, and files, from any multipart type: docs/multipart.md.
            raise Refusal(400, Reason.MALFORMED_MULTIPART, "a multipart type other than form-data")
        else:
            body = GuardedInput(inner["wsgi.input"], content_length(inner))
        inner["wsgi.input"] = body
        return body

    def _run(self, inner: Environ, response: Response, body: RewrittenBody | GuardedInput | None) -> bytes:
        """Run the app; return the first bytes of its answer."""
        try:
            head = response.receive(self._app(inner, response.start))
        except Exception:
            # Whatever an app makes of a body that was refused, and be it an error of its own: we answer.
            refusal = _refused(response, body)
            if refusal is None:
                raise
            raise refusal from None
        if (refusal := _refused(response, body)) is not None:
            raise refusal
        return head

    def _rewrite(self, inner: Environ, exchange: Exchange) -> RewrittenBody:
        if inner.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            raise Refusal(400, Reason.MALFORMED_MULTIPART, "a Content-Encoding on a multipart body")
        try:
            boundary = parse_boundary(inner["CONTENT_TYPE"])
        except MalformedBodyError as error:
            raise Refusal(400, Reason.MALFORMED_MULTIPART, str(error)) from None
        length = content_length(inner)
        source = self._source(inner, length)
        pipeline = UploadPipeline(
            source,
            boundary,
            self._policy,
            exchange,
            lambda meta: self._sealer(inner, meta),
            self._most_overhead,
            self._inspect,
        )
        body = prepare(pipeline, length, spool=self._policy.spool, environ=inner)
        inner["CONTENT_TYPE"] = f"multipart/form-data; boundary={pipeline.boundary}"
        inner["CONTENT_LENGTH"] = str(body.length)
        inner.pop("HTTP_TRANSFER_ENCODING", None)
        return body

    def _rewrite_raw(self, inner: Environ, exchange: Exchange) -> RewrittenBody:
        """Encrypt a body that is itself a file; its name is not known, its type is what the request says."""
        length = content_length(inner)
        source = self._source(inner, length)
        media_type = inner.get("CONTENT_TYPE", "")
        sealer = self._sealer(inner, {"type": media_type} if MEDIA_TYPE.fullmatch(media_type) else {})
        upload = Upload(sealer.object_id, "", "", media_type, 0, sealer.key_id)
        try:
            file = SealedFile(upload, sealer, exchange, self._policy, self._inspect)
        except JournalError as error:
            raise Refusal.of(error) from None
        stored = None if length is None else sealer.stored_length(length)
        body = prepare_raw(RawPipeline(source, file), stored, spool=self._policy.spool, environ=inner)
        inner["CONTENT_LENGTH"] = str(body.length)
        inner.pop("HTTP_TRANSFER_ENCODING", None)
        return body

    def _source(self, inner: Environ, length: int | None) -> BodySource:
        sock = inner.get("gunicorn.socket")
        return BodySource(inner["wsgi.input"], length, self._policy, sock=sock, room=self._room)

    def _sealer(self, inner: Environ, metadata: dict[str, str]) -> PartSealer:
        if self._policy.format == 1:
            return self._keyring.format_1_sealer()
        return Encryptor(self._keyring, self._policy.suite, self._context_of(inner), metadata)

    def _most_overhead(self, metadata_size: int) -> int:
        if self._policy.format == 1:
            return format1.most_overhead()
        return most_overhead(self._keyring, metadata_size)

    def _context_of(self, inner: Environ) -> bytes:
        return b"" if self._context is None else self._context(inner)

    def _deliver(
        self,
        environ: Environ,
        inner: Environ,
        exchange: Exchange,
        response: Response,
        body: RewrittenBody | GuardedInput | None,
        head: bytes,
    ) -> Iterable[bytes]:
        """Return what the server gets: plaintext of a ciphertext, everything else as it is."""
        is_head = environ.get("REQUEST_METHOD") == "HEAD"
        if not self._is_ciphertext(inner, exchange, response, head):
            if is_head:
                return _head_only(response, body)
            return _pass_on(environ, exchange, response, body, self._policy)
        delivery = open_download(
            response,
            exchange,
            self._policy,
            self._keyring,
            self._context_of(inner),
            asked=environ,
            format_1=self._rule(exchange, inner) == 1,
        )
        response.status = delivery.status or response.status
        response.headers = delivery.headers(response.headers)
        response.begin()
        # An empty chunk, or wsgiref would call an answer without a length one of no bytes.
        return Closing((b"",) if is_head else delivery, delivery.close, lambda: _finish(response, body))

    def _is_ciphertext(self, inner: Environ, exchange: Exchange, response: Response, head: bytes) -> bool:
        """Return whether the body is to be decrypted; raise :class:`Refusal` for plaintext where there must be none."""
        if response.started:
            return False
        rule = self._rule(exchange, inner)
        bound = (rule is not None or exchange.expected is not None) and response.status.startswith("2")
        if bound and any(response.header(name) is not None for name in _OFFLOAD_HEADERS):
            detail = "the app left a stored file to the proxy, which would send ciphertext"
            raise record_failure(exchange, FormatError(detail, Reason.NOT_ENCRYPTED), {}, 500)
        if head.startswith(MAGIC):
            return True
        if not bound or response.status.startswith("204"):
            return False
        if rule == 1:
            return True
        raise record_failure(
            exchange, FormatError("the body is not encrypted", Reason.NOT_ENCRYPTED), {}, 500
        )


def _check_bound(policy: Policy) -> None:
    """Refuse a context beside Format 1, which would ignore it: one tenant's file would open for every other."""
    if policy.unbound_format_1 or (policy.format != 1 and not policy.format_1_paths):
        return
    setting = (
        "format (SECUREFS_FORMAT) is 1"
        if policy.format == 1
        else "format_1_paths (SECUREFS_FORMAT_1_PATHS) is set"
    )
    raise ConfigurationError(
        f"SecureFS(context=…) binds files, and Policy.{setting}: a Format 1 file is bound to nothing and opens under every context. "
        "Leave out one of them, or say Policy(unbound_format_1=True) (SECUREFS_UNBOUND_FORMAT_1=1)"
    )


def _pass_on(
    environ: Environ,
    exchange: Exchange,
    response: Response,
    body: RewrittenBody | GuardedInput | None,
    policy: Policy,
) -> Iterable[bytes]:
    if not response.started:
        if (part := open_part(response, environ, policy.max_ranges)) is not None:
            selection, chunks = part
            response.status = selection.status or response.status
            kept = [(name, value) for name, value in response.headers if name.lower() not in STALE_HEADERS]
            response.headers = selection.headers(kept)
            response.begin()
            return Closing(chunks, lambda: _finish(response, body))
        response.begin()
    result = response.unchanged(environ.get("wsgi.file_wrapper"))
    if body is None or isinstance(result, (list, tuple)):
        if isinstance(body, RewrittenBody):
            body.close()
        return result
    # An app may read the request while it answers: the upload ends when the answer does.
    chunks = _while_accepted(result, body)
    return Closing(chunks, lambda: _finish(response, body), lambda: _report_late(exchange, body))


def _refused(response: Response, body: RewrittenBody | GuardedInput | None) -> Refusal | None:
    """Return why the request body, or what the app wrote, is refused."""
    return (body.refusal if body is not None else None) or response.refusal


def _while_accepted(result: Iterable[bytes], body: RewrittenBody | GuardedInput) -> Iterator[bytes]:
    """Yield what the app answers until its request is refused: then break off, whatever the app makes of that."""
    for chunk in result:
        if body.refusal is not None:
            break
        yield chunk
    if body.refusal is not None:
        raise BodyRefusedError("the request body was refused when the answer had begun")


def _head_only(response: Response, body: RewrittenBody | GuardedInput | None) -> Iterable[bytes]:
    length = response.known_length()
    if length is not None and response.header("content-length") is None:
        # Servers take the length of an empty answer for the answer's length.
        response.headers.append(("Content-Length", str(length)))
    if not response.started:
        response.begin()
    _finish(response, body)
    return ()


def _finish(response: Response, body: RewrittenBody | GuardedInput | None) -> None:
    try:
        response.close()
    finally:
        if isinstance(body, RewrittenBody):
            body.close()


def _report(exchange: Exchange, body: RewrittenBody | GuardedInput | None, refusal: Refusal) -> Refusal:
    """Record a refused request; return the refusal to answer with."""
    if refusal.recorded:
        return refusal
    try:
        if refusal.status == 401:  # noqa: PLR2004  # an HTTP status
            exchange.record("auth.denied", outcome="failure", status=401)
        else:
            exchange.record(
                "file.rejected",
                outcome="failure",
                reason=refusal.reason,
                status=refusal.status,
                about={"parts": body.parts if isinstance(body, RewrittenBody) else 0},
            )
    except JournalError as error:
        return Refusal.of(error)
    return refusal


def _report_late(exchange: Exchange, body: RewrittenBody | GuardedInput) -> None:
    """Record a refusal that came when the app had begun to answer; the connection was broken off then."""
    if body.refusal is not None:
        _report(exchange, body, body.refusal)


def _answer(
    environ: Environ,
    response: Response,
    start_response: Callable[..., Any],
    exchange: Exchange,
    refusal: Refusal,
) -> Iterable[bytes]:
    """Answer in the app's place; break off where its answer has begun."""
    if response.started:
        raise BodyRefusedError("the request body was refused when the answer had begun") from None
    status, headers, document = problem(refusal.status, exchange.request_id)
    start_response(status, headers)
    content = () if environ.get("REQUEST_METHOD") == "HEAD" else (document,)
    if "HTTP_TRANSFER_ENCODING" in environ and not str(environ.get("SERVER_SOFTWARE")).startswith(_DRAINING):
        return _then_close(content)
    return content


def _then_close(content: Iterable[bytes]) -> Iterator[bytes]:
    """Yield all of the answer, then end the connection in the only way that an app has.

    cheroot takes what was not read of a chunked body for the next request, so a client could smuggle one in.
    """
    yield from content
    # Of all errors the one that servers take for a client's departure, and do not log.
    raise ConnectionResetError(errno.ECONNRESET, "the rest of the request was not read")
