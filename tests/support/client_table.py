"""Writes docs/clients.md: what becomes of the cases of :mod:`support.client_matrix` with each client.

``python tests/support/client_table.py`` sends them with the clients that are installed; the rows of
others stay. ``tests/clients/test_clients.py`` holds the page against them again.
"""

from __future__ import annotations

import platform
import re
import sys
import tempfile
import textwrap
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from support import client_matrix  # noqa: E402  # a script: its path comes first
from support.client_matrix import CASES, CLIENTS, FIELDS, Seen, Sites, meant, sealed_names, unsealed  # noqa: E402  # the same

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
SENT = "200 200"  # the upload, and the download of what was uploaded

Rows = dict[str, tuple[str, dict[str, str]]]  # client: version, and of each case its cell

HEAD = """\
# Upload clients

<!-- Made by tests/support/client_table.py; tests hold every cell against the client. -->

This page shows what becomes of uploads by clients as they come from pip, npm and Debian. Each sends
the cases below over real connections to gunicorn with SecureFS in front of a small app, and the
same to that app alone. Each client is a small program as its users write it
([tests/clients/programs](../tests/clients/programs)). The app reads forms with Werkzeug.
"""

BELOW = """\
`ok`: the upload is answered with 200. Each file is stored as ciphertext that decrypts to what was
sent, under the name that the client was given, and no file of the server's, temporary ones
included, holds plaintext. The fields are those that were sent. The same client downloads the file
as it was. A name: everything else holds, but this is the name that the app saw. *Alone* says what
the app without SecureFS makes of the same upload, and *sealed* which name is in the container,
where that is something else. `not sent`: the client itself refuses. `-`: the client has no such way
to send a form.

{cases}

What the rows show:

- A name that is not `ok` is one that the client wrote otherwise, or one that Werkzeug reads
  otherwise from a current browser, too. aiohttp escapes file names unless it is told
  `quote_fields=False`. Apache HttpClient writes `?` for what its charset does not have; with
  `HttpMultipartMode.RFC6532` or `EXTENDED` it writes UTF-8. Mono cuts characters beyond 16 bits in
  two.
- A backslash is sent as it is by current browsers and many clients, and Werkzeug takes it for an
  escape. Others send two for one. SecureFS hands on what was sent, and seals it so; what came in a
  `filename*` it hands on as a browser sends it.
- Apache HttpClient 5.2 writes `charset=ISO-8859-1` into the Content-Type of the form, and names in
  that charset, which are refused, as Werkzeug refuses them. [http.md](http.md#content-type) has the
  rule.
- A quotation mark that rest-client and Guzzle send without an escape ends the name for Werkzeug,
  but not for SecureFS.
- The FormData of browsers, and so of undici, fetch, axios and got, knows a type only for a Blob,
  and a Blob is a file named `blob`. Mojolicious and PHP's CURLStringFile are alike. JSON that is
  sent so is encrypted, as every file is: name its field in
  [`plain_fields`](http.md#declared-places), or send it as a string.
- `Expect: 100-continue` is answered by the server, not by SecureFS:
  [servers.md](servers.md) has those that don't.

The ten first rows are tested wherever securefs is, the others where they are installed:
`make clients` gets those from pip and npm, and the test names the Debian packages of the others.
The page is written by

```sh
make clients
.venv/bin/python tests/support/client_table.py
```

[multipart.md](multipart.md) shows bodies of further clients, byte for byte.
"""


def cell(case: str, wrapped: Seen, bare: Seen, sent: Sites) -> str:
    """Return what the page says of one case: what came of it, and what of the same without SecureFS if that differs."""
    with_us, alone = _outcome(case, wrapped), _outcome(case, bare)
    notes = [] if with_us == alone or with_us in {"not sent", "-"} else [f"alone: {alone}"]
    if wrapped.line == SENT:
        failure = unsealed(case, wrapped, sent) or _failure(case, wrapped, bare, sent)
        if failure:
            return f"failed: {failure}"
        sealed = sealed_names(wrapped)
        if sealed != [name for _, name, _ in wrapped.app["files"]]:
            notes.append(f"sealed: {_shown(sealed)}")
    return f"{with_us} ({', '.join(notes)})" if notes else with_us


def _outcome(case: str, seen: Seen) -> str:
    if seen.line == "-":
        return "-"
    if seen.line != SENT:
        status = seen.line.partition(" ")[0]
        return status if status.isdigit() else "not sent"
    names = [name for _, name, _ in seen.app["files"]]
    if names == meant(case):
        return "ok"
    return _shown(names)


def _shown(names: list[str]) -> str:
    return ", ".join("`" + name.replace("|", "¦") + "`" for name in names) or "no file"


def _failure(case: str, wrapped: Seen, bare: Seen, sent: Sites) -> str | None:
    """Return what else is wrong about an upload that was taken."""
    fields = [[name, value] for name, value, _ in FIELDS] if case == "fields" else []
    if wrapped.app["fields"] != fields:
        return f"fields {wrapped.app['fields']}"
    if wrapped.downloaded != sent.content(case, 0).read_bytes():
        return "another download"
    if bare.line == SENT:
        kinds = zip(wrapped.app["files"], bare.app["files"], strict=False)
        if any(theirs[2] not in {None, ours[2]} for ours, theirs in kinds):
            return "another type"
        if (case == "chunked" and not bare.app["chunked"]) or (case == "Expect" and not bare.app["expect"]):
            return "sent otherwise"
    return None


def cells(seen: dict[str, tuple[Seen, Seen]], sent: Sites) -> dict[str, str]:
    """Return the cells of one client."""
    return {case: cell(case, *pair, sent) for case, pair in seen.items()}


def render(rows: Rows) -> str:
    """Return the page."""
    lines = [["client", "version", *CASES], ["---"] * (len(CASES) + 2)]
    for name in CLIENTS:
        version, row = rows.get(name, ("?", {}))
        lines.append([name, version, *(row.get(case, "?") for case in CASES)])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    items = (f"- {case}: {text}" for case, text in CASES.items())
    cases = "\n".join(textwrap.fill(item, 100, subsequent_indent="  ") for item in items)
    measured = f"Measured on CPython {platform.python_version()}, Linux."
    return f"{HEAD}\n{table}\n\n{measured}\n\n{BELOW.format(cases=cases)}"


def written() -> Rows:
    """Return the rows of the page as it is."""
    text = PAGE.read_text("utf-8") if PAGE.exists() else ""
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {
        name: (version, dict(zip(CASES, row, strict=True)))
        for name, version, *row in lines
        if name in CLIENTS and len(row) == len(CASES)
    }


def without_versions(page: str) -> str:
    """Return a page without what another installation would have otherwise."""
    page = re.sub(r"^Measured on .*$", "", page, flags=re.MULTILINE)
    return re.sub(r"^(\| [^|]+ \|) [^|]+ \|", r"\1", page, flags=re.MULTILINE)


def is_current() -> bool:
    """Return whether the page is what :func:`render` makes of its own rows, versions aside."""
    return without_versions(PAGE.read_text("utf-8")) == without_versions(render(written()))


def measure() -> Rows:
    """Return the rows of the clients that are installed, and of the others those of the page."""
    rows = written()
    with tempfile.TemporaryDirectory() as folder, client_matrix.sites(Path(folder)) as sent:
        for name, client in CLIENTS.items():
            missing = client.missing()
            if missing:
                print(f"{name}: {missing} is missing, {client.install}")
                continue
            version, seen = client_matrix.run(name, sent)
            rows[name] = (version, cells(seen, sent))
            print(
                name,
                version,
                {case: text for case, text in rows[name][1].items() if text != "ok"},
                flush=True,
            )
    return rows


if __name__ == "__main__":
    PAGE.write_text(render(measure()), "utf-8")
    print(f"wrote {PAGE}")
