"""Writes docs/multipart.md: what frameworks make of the cases in tests/hostile without us, and what we make of them.

``python tests/support/multipart_table.py`` writes it, ``--check`` says whether it is current.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import textwrap
import warnings
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from support import frameworks  # noqa: E402  # a script: its path comes first
from support.hostile_corpus import Case, load  # noqa: E402  # the same
from support.wsgi_client import call  # noqa: E402  # the same

PAGE = Path(__file__).parents[2] / "docs" / "multipart.md"
# Django REST framework reads with Django's parser.
COLUMNS = [name for name in frameworks.FRAMEWORKS if name != "djangorestframework"]
NAME_LENGTH = 16  # characters of a file name in the table

HEAD = """\
# How parsers differ on multipart bodies

Made by `tests/support/multipart_table.py` from the cases in `tests/hostile`; do not edit.

An upload is read twice: by the middleware that encrypts it, and by the app. If the two disagree on
what is a file, a file is stored in plaintext, or a field is lost. This page shows how much parsers
differ. Each row is a body, and each column shows what a framework alone, without securefs, makes of
it. The column behind them shows what securefs does. What might be a file is a file. A body that
could hide a file in a field, or of which it is unclear where a part ends, is refused. Any other
body is rewritten in the form in which a current browser would have sent
it. A file in that column is a file for every framework behind securefs. The last column names
clients that send such a body, if any are known. [matrix.md](matrix.md) has
ordinary uploads and downloads, with every framework on every server.

Frameworks also differ on what is a form at all. Falcon matches `*/form-data` and splits a
Content-Type at commas, also at quoted ones. CherryPy looks only at the word before the slash, and
takes the last of several types. Bottle and Django REST framework read files from `multipart/*`. So
securefs accepts `multipart/form-data` in one well-formed Content-Type, and refuses each type that
is malformed or that could be taken for it. The rows that begin with `content-type` and `boundary`
show this. [http.md](http.md#content-type) has the rules.

Versions: {versions}.

`file a.txt`: a file part with this name. `field`: a field. `-`: nothing, the app sees an empty
form. `no`: the framework refuses the body. `error`: it raises an error that the app must catch, or
the server answers 500. File names are cut to {name_length} characters.

"""


def versions() -> str:
    """Return the frameworks with their versions, as the page names them: behind a word, in lines of at most 100 columns."""
    return textwrap.fill(", ".join(f"{name} {frameworks.installed(name)}" for name in COLUMNS), 90)


def cases() -> list[Case]:
    """Return the cases that are about the reading of a form: not about lengths, paths, limits or other bodies."""
    return [
        case
        for case in load()
        if ("multipart/form-data" in case.content_type.lower() or b"form-data" in case.body)
        and len(case.headers) == 1
        and not case.policy
        and case.reason not in {"limit", "ciphertext_injection"}
    ]


def reading(status: int, body: bytes) -> str:
    """Return the cell for an app's answer."""
    if status >= 500:
        return "error"
    if status != 200:
        return "no"
    document = json.loads(body)
    seen = Counter(["field"] * len(document["fields"]))
    seen.update(f"file {shown(name)}" for _, name, _ in document["files"])
    return ", ".join(cell if count == 1 else f"{count} x {cell}" for cell, count in seen.items()) or "-"


def shown(name: str) -> str:
    text = name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1] + "…"
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return "`" + text.replace("|", "¦").replace("`", "'") + "`" if text else "without name"


def verdict(case: Case) -> str:
    """Return the cell for what securefs does."""
    if case.status is not None:
        return str(case.status)
    seen = Counter(
        "field" if part.filename is None else f"file {shown(part.filename)}" for part in case.parts
    )
    return ", ".join(cell if count == 1 else f"{count} x {cell}" for cell, count in seen.items()) or "-"


def read_all(name: str, folder: Path) -> dict[str, str]:
    """Return {case: cell} of one framework."""
    app = frameworks.make(name, folder)
    cells = {}
    for case in cases():
        headers = [
            ("Host", "localhost"),
            ("Content-Type", case.content_type),
            ("Content-Length", str(len(case.body))),
        ]
        try:
            # Only the framework is looked at, with all that it may do wrong.
            own = {"wsgi.input": io.BytesIO(case.body)}
            answer = call(app, "POST", "/upload", b"", headers, watched=False, **own)
        except Exception:  # noqa: BLE001  # each framework has errors of its own
            cells[case.name] = "error"
        else:
            cells[case.name] = reading(answer.status, answer.body)
    return cells


def page() -> str:
    """Return the whole page."""
    columns = {}
    for name in COLUMNS:
        with tempfile.TemporaryDirectory() as folder:
            columns[name] = read_all(name, Path(folder))
    rows: dict[bool, list[str]] = {True: [], False: []}
    for case in cases():
        cells = [columns[name][case.name] for name in COLUMNS]
        alike = len(set(cells)) == 1
        rows[alike].append(f"| {case.name} | {' | '.join(cells)} | {verdict(case)} | {case.clients} |")
    head = f"| case | {' | '.join(COLUMNS)} | securefs | clients that send it |\n|{' --- |' * (len(COLUMNS) + 3)}\n"
    total = len(cases())
    return (
        HEAD.format(versions=versions(), name_length=NAME_LENGTH)
        + f"## Read differently: {len(rows[False])} of {total}\n\n{head}"
        + "\n".join(rows[False])
        + f"\n\n## Read alike: {len(rows[True])} of {total}\n\n{head}"
        + "\n".join(rows[True])
        + "\n"
    )


def main(arguments: list[str]) -> int:
    """Write the page, or compare it; return the exit code."""
    warnings.simplefilter("ignore")
    text = page()
    if arguments == ["--check"]:
        current = PAGE.exists() and PAGE.read_text("utf-8") == text
        print(
            "docs/multipart.md is current"
            if current
            else "docs/multipart.md is not current: run tests/support/multipart_table.py"
        )
        return 0 if current else 1
    PAGE.write_text(text, "utf-8")
    print(f"wrote {PAGE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
