"""The reference app in process: real middleware, real files, real database; Werkzeug's client in the place of a server."""

from __future__ import annotations

from werkzeug.test import Client

from securefs.app import create_app
from securefs.app.tokens import Tokens
from support.servers import app_environ, multipart

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}


def post_files(client, files, headers, fields=(), **options):
    body, content_type = multipart(files, fields)
    return client.post("/files", data=body, content_type=content_type, headers=headers, **options)


class Site:
    """An app under a folder, with one user signed in for programs and any number of clients."""

    def __init__(self, folder, **variables):
        self.folder = folder
        self.environ = app_environ(folder, **variables)
        self.app = create_app(self.environ)
        self.data = folder / "data"
        self.files = self.data / "files"
        self.tokens = Tokens(self.data / "securefs.sqlite3")
        self.client = Client(self.app)
        self.alice = self.bearer("alice")

    def bearer(self, name):
        return {"Authorization": f"Bearer {self.tokens.issue(name).secret}"}

    def upload(self, *files, headers=None, **options):
        """Upload (name, content) pairs in one request."""
        headers = self.alice if headers is None else headers
        with post_files(self.client, files, headers, **options) as response:
            response.get_data()
            return response

    def get(self, path, headers=None, **options):
        with self.client.get(path, headers=self.alice if headers is None else headers, **options) as response:
            response.get_data()
            return response

    def browser(self, name="alice"):
        """Return a client that signed in as people do."""
        client = Client(self.app)
        secret = self.tokens.issue(name).secret
        with client.post("/login", data={"token": secret}, headers={**HTML, **SAME_SITE}) as response:
            assert (response.status_code, response.headers["Location"]) == (303, "/")
        return client

    def stored(self):
        return sorted(path.name for path in self.files.iterdir())
