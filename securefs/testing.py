"""For the tests of your app: keys and a journal of their own, and a client behind the middleware.

::

    with securefs.testing.client(app, stores=[folder]) as client:
        client.post("/upload", files={"file": ("a.txt", b"hello")})
        assert client.get("/report").body == b"hello"
        assert client.records("file.encrypt")

Nothing is read from the environment, and nothing is left behind: each client has a fresh key, and a
journal in a folder that is removed at its end. An app that wraps itself reads the environment as
always: give it the variables of :func:`environment`, and the app to :class:`Client`.

The client calls the app as a server does (PEP 3333), in this process, without a socket. It is no
browser: it keeps no cookies and follows no redirects.
"""

from __future__ import annotations

import io
import json
import secrets
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes
from wsgiref.headers import Headers
from wsgiref.util import FileWrapper

from securefs.arguments import require_path
from securefs.audit import Journal
from securefs.disk import make_private_folder
from securefs.errors import ConfigurationError
from securefs.keys import KEY_SIZE, PRIMARY_VARIABLE, Keyring, generate_key
from securefs.middleware import Policy, SecureFS

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from types import TracebackType
    from typing import Any

    from securefs.middleware.inspection import Inspector

    Environ = dict[str, Any]
    WSGIApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]
    ExcInfo = tuple[type[BaseException], BaseException, TracebackType]
    # (name, content), or (name, content, media type).
    File = tuple[str, bytes] | tuple[str, bytes, str]

__all__ = ["Answer", "Client", "client", "environment"]

DEFAULT_TYPE: Final = "application/octet-stream"
# As browsers write a name into a Content-Disposition (HTML standard, multipart/form-data encoding).
_ESCAPES: Final = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


def environment(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Return the variables of a test run: a fresh key, and a journal in ``folder/journal``.

    For apps that wrap themselves when they are imported: set them before that. Names are recorded
    in clear, so that a test can look for them.

    :param folder: a folder that exists and that only this user can write to, such as ``tmp_path``.
    :raises OSError: the journal's folder can't be created.
    """
    require_path("folder", folder)
    journal = Path(folder).absolute() / "journal"
    make_private_folder(journal)
    return {
        PRIMARY_VARIABLE: generate_key(),
        "SECUREFS_AUDIT_DIR": str(journal),
        "SECUREFS_AUDIT_NAMES": "clear",
    }


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client receives.

    :ivar status: such as 200. :ivar headers: their names are compared without regard to case.
    """

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode("utf-8")

    def json(self) -> Any:
        """Return the body's document."""
        return json.loads(self.body)


class Client:
    """Sends requests to a WSGI app that is wrapped in :class:`securefs.middleware.SecureFS`.

    :param app: the app as the server gets it: what is not wrapped is not encrypted.
    :param journal: the folder of the app's journal, such as the ``SECUREFS_AUDIT_DIR`` of
        :func:`environment`.
    :ivar keyring: opens what was stored; None if the app has its keys from elsewhere.
    """

    def __init__(
        self, app: WSGIApp, *, journal: str | os.PathLike[str] | None = None, keyring: Keyring | None = None
    ) -> None:
        if journal is not None:
            require_path("journal", journal)
        self.keyring = keyring
        self._app, self._journal = app, None if journal is None else Path(journal)

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """Send a GET: see :meth:`request`."""
        return self.request("GET", path, headers=headers)

    def post(
        self,
        path: str,
        *,
        files: Mapping[str, File] | None = None,
        fields: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a POST: see :meth:`request`."""
        return self.request("POST", path, files=files, fields=fields, body=body, headers=headers)

    def request(
        self,
        method: str,
        path: str,
        *,
        files: Mapping[str, File] | None = None,
        fields: Mapping[str, str] | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and return the whole answer.

        An exception out of the app is raised here. So is that of a stored file that fails after its
        response began: a real client sees an aborted connection.

        :param path: with a query after ``?``, in percent encoding like a URL's.
        :param files: file parts by field: (name, content) or (name, content, media type).
        :param fields: the other fields of the form. With files or fields, the body is
            ``multipart/form-data``.
        :param body: the body of any other request. Its type is the header ``Content-Type``.
        """
        sent = dict(headers or {})
        if files or fields:
            sent["Content-Type"], body = _form(files or {}, fields or {})
        return _call(self._app, _environ(method, path, body, sent))

    def records(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the records of the journal, oldest first; with ``event``, those of one event.

        :raises ValueError: the client was made without the journal's folder.
        """
        if self._journal is None:
            raise ValueError("which journal? Client(app, journal=FOLDER)")
        lines = [
            line for path in self._journal.glob("*.jsonl") for line in path.read_text("utf-8").splitlines()
        ]
        found = sorted((json.loads(line) for line in lines), key=lambda record: str(record["time"]))
        return [record for record in found if event in {None, record["event"]}]


@contextmanager
def client(
    app: WSGIApp,
    *,
    stores: Iterable[str | os.PathLike[str]] = (),
    policy: Policy | None = None,
    context: Callable[[Environ], bytes] | None = None,
    authorize: Callable[[Environ], str | None] | None = None,
    inspect: Inspector | None = None,
) -> Iterator[Client]:
    """Wrap ``app`` in the middleware, and yield a client of it.

    :param app: any WSGI app that does not wrap itself.
    :param stores, policy, context, authorize, inspect: as for
        :class:`securefs.middleware.SecureFS`. The policy is the default one unless given, whatever
        the environment says.
    :raises ConfigurationError: one of them is unusable, or the app is wrapped already.
    """
    if isinstance(app, SecureFS):
        raise ConfigurationError("app is wrapped already: give it to securefs.testing.Client")
    keyring = Keyring(secrets.token_bytes(KEY_SIZE))
    with tempfile.TemporaryDirectory(prefix="securefs-testing-") as folder:
        journal = Journal(folder, names="clear")
        try:
            wrapped = SecureFS(
                app,
                stores=tuple(stores) or None,
                keyring=keyring,
                journal=journal,
                policy=policy or Policy(),
                context=context,
                authorize=authorize,
                inspect=inspect,
            )
            yield Client(wrapped, journal=folder, keyring=keyring)
        finally:
            journal.close()


def _form(files: Mapping[str, File], fields: Mapping[str, str]) -> tuple[str, bytes]:
    """Return (content type, body) of a form, as a browser makes it."""
    boundary = "----securefs-testing-" + secrets.token_hex(16)
    out = io.BytesIO()
    for field, value in fields.items():
        out.write(f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(field)}"\r\n\r\n'.encode())
        out.write(value.encode() + b"\r\n")
    for field, (name, content, *kind) in files.items():
        out.write(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(field)}"; filename="{_quoted(name)}"\r\n'
            f"Content-Type: {kind[0] if kind else DEFAULT_TYPE}\r\n\r\n".encode()
        )
        out.write(content + b"\r\n")
    out.write(f"--{boundary}--\r\n".encode())
    return f"multipart/form-data; boundary={boundary}", out.getvalue()


def _quoted(text: str) -> str:
    return text.translate(_ESCAPES)


def _environ(method: str, target: str, body: bytes, headers: Mapping[str, str]) -> Environ:
    path, _, query = target.partition("?")
    environ: Environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
    }
    if body or method not in {"GET", "HEAD"}:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
    return environ


def _call(app: WSGIApp, environ: Environ) -> Answer:
    """Call the app as a server does, and close what it returned."""
    started: list[tuple[str, list[tuple[str, str]]]] = []
    written = io.BytesIO()

    def start_response(
        status: str, headers: list[tuple[str, str]], _exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], object]:
        started.append((status, headers))
        return written.write

    result = app(environ, start_response)
    try:
        for piece in result:
            written.write(piece)
    finally:
        close = getattr(result, "close", None)
        if close is not None:
            close()
    status, headers = started[-1]
    return Answer(int(status.split()[0]), Headers(headers), written.getvalue())
