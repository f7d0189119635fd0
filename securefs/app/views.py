"""The reference app: upload, list, download and delete, for browsers and for programs.

It is made to be copied from, and shows how little an app has to do behind
:class:`securefs.middleware.SecureFS`. Uploads arrive as ciphertext and are stored unchanged. A
stored file is returned unchanged, and leaves the server decrypted. Two hooks bind every file to its
owner: ``authorize`` names the user, and ``context`` is bound into the file's commitment, so that
the file opens for nobody else even if the database is changed.

It refuses requests without a token (401), other people's files (404, as if they did not exist), and
requests that another site made a browser send (403). It does not store or serve as a file anything
that is not encrypted. Configuration: ``SECUREFS_DATA_DIR``, the
middleware's variables and the key variables.
"""

from __future__ import annotations

import os
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from werkzeug.exceptions import BadRequest, HTTPException, NotFound
from werkzeug.routing import Map, RequestRedirect, Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response
from werkzeug.wsgi import wrap_file

from securefs import ConfigurationError, JournalError, Keyring, Reason, SecureFSError, open_encrypted
from securefs.app.database import StorageError, data_directory, open_database
from securefs.app.keycheck import KeyCheck
from securefs.app.pages import Row, list_page, login_page
from securefs.app.storage import Storage, StoredFile, owner_context
from securefs.app.tokens import ANONYMOUS, SESSION_LIFETIME, Token, Tokens
from securefs.app.web import (
    CALLER,
    COMMON_HEADERS,
    AppRequest,
    attachment,
    check_origin,
    cookie_name,
    log,
    page,
    problem,
    to_json,
)
from securefs.audit import Journal
from securefs.middleware import Policy, SecureFS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import BinaryIO

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from securefs.audit import Entry
    from securefs.metrics import Metrics

__all__ = ["App", "ReferenceApp", "create_app"]

MAX_LOGIN_FORM: Final = 4096  # bytes
MAX_PAGE: Final = 1_000_000  # keeps the offset within SQLite's integers
PUBLIC_PATHS: Final = frozenset({"/", "/login", "/logout", "/healthz", "/readyz"})
_RULES: Final = (
    Rule("/", methods=["GET"], endpoint="index"),
    Rule("/login", methods=["POST"], endpoint="login"),
    Rule("/logout", methods=["POST"], endpoint="logout"),
    Rule("/files", methods=["GET"], endpoint="listing"),
    Rule("/files", methods=["POST"], endpoint="upload"),
    Rule("/files/<object_id>", methods=["GET"], endpoint="download"),
    Rule("/files/<object_id>", methods=["DELETE"], endpoint="delete"),
    Rule("/files/<object_id>/delete", methods=["POST"], endpoint="delete"),
    Rule("/healthz", methods=["GET"], endpoint="healthz"),
    Rule("/readyz", methods=["GET"], endpoint="readyz"),
)


def create_app(environ: Mapping[str, str] = os.environ) -> ReferenceApp:
    """Return the app behind the middleware, as the environment describes it.

    :raises ConfigurationError: one line that names the variable and says what to do.
    """
    keyring, policy = Keyring.from_env(environ), Policy.from_env(environ)
    if policy.format != 2:  # noqa: PLR2004  # Format 2
        raise ConfigurationError("SECUREFS_FORMAT: the reference app stores Format 2 only: unset it")
    directory = data_directory(environ)
    database = open_database(directory)
    storage, key_check = Storage(directory, database), KeyCheck(directory, keyring)
    key_check.prepare(storage)
    metrics = _metrics(environ)
    journal = Journal.from_env(environ, on_loss=None if metrics is None else metrics.on_loss)
    app = App(keyring, journal, Tokens(database), storage, key_check)
    # A worker that ends in order records it in its chain. The finalizer survives the fork: the
    # master itself never opens a chain.
    weakref.finalize(app, _end, journal)
    # A response with a file must be encrypted: a stored file that was replaced by plaintext is
    # refused.
    policy = replace(
        policy,
        protected_paths=("/files/*",),
        stores=(*policy.stores, str(directory / "files")),
        upload_paths=("/files",),
        other_bodies="refuse",
    )
    return ReferenceApp(app, keyring, journal, policy, None if metrics is None else metrics.on_event)


def _metrics(environ: Mapping[str, str]) -> Metrics | None:
    """Return what counts for SECUREFS_METRICS; who serves the counts is docs/monitoring.md."""
    if "SECUREFS_METRICS" not in environ:
        return None
    try:
        from securefs.metrics import Metrics  # noqa: PLC0415  # needs prometheus-client
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"SECUREFS_METRICS: {error.name} is not installed: run pip install 'securefs[metrics]'"
        ) from None
    return Metrics()


class ReferenceApp(SecureFS):
    """The app behind the middleware.

    :ivar key_ids: the ids of its keys, the one that seals first.
    """

    def __init__(
        self,
        app: App,
        keyring: Keyring,
        journal: Journal,
        policy: Policy,
        on_event: Callable[[Entry], object] | None = None,
    ) -> None:
        super().__init__(
            app,
            keyring=keyring,
            journal=journal,
            policy=policy,
            context=app.context,
            authorize=app.authorize,
            on_event=on_event,
        )
        self.key_ids = keyring.key_ids


def _end(journal: Journal) -> None:
    with suppress(JournalError):  # there is no request left that could be refused for it
        journal.close()


class App:
    """The app behind the middleware: one method for each view."""

    def __init__(
        self, keyring: Keyring, journal: Journal, tokens: Tokens, storage: Storage, key_check: KeyCheck
    ) -> None:
        self._keyring, self._journal, self._tokens, self._storage = keyring, journal, tokens, storage
        self._key_check = key_check
        self._urls = Map([rule.empty() for rule in _RULES], merge_slashes=False)

    def authorize(self, environ: WSGIEnvironment) -> str | None:
        """Return the user's name; None (a 401) for nobody on a path that is not public."""
        try:
            token = environ[CALLER] = self._identify(Request(environ))
        except StorageError as error:
            # Every view except the health checks then answers 503: no file is read or stored for an
            # unknown caller.
            environ[CALLER] = error
            return ANONYMOUS
        if token is not None:
            return token.principal
        return ANONYMOUS if environ.get("PATH_INFO") in PUBLIC_PATHS else None

    def context(self, environ: WSGIEnvironment) -> bytes:
        """Return the context of this request's files.

        An upload is encrypted before any view runs.
        """
        caller = environ.get(CALLER)
        return owner_context(caller.principal if isinstance(caller, Token) else ANONYMOUS)

    def _identify(self, request: Request) -> Token | None:
        header = request.headers.get("Authorization")
        if header is not None:
            scheme, _, secret = header.partition(" ")
            return self._tokens.authenticate(secret.strip()) if scheme.lower() == "bearer" else None
        return self._tokens.authenticate(request.cookies.get(cookie_name(request), ""), session=True)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        request = AppRequest(environ, self._storage)
        try:
            response = self._respond(request)
        finally:
            # In any case, a received file that was not stored is removed here.
            for incoming in request.received:
                incoming.discard()
        for name, value in COMMON_HEADERS.items():
            response.headers.setdefault(name, value)
        return response(environ, start_response)

    def _respond(self, request: AppRequest) -> Response:
        try:
            check_origin(request)
            endpoint, arguments = self._urls.bind_to_environ(request.environ).match()
            view: Callable[..., Response] = getattr(self, f"_{endpoint}")
            return view(request, **arguments)
        except RequestRedirect as error:
            return redirect(error.new_url, 308)
        except HTTPException as error:
            response = problem(request, error.code or 500, error.name, error.description or "")
            response.headers.extend((name, value) for name, value in error.get_headers() if name == "Allow")
            return response
        except StorageError as error:
            log(request, str(error))
            if error.full:
                return problem(
                    request, 507, "Insufficient Storage", "There is no space left. Nothing was stored."
                )
            return problem(
                request, 503, "Service Unavailable", "The files cannot be reached. Nothing was changed."
            )
        except JournalError as error:
            log(request, str(error))
            return problem(
                request, 503, "Service Unavailable", "This cannot be recorded, so it was not done."
            )

    def _index(self, request: AppRequest) -> Response:
        if request.caller is None:
            return page(login_page())
        rows, number, more = self._rows(request)
        notice = ""
        if count := request.args.get("stored", 0, type=int):
            notice = (
                "Encrypted and stored: 1 file." if count == 1 else f"Encrypted and stored: {count} files."
            )
        elif "deleted" in request.args:
            notice = "The file was deleted."
        return page(list_page(request.caller.principal, rows, notice=notice, page=number, more=more))

    def _login(self, request: AppRequest) -> Response:
        request.max_content_length = MAX_LOGIN_FORM
        token = self._tokens.authenticate(request.form.get("token", "").strip())
        if token is None:
            request.exchange.record("auth.denied", outcome="failure", status=401)
            response = page(login_page("This token is not known here. Check that it was copied whole."), 401)
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        request.exchange.principal = token.principal
        session = self._tokens.open_session(token)
        try:
            request.exchange.record(
                "auth.granted", status=303, about={"token": token.id, "session": session.id}
            )
        except JournalError:
            self._tokens.close_session(session)
            raise
        response = redirect("/", 303)
        response.set_cookie(
            cookie_name(request),
            session.secret,
            max_age=SESSION_LIFETIME,
            secure=request.is_secure,
            httponly=True,
            samesite="Strict",
        )
        return response

    def _logout(self, request: AppRequest) -> Response:
        if request.caller is not None:
            request.exchange.record("auth.logout", status=303, about={"session": request.caller.id})
            self._tokens.close_session(request.caller)
        response = redirect("/", 303)
        response.delete_cookie(
            cookie_name(request), secure=request.is_secure, httponly=True, samesite="Strict"
        )
        return response

    def _listing(self, request: AppRequest) -> Response:
        rows, number, more = self._rows(request)
        following = f"/files?page={number + 1}" if more else None
        return to_json({"files": [_describe(row) for row in rows], "next": following})

    def _upload(self, request: AppRequest) -> Response:
        owner = request.token.principal
        _ = request.files  # reads the body: each part is written to its temporary file
        # A browser sends an empty part for a file input that was left empty; an encrypted file is
        # never empty.
        received = [incoming for incoming in request.received if incoming.size]
        if not received:
            raise BadRequest("No file came with the request. Choose at least one.")
        uploads = {upload.object_id: upload for upload in request.exchange.uploads}
        sizes = {object_id: upload.size for object_id, upload in uploads.items()}
        stored = self._storage.store(owner, received, sizes)
        if request.wants_html:
            return redirect(f"/?stored={len(stored)}", 303)
        rows = [
            _row(file, uploads[file.object_id].filename, uploads[file.object_id].content_type)
            for file in stored
        ]
        return to_json({"files": [_describe(row) for row in rows]}, 201)

    def _download(self, request: AppRequest, object_id: str) -> Response:
        file = self._find(request, object_id)
        # Another file in the place of this one is refused, even a genuine file of the same owner.
        request.exchange.expect(file.object_id)
        ciphertext = self._opened(request, file)
        response = Response(wrap_file(request.environ, ciphertext), direct_passthrough=True)
        response.call_on_close(ciphertext.close)
        # Not the type that the uploader chose: no user can make a browser run a stored file.
        response.mimetype = "application/octet-stream"
        response.headers["Content-Disposition"] = attachment(
            self._named(file, request.token.principal, ciphertext).name
        )
        ciphertext.seek(0)
        response.set_etag(file.object_id)
        return response

    def _opened(self, request: AppRequest, file: StoredFile) -> BinaryIO:
        """Return the ciphertext; record that it can't be opened, as the middleware would."""
        try:
            return self._storage.open(file)
        except StorageError:
            about = {"id": file.object_id}
            request.exchange.record(
                "file.decrypt", outcome="failure", reason=Reason.IO_ERROR, status=503, about=about
            )
            raise

    def _delete(self, request: AppRequest, object_id: str) -> Response:
        file = self._find(request, object_id)
        about: dict[str, str | int] = {"id": file.object_id, "size": file.size}
        record, status = request.exchange.record, 303 if request.wants_html else 204
        record("file.delete", outcome="started", about=about)
        try:
            self._storage.delete(file)
        except StorageError:
            record("file.delete", outcome="failure", reason=Reason.IO_ERROR, status=503, about=about)
            raise
        try:
            record("file.delete", status=status, about=about)
        except JournalError as error:
            log(request, str(error))
            detail = "The file was deleted, but that cannot be recorded."
            return problem(request, 503, "Service Unavailable", detail)
        return redirect("/?deleted=1", 303) if request.wants_html else Response(status=204, content_type="")

    def _healthz(self, _request: AppRequest) -> Response:
        return to_json({"status": "ok"})

    def _readyz(self, request: AppRequest) -> Response:
        checks: dict[str, Callable[[], object]] = {
            "key": self._key_check.check,
            "storage": self._storage.check,
            "journal": self._journal.check,
        }
        failed = []
        for name, check in checks.items():
            try:
                check()
            except SecureFSError as error:  # noqa: PERF203  # all three checks run
                log(request, f"not ready, {name}: {error}")
                failed.append(name)
        return to_json(
            {"status": "unavailable" if failed else "ok", "failed": failed}, 503 if failed else 200
        )

    def _find(self, request: AppRequest, object_id: str) -> StoredFile:
        # A malformed id is looked up like any other: only ids from the database ever become a path.
        file = self._storage.find(request.token.principal, object_id)
        if file is None:
            if self._storage.has(object_id):
                # Somebody else's. The answer is that to an id which nobody's file has.
                about = {"id": object_id}
                request.exchange.record("auth.denied", outcome="failure", status=404, about=about)
            raise NotFound("There is no such file among yours.")
        return file

    def _rows(self, request: AppRequest) -> tuple[list[Row], int, bool]:
        owner = request.token.principal
        number = min(max(1, request.args.get("page", 1, type=int)), MAX_PAGE)
        files, more = self._storage.page(owner, number)
        return [self._open(file, owner) for file in files], number, more

    def _open(self, file: StoredFile, owner: str) -> Row:
        """Return a file with its sealed name; mark a file that can't be opened, and go on."""
        try:
            with self._storage.open(file) as ciphertext:
                return self._named(file, owner, ciphertext)
        except StorageError:
            return _broken(file)

    def _named(self, file: StoredFile, owner: str, ciphertext: BinaryIO) -> Row:
        """Return an open file with its sealed name; mark it if it is not the owner's file."""
        try:
            with open_encrypted(ciphertext, self._keyring, owner_context(owner)) as opened:
                if opened.object_id == file.object_id:
                    return _row(
                        file, str(opened.metadata.get("name", "")), str(opened.metadata.get("type", ""))
                    )
        except (SecureFSError, OSError):
            pass
        return _broken(file)


def _row(file: StoredFile, name: str, media_type: str) -> Row:
    return Row(file.object_id, name or "unnamed", media_type, file.size, file.created)


def _broken(file: StoredFile) -> Row:
    return replace(_row(file, file.object_id[:16], ""), broken=True)


def _describe(row: Row) -> dict[str, object]:
    return {
        "id": row.object_id,
        "name": row.name,
        "type": row.type,
        "size": row.size,
        "created": row.created,
        "broken": row.broken,
        "url": f"/files/{row.object_id}",
    }
