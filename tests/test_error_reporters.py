"""What real error reporters record of a failure: Sentry with its default settings, and Django's debug page."""

from __future__ import annotations

import json

import pytest
from support.journals import run_script

# Module globals are the variables of its lowest frame, so secrets are in an object that shows none.
FAILURES = '''
import base64, io, json, os, secrets, sys, tempfile
import securefs.secrecy, securefs.stream
from pathlib import Path
from securefs import Decryptor, Encryptor, Keyring, Suite, decrypt_file, open_encrypted, rewrap, verify
from securefs.audit import Journal
from securefs.backend import default_primitives
from securefs.middleware import SecureFS, body
from securefs.stream import Randomness, seal_with

if sys.argv[1] == "as if nothing were cleared":
    securefs.secrecy.clear_frames = body.clear_frames = lambda *_: None


class Box:
    """Holds what must not be found."""


def letters(size=32):
    """Random bytes that look the same in every report: pprint, HTML and JSON change others."""
    return secrets.token_hex(size)[:size].encode()


def sealed(text, suite=Suite.CBC_HMAC, dek=None, **options):
    drawn = Randomness.draw()
    drawn = Randomness(drawn.file_id, dek or box.dek, drawn.wrap_salt, drawn.body_salt, drawn.draw_iv)
    return seal_with(drawn, text, box.ring, suite, default_primitives(), **options)


def changed(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


securefs.stream.token_bytes = letters  # of which data keys are made
box = Box()
box.key, box.retired, box.dek, box.fresh, box.mark = (letters() for _ in range(5))
box.ring = Keyring(box.key, [box.retired])
box.text = box.mark * 4096
box.folder = Path(tempfile.mkdtemp())
box.metadata = b'{"name":"%s"}' % box.mark
box.files = {suite: sealed(box.text, suite, metadata_text=box.metadata) for suite in Suite}
os.environ["FILE_KEY_BASE64"] = box.key.hex()


def opened(data, **options):
    with open_encrypted(io.BytesIO(data), box.ring, **options) as file:
        return file.read()


def fed(data, **options):
    decryptor = Decryptor(box.ring, **options)
    return decryptor.update(data) + decryptor.finalize()


def stored(data):
    box.path = box.folder / "file"
    box.path.write_bytes(data)
    return box.path


class Service:
    """A key service that does not answer."""

    kind, key_id, payload_size = 2, bytes(16), 100

    def wrap(self, dek, bound, draw):
        box.fresh = dek  # it was drawn for this file
        raise ConnectionError("no answer")


def app(environ, start_response):
    while environ["wsgi.input"].read(10_000):
        pass
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"stored"]


def environ_of(stream, length):
    return {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/", "SCRIPT_NAME": "", "QUERY_STRING": "", "SERVER_NAME": "localhost",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "wsgi.input": stream,
        "wsgi.errors": sys.stderr, "CONTENT_TYPE": "multipart/form-data; boundary=" + "b" * 40, "CONTENT_LENGTH": str(length),
    }


def upload(wrap=lambda app: app):
    head = b"--" + b"b" * 40 + b'\\r\\nContent-Disposition: form-data; name="f"; filename="f"\\r\\n\\r\\n'
    environ = environ_of(io.BytesIO(head + box.text), len(head + box.text))
    del head
    return list(wrap(SecureFS(app, keyring=Keyring.of(Service()), journal=Journal(box.folder / "journal")))(environ, lambda *_: None))


FAILURES = {"environment": lambda: Keyring.from_env(), "middleware": lambda: SecureFS(app), "upload": upload}
FAILURES["rewrap"] = lambda: rewrap(stored(box.files[Suite.GCM]), Keyring(box.retired, [box.key]), b"another context")
for suite in Suite:
    for at in (100, 400, 440, 500, -30):
        FAILURES[f"open {suite.name} {at}"] = lambda s=suite, at=at: opened(changed(box.files[s], at % len(box.files[s])))
        FAILURES[f"feed {suite.name} {at}"] = lambda s=suite, at=at: fed(changed(box.files[s], at % len(box.files[s])))
    FAILURES[f"context {suite.name}"] = lambda s=suite: opened(box.files[s], context=b"another")
    FAILURES[f"decrypt {suite.name}"] = lambda s=suite: decrypt_file(stored(changed(box.files[s], 120_000)), box.folder / "t", box.ring)
    FAILURES[f"verify {suite.name}"] = lambda s=suite: verify(io.BytesIO(changed(box.files[s], 90_000)), box.ring)


def spellings(secret):
    return secret.decode(), secret.hex(), base64.b64encode(secret).decode().rstrip("=")


def found(text):
    """The names of the secrets in a report."""
    secret = {name: getattr(box, name) for name in ("key", "retired", "dek", "fresh", "mark")}
    return [
        name
        for name, value in secret.items()
        if any(spelling in text for spelling in spellings(value))
    ]
'''

SENTRY = (
    FAILURES
    + """
import sentry_sdk
from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

events = []
sentry_sdk.init(dsn="http://key@127.0.0.1:1/1", before_send=lambda event, hint: events.append(event))
FAILURES["upload behind Sentry's middleware"] = lambda: upload(SentryWsgiMiddleware)


def report(fail):
    events.clear()
    try:
        fail()
    except Exception as error:
        sentry_sdk.capture_exception(error)
    frames = [frame for event in events for value in event["exception"]["values"] for frame in value["stacktrace"]["frames"]]
    assert any(frame["module"].startswith("securefs.") for frame in frames), events
    return found(json.dumps(events, default=repr))


print(json.dumps({name: report(fail) for name, fail in FAILURES.items()}))
"""
)

DJANGO = (
    FAILURES
    + """
import logging
import django
from django.conf import settings
from django.urls import path

settings.configure(DEBUG=True, SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None)
django.setup()
logging.disable()
from django.test import Client


def view(request, name):
    FAILURES[name]()


urlpatterns = [path("<str:name>", view)]


def report(name):
    answer = Client(raise_request_exception=False).get("/" + name)
    page = answer.content.decode()
    assert answer.status_code == 500 and "Traceback" in page and "securefs" in page, page[:1000]
    return found(page)


print(json.dumps({name: report(name) for name in FAILURES}))
"""
)

REPORTERS = [pytest.param("sentry_sdk", SENTRY, id="sentry"), pytest.param("django", DJANGO, id="django")]


def reported(module: str, script: str, mode: str) -> dict[str, list[str]]:
    """What was found in the report of each failure."""
    pytest.importorskip(module, reason=f"{module} is not installed: pip install -e '.[dev]'")
    out, _ = run_script(script, mode)
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize(("module", "script"), REPORTERS)
def test_an_error_reporter_records_no_secret(module, script):
    found = reported(module, script, "as it is")
    assert len(found) >= 30
    assert {name: secrets for name, secrets in found.items() if secrets} == {}


@pytest.mark.parametrize(("module", "script"), REPORTERS)
def test_an_error_reporter_would_record_secrets(module, script):
    """So the test above looks where they would be."""
    found = reported(module, script, "as if nothing were cleared")
    assert {secret for secrets in found.values() for secret in secrets} >= {"key", "dek", "fresh", "mark"}
    assert sum(map(bool, found.values())) >= 8
