"""Writes docs/paths.md: which spellings of a path lead to a route in eight frameworks, and what securefs takes them for.

``python tests/support/path_table.py`` starts gunicorn with the apps of :mod:`support.path_apps`,
asks them, and writes what it saw. ``tests/middleware/test_paths.py`` holds the page against them
again, and holds what must be true of every row.
"""

from __future__ import annotations

import sys
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from support.frameworks import installed  # noqa: E402  # a script: its path comes first
from support.path_apps import COLUMNS, FILE, ROUTE  # noqa: E402  # the same
from support.server_matrix import Connection, running, version  # noqa: E402  # the same

PAGE = Path(__file__).parents[2] / "docs" / "paths.md"
SERVER = "gunicorn gthread"

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Spelling:
    """A request that may mean :data:`ROUTE`."""

    what: str
    target: str = ROUTE
    headers: Headers = ()
    method: str = "GET"

    @property
    def shown(self) -> str:
        """The request as the page shows it."""
        method = "" if self.method == "GET" else f"{self.method} "
        lines = [f"{method}{self.target}", *(f"{name}: {value}" for name, value in self.headers)]
        return " ".join(f"`{line}`" for line in lines)


SPELLINGS = [
    Spelling("as it is"),
    Spelling("two slashes in front", "//files/q3_report"),
    Spelling("two slashes between", "/files//q3_report"),
    Spelling("a slash at the end", "/files/q3_report/"),
    Spelling("a dot in front", "/./files/q3_report"),
    Spelling("a dot between", "/files/./q3_report"),
    Spelling("a dot at the end", "/files/q3_report/."),
    Spelling("two dots", "/x/../files/q3_report"),
    Spelling("two dots at the end", "/files/q3_report/x/.."),
    Spelling("an escaped letter", "/%66iles/q3_report"),
    Spelling("a letter escaped twice", "/%2566iles/q3_report"),
    Spelling("an escaped slash", "/files%2Fq3_report"),
    Spelling("a slash escaped twice", "/files%252fq3_report"),
    Spelling("escaped dots", "/x/%2e%2E/files/q3_report"),
    Spelling("dots escaped twice", "/x/%252e%252e/files/q3_report"),
    Spelling("a parameter of the folder", "/files;v=1/q3_report"),
    Spelling("a parameter of the file", "/files/q3_report;v=1"),
    Spelling("dots with a parameter", "/x/..;/files/q3_report"),
    Spelling("a dot behind the name", "/files/q3_report."),
    Spelling("a space behind the name", "/files/q3_report%20"),
    Spelling("a plus behind the name", "/files/q3_report+"),
    Spelling("other punctuation", "/files/q3-report"),
    Spelling("capital letters", "/FILES/Q3_REPORT"),
    Spelling("a dotless i", "/f%C4%B1les/q3_report"),
    Spelling("a wide letter", "/%EF%BD%86iles/q3_report"),
    Spelling("an overlong letter", "/%C1%A6iles/q3_report"),
    Spelling("a byte that is no UTF-8", "/fi%FFles/q3_report"),
    Spelling("a backslash", "/files\\q3_report"),
    Spelling("an escaped backslash", "/files%5Cq3_report"),
    Spelling("a tab at the end", "/files/q3_report%09"),
    Spelling("a line feed at the end", "/files/q3_report%0A"),
    Spelling("a NUL at the end", "/files/q3_report%00"),
    Spelling("a whole URL", "http://127.0.0.1/files/q3_report"),
    Spelling("a host without a scheme", "//x/files/q3_report"),
    Spelling("an escaped question mark", "/files/q3_report%3Fx=1"),
    Spelling("a fragment", "/files/q3_report#x"),
    Spelling("mounted by the client", headers=(("SCRIPT_NAME", "/files"),)),
    Spelling("mounted elsewhere by the client", f"/x{ROUTE}", (("SCRIPT_NAME", "/x"),)),
    Spelling("a root named by the client", "/q3_report", (("X-Vhm-Root", "/files"),)),
    Spelling(
        "another method named by the client", headers=(("X-HTTP-Method-Override", "GET"),), method="POST"
    ),
]

FORM = ("Content-Type", "multipart/form-data; boundary=B"), b"--B--\r\n"

HEAD = """\
# How frameworks differ on paths

<!-- Made by tests/support/path_table.py; tests hold every cell against the frameworks. -->

A rule of securefs names a path, and the app behind it reads the path once more. If the two
disagree, a file could be served from a route that no rule knows. This page shows how much they
differ. Each row is a spelling of a request for `{route}`. Each column is an app of one
framework with this one route, behind gunicorn, which decodes the request line. The server has its
default settings, by which a client on the same machine may set `SCRIPT_NAME`
([deployment.md](deployment.md#paths) says how to switch that off). The last two columns are what
securefs takes the request for: whether `protected_paths=("{route}",)` protects it, and
whether `upload_paths=("{route}",)` permits a form on it.

Versions: {versions}.

**file**: the request reaches the route. `other`: the framework looks for another route. `redirect`:
it sends the client to another path, whose request is judged by itself. `no`: the framework or
gunicorn refuses the request.

"""

BELOW = """

## What the tests hold

- Where a framework reaches the route, the rule that protects holds. The tests serve plaintext from
  the route, and the client gets a 500 without a byte of it.
- Where the rule that permits holds, each framework reaches the route, sends the client elsewhere,
  or refuses. Elsewhere a form is a 415 before a byte of it is read.
- The same is true of spellings that are composed of these at random, and of apps that are less
  strict: routes in any letter case (Django, Bottle), paths put into lower case (Falcon, CherryPy),
  slashes at the end ignored (Flask, Falcon, Django).

That is why a rule that protects takes more paths for its own than any one framework does, and a
rule that permits takes fewer: [http.md](http.md#paths) says which.
[The test](../tests/middleware/test_paths.py) has more spellings than this page.
"""


def ask(connection: Connection, spelling: Spelling, column: str, rule: str, form: bool = False):
    """Return the response to a spelling by the app of a column, behind a rule."""
    headers = [("X-Column", column), ("X-Rule", rule), *spelling.headers]
    method, body = spelling.method, b""
    if form:
        kind, body = FORM
        method, headers = "POST", [*headers, kind]
    return connection.ask(method, spelling.target, headers, body)


def reading(status: int, body: bytes) -> str:
    """Return the cell for an answer of a framework."""
    if status == 200:
        return "file" if body == FILE else "other"
    if status == 404:
        return "other"
    return "redirect" if 300 <= status < 400 else "no"


@dataclass(frozen=True)
class Row:
    """What was seen of one spelling.

    :ivar cells: the framework's reading, by column. :ivar served: whether plaintext came through a
        rule that protects the route, by column.
    """

    cells: dict[str, str]
    served: dict[str, bool]
    protected: bool
    permitted: bool


def measure(port: int, spelling: Spelling) -> Row:
    """Ask everything about one spelling."""

    def asked(column: str, rule: str, form: bool = False):
        # Some spellings end the connection.
        with Connection(port) as connection:
            return ask(connection, spelling, column, rule, form)

    def answers(rule: str) -> dict:
        return {column: asked(column, rule) for column in COLUMNS}

    return Row(
        {column: reading(answer.status, answer.body) for column, answer in answers("none").items()},
        {column: answer.body == FILE for column, answer in answers("protects").items()},
        protected=asked("anything", "protects").status == 500,
        permitted=asked("anything", "permits", form=True).status == 200,
    )


def measure_all(folder: Path) -> dict[Spelling, Row]:
    """Start the server, and return all rows."""
    with running(SERVER, folder, "support.path_apps") as site:
        return {spelling: measure(site.server.port, spelling) for spelling in SPELLINGS}


def versions() -> str:
    """Return the distributions with their versions, as the page names them."""
    names = sorted({distribution for _, distribution in COLUMNS.values()}, key=str.lower)
    return textwrap.fill(
        ", ".join([f"gunicorn {version(SERVER)}", *(f"{name} {installed(name)}" for name in names)]), 90
    )


def render(rows: dict[Spelling, Row]) -> str:
    """Return the page."""
    lines = [
        ["spelling", "request", *COLUMNS, "protected", "permitted"],
        ["---"] * (len(COLUMNS) + 4),
    ]
    for spelling, row in rows.items():
        cells = ["**file**" if cell == "file" else cell for cell in row.cells.values()]
        told = ["yes" if answer else "no" for answer in (row.protected, row.permitted)]
        lines.append([spelling.what, spelling.shown, *cells, *told])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return HEAD.format(route=ROUTE, versions=versions()) + table + BELOW


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        PAGE.write_text(render(measure_all(Path(folder))), "utf-8")
    print(f"wrote {PAGE}")
