"""Writes docs/matrix.md: how many of the cases of :mod:`support.framework_matrix` pass with each framework on each server.

``python tests/support/matrix_table.py`` starts them all and writes what it saw.
``tests/middleware/test_matrix.py`` holds the page against them again.
"""

from __future__ import annotations

import ast
import platform
import re
import sys
import tempfile
import textwrap
from importlib import metadata
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from support import framework_matrix  # noqa: E402  # a script: its path comes first
from support.framework_matrix import CASES, NOTES, ROWS, SERVERS  # noqa: E402  # the same
from support.server_matrix import version  # noqa: E402  # the same

PAGE = Path(__file__).parents[2] / "docs" / "matrix.md"
EXAMPLES = Path(__file__).parents[1] / "test_examples.py"
# What its tests run: the fixture, and the application's distribution.
APPLICATIONS = {"index": "pypiserver", "tracker": "roundup"}
MARKS = dict(zip(NOTES, "¹²³", strict=True))

Cells = dict[str, dict[str, str]]  # row, server: cell

HEAD = """\
# Frameworks and servers

<!-- Made by tests/support/matrix_table.py; tests hold every cell against the server. -->

This page shows every framework behind SecureFS on every server. Each framework takes and gives
files in its own way. Each cell is a server process with real connections, and says how many of the
cases below it passed ([tests/support/framework_matrix.py](../tests/support/framework_matrix.py)).
"""

BELOW = """\
In every case: what the app stored is a Format 2 container that decrypts to what was sent. No file
of the app's, its database included, holds plaintext. Names are those that the same app gives
without SecureFS. Downloads return what was uploaded. After each response the connection is kept or
closed, as [servers.md](servers.md) says of the server.

{cases}

The marks:

{notes}

The tests use Django's admin as a person does: its login form, and its add forms with their tokens.
The ModelForm is behind Django's CSRF check, which reads the form before the view. The rows of
Django, REST framework included, give files by `FileResponse`. [servers.md](servers.md) shows what
each server does with aborted, malformed and chunked requests, [multipart.md](multipart.md) what
each framework makes of hostile bodies, and [clients.md](clients.md) what becomes of uploads by
other clients than browsers.

## Applications

Unchanged programs from PyPI behind SecureFS, under gunicorn, used with twine, pip and curl as their
users do: [examples](../examples/README.md). Each line is a test in
[tests/test_examples.py](../tests/test_examples.py).

{applications}
"""


def cell(seen: dict[str, str | None]) -> str:
    """Return what the page says of one server with one framework: cases passed, and the marks of what is noted."""
    passed = [result for result in seen.values() if not (result or "").startswith("failed")]
    marks = [MARKS[note] for note in NOTES if note in passed]
    return " ".join([f"{len(passed)}/{len(seen)}", *marks])


def render(cells: Cells) -> str:
    """Return the page."""
    rows = [
        ["", "version", *SERVERS],
        ["---"] * (len(SERVERS) + 2),
        ["version", "", *(version(server) or "-" for server in SERVERS)],
    ]
    for name, row in ROWS.items():
        rows.append([name, metadata.version(row.distribution), *(cells[name][server] for server in SERVERS)])
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    cases = "\n".join(_item(f"{case}: {text}") for case, text in CASES.items())
    notes = "\n".join(_item(f"{MARKS[note]} {text}") for note, text in NOTES.items())
    told = [["application", "version", "what is tested"], ["---"] * 3, *_applications()]
    applications = "\n".join("| " + " | ".join(row) + " |" for row in told)
    measured = f"Measured on CPython {platform.python_version()}, Linux."
    return f"{HEAD}\n{table}\n\n{measured}\n\n{BELOW.format(cases=cases, notes=notes, applications=applications)}"


def _applications() -> list[list[str]]:
    """Return a row for each test of an application: which, its version, and what the test is called."""
    rows = []
    for node in ast.parse(EXAMPLES.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            what = node.name.removeprefix("test_").replace("_", " ")
            used = [APPLICATIONS[fixture.arg] for fixture in node.args.args if fixture.arg in APPLICATIONS]
            rows += [[name, metadata.version(name), what] for name in used]
    return rows


def _item(text: str) -> str:
    """Return an item of a list, in lines of at most 100 columns."""
    return textwrap.fill(f"- {text}", 100, subsequent_indent="  ")


def written() -> Cells:
    """Return the cells of the page as it is."""
    lines = [
        line[2:-2].split(" | ") for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")
    ]
    return {line[0]: dict(zip(SERVERS, line[2:], strict=True)) for line in lines if line[0] in ROWS}


def without_versions(page: str) -> str:
    """Return a page without what another installation would have otherwise."""
    page = re.sub(r"^(\| version .*|Measured on .*)$", "", page, flags=re.MULTILINE)
    return re.sub(r"^(\| [^|]+ \|) [^|]+ \|", r"\1", page, flags=re.MULTILINE)


def is_current() -> bool:
    """Return whether the page is what :func:`render` makes of its own cells, versions aside."""
    return without_versions(PAGE.read_text("utf-8")) == without_versions(render(written()))


def measure(row: str) -> dict[str, str]:
    """Return the cells of one row."""
    with tempfile.TemporaryDirectory() as folder, framework_matrix.sites(row, Path(folder)) as sites:
        bare = framework_matrix.expectations(row, sites["bare"])
        seen = {name: framework_matrix.try_all(row, sites[name], bare) for name in SERVERS if name in sites}
    failures = {
        name: results for name, results in seen.items() if not cell(results).startswith(f"{len(CASES)}/")
    }
    print(row, failures or "passed everything", flush=True)
    return {name: cell(seen[name]) if name in seen else "-" for name in SERVERS}


if __name__ == "__main__":
    PAGE.write_text(render({row: measure(row) for row in ROWS}), "utf-8")
    print(f"wrote {PAGE}")
