"""Readings of a path: what protects holds for every spelling that reaches a route, what permits for no other route."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support import path_table
from support.fuzzing import examples
from support.path_apps import COLUMNS, LENIENT, ROUTE
from support.path_table import SPELLINGS
from support.server_matrix import SERVERS, running
from support.wsgi_client import call, make_environ

from securefs.middleware.paths import any_reading_matches, every_reading_matches, readings

# CherryPy leaves what it opened for a request to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def environ_of(path, script="", **more):
    return {"SCRIPT_NAME": script, "PATH_INFO": path} | more


def latin_1(text):
    """Return a path as a server hands it on."""
    return text.encode().decode("latin-1")


# --- the table


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """What the frameworks and securefs make of every spelling, behind a real server."""
    return path_table.measure_all(tmp_path_factory.mktemp("paths"))


def test_where_a_framework_reaches_the_route_it_is_protected(rows):
    reached = {
        (spelling.what, column): (row.protected, row.served[column])
        for spelling, row in rows.items()
        for column, cell in row.cells.items()
        if cell == "file"
    }
    assert {what for what, answer in reached.items() if answer != (True, False)} == set()
    assert {column for _, column in reached} == set(COLUMNS)
    assert len({what for what, _ in reached}) > len(SPELLINGS) / 3, "most rows reach nothing"


def test_where_a_form_is_permitted_no_framework_takes_the_path_for_another(rows):
    permitted = {spelling.what: set(row.cells.values()) for spelling, row in rows.items() if row.permitted}
    assert {what for what, cells in permitted.items() if "other" in cells} == set()
    assert "as it is" in permitted
    assert any("file" in row.cells.values() and not row.permitted for row in rows.values())


def test_the_page_is_what_the_frameworks_do(rows):
    page = path_table.PAGE.read_text("utf-8")
    if path_table.versions() not in page:
        pytest.skip(f"made with other versions than {path_table.versions()}")
    assert path_table.render(rows) == page, "run python tests/support/path_table.py"


def test_the_table_has_forty_spellings_and_eight_columns():
    assert (len({spelling.what for spelling in SPELLINGS}), len(COLUMNS)) == (40, 8)


# --- what servers let a client set

NAMED = ["SCRIPT_NAME", "Script-Name", "PATH_INFO", "Path-Info", "X-Forwarded-Prefix", "X-Script-Name"]


@pytest.mark.parametrize("server", SERVERS)
def test_which_server_takes_the_mount_from_a_header(server, tmp_path):
    """docs/deployment.md names them; gunicorn is the one, and its configuration here has it switched off."""
    with running(server, tmp_path, "support.path_apps") as site:
        seen = {}
        for name in NAMED:
            with site.connect() as connection:
                answer = connection.ask("GET", "/x/page", [("X-Column", "echo"), (name, "/x")])
            seen[name] = answer.body
    moved = {"SCRIPT_NAME": b"/x /page"} if server.startswith("gunicorn") else {}
    assert seen == dict.fromkeys(NAMED, b" /x/page") | moved


# --- spellings composed at random


def inserted(path, at, text):
    at %= len(path) + 1
    return path[:at] + text + path[at:]


def escaped(path, at, times):
    at %= len(path) or 1
    return (
        path[:at] + "".join(f"%{'25' * times}{ord(char):02X}" for char in path[at : at + 1]) + path[at + 1 :]
    )


def at_a_slash(path, at, text):
    slashes = [index for index, char in enumerate(path) if char == "/"] or [0]
    return inserted(path, slashes[at % len(slashes)], text)


DOTS = ["/", "//", "/.", "/x/..", "/..", ";v=1", "/..;", "\\", ".", " "]
ENDS = [
    "/",
    "//",
    ".",
    " ",
    "+",
    "\n",
    "\t",
    "\r",
    "\x00",
    "?x",
    "#x",
    ";x",
    "/.",
    "/x/..",
    "-",
    "%20",
    "%0A",
]
BYTES = ["\xff", "\xc0", "\xe9", "\x00", "\n", "\u00ad"]
STARTS = ["/", "//", "//x", "http://x", "/.", "/x/..", " "]
LETTERS = [
    ("i", latin_1("\u0131")),
    ("i", latin_1("\u0130")),
    ("s", latin_1("\u017f")),
    ("f", latin_1("\uff46")),
    ("f", "\xc1\xa6"),
    ("_", "-"),
    ("_", "."),
    ("/", "\\"),
    ("/", "%2F"),
    ("/", latin_1("\uff0f")),
]
place = st.integers(0, 40)
change = st.one_of(
    st.tuples(st.just(at_a_slash), place, st.sampled_from(DOTS)),
    st.tuples(st.just(inserted), place, st.sampled_from(BYTES)),
    st.tuples(st.just(escaped), place, st.integers(0, 1)),
    st.sampled_from(ENDS).map(lambda end: (lambda path: path + end,)),
    st.sampled_from(STARTS).map(lambda start: (lambda path: start + path,)),
    st.sampled_from(LETTERS).map(lambda pair: (lambda path: path.replace(*pair, 1),)),
    st.sampled_from([str.upper, str.title, str.swapcase]).map(lambda fold: (fold,)),
    st.just((lambda path: path.removeprefix("/"),)),
)
# Where the path is cut in two, and what names its first half.
cut = st.tuples(place, st.sampled_from(["", "", "mounted", "HTTP_SCRIPT_NAME", "HTTP_X_VHM_ROOT"]))


def composed(changes, cut):
    """Return the environ of a request whose path went through the changes."""
    path = ROUTE
    for function, *arguments in changes:
        path = function(path, *arguments)
    at, how = cut
    first, rest = path[:at], path[at:]
    if not how:
        return {"PATH_INFO": path}
    if how == "HTTP_X_VHM_ROOT":
        return {"PATH_INFO": rest, how: first}
    return {"SCRIPT_NAME": first, "PATH_INFO": rest} | ({how: first} if how != "mounted" else {})


@pytest.fixture(scope="module")
def apps():
    return {name: make() for name, (make, _) in COLUMNS.items()} | {
        name: make() for name, make in LENIENT.items()
    }


def reading_of(app, more):
    """Return what a framework alone makes of a request."""
    try:
        answer = call(app, headers=[("Host", "localhost")], watched=False, **more)
    except Exception:  # noqa: BLE001  # each framework has errors of its own
        return "no"
    return path_table.reading(answer.status, answer.body)


def check(apps, more):
    """Return what the apps make of a request; both rules hold."""
    environ = make_environ(**more)
    seen = {name: reading_of(app, more) for name, app in apps.items()}
    if "file" in seen.values():
        assert any_reading_matches(environ, (ROUTE,)), (more, seen)
        assert any_reading_matches(environ, ("/files/*",)), (more, seen)
    # Where the app is mounted, in truth and by nobody's header, is for the pattern to know.
    if "HTTP_SCRIPT_NAME" in more or "SCRIPT_NAME" not in more:
        permitted = every_reading_matches(environ, (ROUTE,))
        assert every_reading_matches(environ, (ROUTE,), within_mount=True) == permitted
        assert not permitted or "other" not in seen.values(), (more, seen)
    return seen


@given(st.lists(change, max_size=4), cut)
@example([(at_a_slash, 0, "/")], (0, ""))
@example([(inserted, 3, "\xff")], (0, ""))
@example([(lambda path: path + "\n",)], (0, ""))
@example([], (6, "HTTP_X_VHM_ROOT"))
@example([], (6, "HTTP_SCRIPT_NAME"))
@example([], (7, "mounted"))
@examples(150)
def test_spellings_composed_at_random_break_no_rule(apps, changes, cut):
    check(apps, composed(changes, cut))


CASES = [
    "/FILES/Q3_REPORT",
    "/Files/q3_report",
    latin_1("/f\u0131les/q3_report"),
    latin_1("/file\u017f/q3_report"),
]


@pytest.mark.parametrize("path", CASES)
def test_routes_in_any_letter_case_are_protected(path, apps):
    """Django and Bottle match by regular expressions, to which a dotless i is an i."""
    seen = check(apps, {"PATH_INFO": path})
    reached = {name for name, cell in seen.items() if cell == "file"}
    expected = {"Django, any letter case", "Bottle, any letter case"}
    if path.isascii():
        expected |= {"Falcon, path in lower case", "CherryPy, path in lower case"}
    assert reached == expected


@pytest.mark.parametrize("name", ["Flask, strict_slashes=False", "Falcon, slash stripped"])
def test_a_slash_at_the_end_is_ignored_where_the_app_says_so(name, apps):
    assert check(apps, {"PATH_INFO": f"{ROUTE}/"})[name] == "file"


def test_the_apps_tell_paths_apart(apps):
    assert set(check(apps, {"PATH_INFO": "/files/another"}).values()) == {"other"}


# --- rules that protect

SPELLED = {
    "as it is": "/files/my_report",
    "a slash at the end": "/files/my_report/",
    "slashes at the end": "/files/my_report//",
    "no slash in front": "files/my_report",
    "a line feed at the end": "/files/my_report\n",
    "control characters": "/fi\x00les\x7f/my_re\tport\r",
    "control characters beyond ASCII": latin_1("/fi\x80les/my_report\x9f"),
    "a dot at the end": "/files/my_report.",
    "dots and spaces at the end": "/files. ./my_report . .",
    "a byte that is no UTF-8": "/fi\xffles/my_report",
    "a byte of latin-1": "/fi\xe9les/my_report",
    "escaped twice": "/%2566iles/my_report",
    "escaped thrice": "/%66iles/my%255Freport",
    "other punctuation": "/files/my-report",
    "other punctuation, escaped": "/files/my%2Dreport",
    "letters of another case": "/FILES/mY_REPORT",
    "a dotless i": latin_1("/f\u0131les/my_report"),
    "a dotted i": latin_1("/f\u0130les/my_report"),
    "a long s": latin_1("/file\u017f/my_report"),
    "a ligature": latin_1("/\ufb01les/my_report"),
    "wide letters": latin_1("/\uff46\uff49les/my_report"),
    "a wide slash": latin_1("/files\uff0fmy_report"),
    "wide dots": latin_1("/x/\uff0e\uff0e/files/my_report"),
    "a query": "/files/my_report?x/y",
    "a query with a line feed": "/files/my_report?x\n/y",
    "a fragment": "/files/my_report#x",
    "a host": "//host/files/my_report",
    "a whole URL": "http://host/files/my_report",
    "a URL with a query": "HTTP://host:1/files/my_report?x",
    "backslashes": "\\files\\my_report",
    "dots with parameters": "/x/..;v=1/files;a=b/my_report;",
    "everything": "//host/%2e/x/%2E%2e;a/FI\xffles. \\\\my%252dreport%0a?x#y",
}
PATTERN = "/files/my_report"


@pytest.mark.parametrize("path", SPELLED.values(), ids=SPELLED)
@pytest.mark.parametrize(
    "pattern",
    [PATTERN, f"{PATTERN}/", "/Files/*", "/[f-g]iles/MY.report", "/files/my[.]r?port", "*/my-report"],
)
def test_a_pattern_protects_all_spellings(path, pattern):
    assert any_reading_matches(environ_of(path), (pattern,))
    assert any_reading_matches(environ_of(path), ("/nothing", pattern))


@pytest.mark.parametrize(
    "path",
    [
        "/files/your_report",
        "/files",
        "/files/my_reports",
        "/x/files/my_report",
        "/files//x/my_report",
        "/",
        "",
    ],
)
def test_other_paths_are_not_protected(path):
    assert not any_reading_matches(environ_of(path), (PATTERN,))
    assert not any_reading_matches(environ_of(path), ())


@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI", "HTTP_X_ORIGINAL_URL", "HTTP_X_REWRITE_URL"])
def test_the_query_is_no_part_of_a_path(name):
    environ = environ_of("/page", **{name: "/page?next=/../files/my_report"})
    assert not any_reading_matches(environ, (PATTERN,))
    assert every_reading_matches(environ, ("/page",))


HEADERS = {
    "X-Original-URL": {"HTTP_X_ORIGINAL_URL": "/files/my_report?x=1"},
    "X-Rewrite-URL, whole": {"HTTP_X_REWRITE_URL": "https://host/files/my_report"},
    "X-Vhm-Root": {"HTTP_X_VHM_ROOT": "/files", "PATH_INFO": "/my_report"},
    "X-Vhm-Root, all of it": {"HTTP_X_VHM_ROOT": "/files/my_report", "PATH_INFO": "/"},
    "X-Vhm-Root, within a name": {"HTTP_X_VHM_ROOT": "/fi", "PATH_INFO": "les/my_report"},
    "X-Vhm-Root in the place of the mount": {
        "HTTP_X_VHM_ROOT": "/fi",
        "PATH_INFO": "les/my_report",
        "SCRIPT_NAME": "/x",
    },
    "X-Vhm-Root, no slash": {"HTTP_X_VHM_ROOT": "/files", "PATH_INFO": "my_report"},
    "X-Vhm-Root, mounted": {"HTTP_X_VHM_ROOT": "/my", "PATH_INFO": "_report", "SCRIPT_NAME": "/files"},
    "X-Forwarded-Prefix": {"HTTP_X_FORWARDED_PREFIX": "/files", "PATH_INFO": "/my_report"},
    "X-Script-Name": {"HTTP_X_SCRIPT_NAME": "/files/", "PATH_INFO": "my_report"},
    "Script-Name": {"HTTP_SCRIPT_NAME": "/files", "PATH_INFO": "my_report"},
    "RAW_URI": {"RAW_URI": "/files%2Fmy_report?x=1"},
    "REQUEST_URI": {"REQUEST_URI": "http://host/%66iles/my_report"},
    "SCRIPT_NAME": {"SCRIPT_NAME": "/files", "PATH_INFO": "/my_report"},
    "SCRIPT_NAME, no slash": {"SCRIPT_NAME": "/files", "PATH_INFO": "my_report"},
    "SCRIPT_NAME within a name": {"SCRIPT_NAME": "/fi", "PATH_INFO": "les/my_report"},
    "SCRIPT_NAME in front": {"SCRIPT_NAME": "/x;/y", "PATH_INFO": PATTERN},
    "SCRIPT_NAME left by dots": {"SCRIPT_NAME": "/x", "PATH_INFO": f"/..{PATTERN}"},
    "SCRIPT_NAME alone": {"SCRIPT_NAME": PATTERN, "PATH_INFO": ""},
}


@pytest.mark.parametrize("more", HEADERS.values(), ids=HEADERS)
def test_a_path_that_a_header_or_the_server_names_is_protected(more):
    assert any_reading_matches(environ_of("/page") | more, (PATTERN,))


@pytest.mark.parametrize("name", ["HTTP_X_ORIGINAL_URL", "HTTP_X_VHM_ROOT", "HTTP_X_SCRIPT_NAME", "RAW_URI"])
def test_an_empty_header_names_nothing(name):
    assert readings(environ_of("/page", **{name: ""})) == {"/page"}


def test_a_pattern_that_is_not_ascii_is_compared_in_any_form():
    for pattern in ("/gr\u00f6\u00dfe", "/gro\u0308\u00dfe", "/GR\u00d6SSE"):
        for path in ("/gr\u00f6\u00dfe", "/gro\u0308\u00dfe", "/GR\u00d6SSE"):
            assert any_reading_matches(environ_of(latin_1(path)), (pattern,)), (pattern, path)
    assert any_reading_matches(environ_of("/gr\u00f6\u00dfe"), ("/gr\u00f6\u00dfe",)), "latin-1 itself"


MANY = "//%68/%252566;\xff\xef\xbc\xa6\x01. /%25C3%25A9%E9%252e%2e;x/\\b?c\xe9%3f#x%E9/"


def test_a_path_of_more_readings_than_are_looked_at_is_on_every_pattern_and_permitted_by_none():
    assert 100 < len(readings(environ_of(MANY))) < 1000, "one alone is looked at"
    environ = environ_of(MANY, script="/x", HTTP_X_VHM_ROOT="/y")
    assert readings(environ) is None
    assert any_reading_matches(environ, ("/nothing",))
    assert not any_reading_matches(environ, ())
    assert not every_reading_matches(environ, ("*",))
    assert every_reading_matches(environ_of("/%2566;a"), ("*",))


# --- rules that permit


@pytest.mark.parametrize(
    ("path", "patterns"),
    [
        ("/upload", ("/upload",)),
        ("/upload", ("/x", "/upload")),
        ("/upload/", ("/upload/",)),
        ("/upload/a.b-c", ("/upload/*",)),
        ("/upload/a b", ("/upload/*",)),
        ("/upload/", ("/upload/*",)),
        ("/upload/#1.txt", ("/upload/*",)),
        ("/Up-Load", ("/Up-Load",)),
        (latin_1("/gr\u00f6\u00dfe"), ("/gr\u00f6\u00dfe",)),
        (latin_1("/\ufb01le"), ("/\ufb01le",)),
        ("/", ("/",)),
        ("/", ("/*",)),
    ],
)
def test_a_path_is_permitted_as_it_is_named(path, patterns):
    assert every_reading_matches(environ_of(path), patterns)


@pytest.mark.parametrize("path", [path for name, path in SPELLED.items() if name != "as it is"])
def test_no_other_spelling_is_permitted(path):
    assert not every_reading_matches(environ_of(path), (PATTERN,))


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("/upload", "/upload/"),
        ("/upload/..", "/upload/*"),
        ("/upload/../admin", "/upload/*"),
        ("/upload/%2e%2e/admin", "/upload/*"),
        ("/upload/..;/admin", "/upload/*"),
        ("/upload/.\n./admin", "/upload/*"),
        ("/uplo\xffad", "/upload"),
        ("/upload?/x", "/upload?/*"),
        ("//upload/admin", "//upload/*"),
        ("/UPLOAD", "/upload"),
        ("/upload", "/UPLOAD"),
        ("/up-load", "/up_load"),
        ("", "/upload"),
        ("upload", "/upload"),
    ],
)
def test_what_some_framework_takes_for_another_path_is_not_permitted(path, pattern):
    assert not every_reading_matches(environ_of(path), (pattern,))


@pytest.mark.parametrize(
    "more",
    [
        {"HTTP_X_ORIGINAL_URL": "/admin"},
        {"HTTP_X_REWRITE_URL": "http://host/admin"},
        {"HTTP_X_VHM_ROOT": "/admin"},
        {"SCRIPT_NAME": "/up", "PATH_INFO": "load", "HTTP_SCRIPT_NAME": "/up"},
        {"SCRIPT_NAME": "/upload", "PATH_INFO": "", "HTTP_X_FORWARDED_PREFIX": "/upload"},
        {"SCRIPT_NAME": "/upload", "PATH_INFO": "", "HTTP_X_SCRIPT_NAME": "/upload"},
    ],
    ids=str,
)
def test_a_header_that_leads_elsewhere_permits_nothing(more):
    assert not every_reading_matches(environ_of("/upload") | more, ("/upload",))


def test_a_rule_may_be_for_paths_within_a_mount():
    environ = environ_of("/upload", script="/app")
    assert every_reading_matches(environ, ("/upload",), within_mount=True)
    assert every_reading_matches(environ, ("/app/upload",), within_mount=True)
    assert not every_reading_matches(environ, ("/app",), within_mount=True)
    assert not every_reading_matches(environ | {"PATH_INFO": "/upload/.."}, ("/upload",), within_mount=True)


def test_an_app_that_is_mounted_is_permitted_by_its_whole_path():
    environ = environ_of("/upload", script="/app")
    assert every_reading_matches(environ, ("/app/upload",))
    assert not every_reading_matches(environ, ("/upload",))
    # Where a header says so, a client may have: both paths must be named.
    environ["HTTP_SCRIPT_NAME"] = "/app"
    assert not every_reading_matches(environ, ("/app/upload",))
    assert not every_reading_matches(environ, ("/upload",), within_mount=True)
    assert every_reading_matches(environ, ("/app/upload", "/upload"))
    assert every_reading_matches(environ_of("/upload", HTTP_X_SCRIPT_NAME="/app"), ("/upload",))
