"""docs/architecture.md: each name exists, the picture shows each module, and each walk calls what it says in that order."""

from __future__ import annotations

import base64
import importlib
import inspect
import io
import pkgutil
import re
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from wsgiref.util import setup_testing_defaults

import pytest

import securefs
from securefs import Encryptor, Keyring
from securefs.audit import Journal
from securefs.audit.events import EVENTS
from securefs.errors import Reason
from securefs.middleware import SecureFS
from securefs.middleware.exchange import Exchange

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "architecture.md").read_text("utf-8")
PICTURE = re.search(r"```text\n(.*?)```", PAGE, re.DOTALL)[1]
PROSE = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL)
FILES = (".md", ".py", ".toml")
MIB = 1024 * 1024
KEY = bytes(range(32))


def modules() -> list[ModuleType]:
    found = pkgutil.walk_packages(securefs.__path__, "securefs.")
    return [
        importlib.import_module(item.name) for item in found if item.name.rpartition(".")[2] != "__main__"
    ]


MODULES = modules()


def starts() -> dict[str, list[object]]:
    """Return what a dotted name may begin with: modules by the last part of their name, and classes."""
    named = defaultdict(list)
    for module in MODULES:
        # An extension for a framework has the middleware's names, and no walk passes there.
        if module.__name__.startswith("securefs.integrations."):
            continue
        named[module.__name__.rpartition(".")[2]].append(module)
        for name, value in vars(module).items():
            if inspect.isclass(value) and value.__module__ == module.__name__:
                named[name].append(value)
    return named


STARTS = starts()


def names_in(text: str) -> list[str]:
    """Return the dotted names in backticks, but for names of files and of events."""
    names = re.findall(r"`([A-Za-z_]\w*(?:\.\w+)+)`", text)
    return [name for name in names if not name.endswith(FILES) and name not in EVENTS]


def resolve(name: str) -> object:
    """Return what a dotted name stands for; raise AttributeError or ImportError where there is no such thing."""
    first, *rest = name.split(".")
    for start in STARTS[first] or [importlib.import_module(first)]:
        try:
            value = start
            for part in rest:
                value = inspect.getattr_static(value, part)
        except AttributeError:
            continue
        return getattr(value, "__func__", value)
    raise AttributeError(f"{name} does not exist")


@pytest.mark.parametrize("name", sorted(set(names_in(PROSE))))
def test_each_dotted_name_exists(name):
    resolve(name)


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(_?[A-Z][a-z]\w+)`", PROSE))))
def test_each_class_exists(name):
    # HTTP's own header is written like a class.
    assert STARTS[name] or name == "Range"


def test_a_name_that_does_not_exist_is_found():
    for name in ("intake.recieve", "Transit.nothing", "nowhere.at_all"):
        with pytest.raises((AttributeError, ImportError)):
            resolve(name)


def test_the_picture_shows_each_module():
    here = {"securefs", "middleware", "audit", "gunicorn"}
    named = {module.__name__.split(".")[-1] for module in MODULES if module.__name__.count(".") == 1} | {
        module.__name__.split(".")[-1]
        for module in MODULES
        if re.match(r"securefs\.(middleware|audit|keys)\.", module.__name__)
    }
    words = set(re.findall(r"\w+", PICTURE))
    assert sorted(named - words - here) == []


def form(size: int) -> tuple[bytes, str]:
    head = b'--XX\r\nContent-Disposition: form-data; name="f"; filename="r.pdf"\r\nContent-Type: text/plain\r\n\r\n'
    boundary = "a-boundary-as-long-as-those-of-browsers"
    body = (head + bytes(size) + b"\r\n--XX--\r\n").replace(b"--XX", b"--" + boundary.encode())
    return body, f"multipart/form-data; boundary={boundary}"


def serve(app, **environ) -> bytes:
    """Call an app as a server does; return the body that a client gets."""
    setup_testing_defaults(environ)
    result = app(environ, lambda *_: io.BytesIO().write)
    try:
        return b"".join(result)
    finally:
        if hasattr(result, "close"):
            result.close()


def storing_app(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"stored"]


def upload(folder: Path, size: int = 2 * MIB):
    body, media_type = form(size)
    app = SecureFS(storing_app, journal=Journal(folder / "journal"), authorize=lambda _: "ann")
    return lambda: serve(
        app,
        REQUEST_METHOD="POST",
        CONTENT_TYPE=media_type,
        CONTENT_LENGTH=str(len(body)),
        **{"wsgi.input": io.BytesIO(body)},
    )


def download(folder: Path):
    encryptor = Encryptor(Keyring(KEY))
    (folder / "file").write_bytes(encryptor.update(bytes(3 * MIB)) + encryptor.finalize())

    def serving_app(environ, start_response):
        start_response("200 OK", [("Content-Type", "application/pdf")])
        return environ["wsgi.file_wrapper"]((folder / "file").open("rb"))

    app = SecureFS(serving_app, journal=Journal(folder / "journal"))

    def run():
        assert serve(app, HTTP_RANGE=f"bytes=500000-{500_000 + 2 * MIB - 1}") == bytes(2 * MIB)

    return run


def record(folder: Path):
    exchange = Exchange({"REQUEST_METHOD": "GET"}, Journal(folder / "journal"))
    exchange.principal = "ann"
    about = {"name": "r.pdf"}
    return lambda: exchange.record(
        "file.integrity_failure", outcome="failure", reason=Reason.TAG_MISMATCH, about=about
    )


def key(folder: Path):
    def run():
        # The keyring is made when the middleware is.
        upload(folder, 1000)()

    return run


WALKS = {"1": upload, "2": upload, "3": download, "4": record, "5": key}


def calls_of(run) -> list[object]:
    """Return the code of each function that ``run`` calls or resumes, in order, and built-in functions themselves."""
    calls: list[object] = []

    def note(frame, event, argument):
        if event == "call":
            calls.append(frame.f_code)
        elif event == "c_call":
            calls.append(argument)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    return calls


def called_as(name: str) -> object:
    function = inspect.unwrap(resolve(name))
    return getattr(function, "__code__", function)


def steps_of(walk: str) -> str:
    """Return the numbered steps of a walk: what is below them may be another way."""
    section = PAGE.split(f"\n## Walk {walk}:", 1)[1].split("\n## ", 1)[0]
    return section.split("\nElsewhere:", 1)[0]


@pytest.mark.parametrize("walk", WALKS)
def test_each_walk_calls_what_it_names_in_that_order(walk, tmp_path, monkeypatch):
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(KEY).decode())
    names = [name for name in names_in(steps_of(walk)) if callable(resolve(name))]
    assert len(names) >= 12
    left = iter(calls_of(WALKS[walk](tmp_path)))
    for name in names:
        # What is looked for is taken off, up to the call: the next name must come behind it.
        assert called_as(name) in left, f"{name} is not called, or not behind what is named before it"


def test_the_page_has_no_walk_that_is_not_run():
    assert re.findall(r"^## Walk (\d+):", PAGE, re.MULTILINE) == list(WALKS)
