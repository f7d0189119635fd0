"""The reference app's pages: plain HTML without scripts, and headers that allow nothing more.

Markup.format escapes everything that came from a user. A file name is isolated with <bdi>, so that
neither markup nor the text direction of a name can change the text around it; direction overrides
are shown as replacement characters. The only style sheet is inline and allowed by its hash.
Scripts, frames, images and foreign forms are not allowed.
"""

from __future__ import annotations

import base64
import hashlib
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PAGE_HEADERS", "Row", "error_page", "harmless", "list_page", "login_page"]

# Control characters, and characters that change the direction of text: inv<U+202E>fdp.exe would be
# shown as invexe.pdf.
_CONTROLS: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_CSS: Final = Markup("""
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5b6675; --line: #dfe4ea; --back: #f4f6f8; --card: #fff;
  --act: #0b5fb4; --on-act: #fff; --bad: #a4161a; --bad-back: #fdeeee; --good: #1b6b3a; --good-back: #eaf6ee; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa7b8; --line: #323c49; --back: #12161c;
  --card: #1a2029; --act: #6cb2f5; --on-act: #0b1420; --bad: #ff9b9b; --bad-back: #3a1d20; --good: #8fd6a8;
  --good-back: #16301f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
header, main { max-width: 58rem; margin: 0 auto; padding: 1rem 1.25rem; }
header { display: flex; align-items: center; gap: .75rem; flex-wrap: wrap; }
header strong { font-size: 1.15rem; margin-right: auto; }
h1, h2 { font-size: 1.4rem; margin: 0 0 .75rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 1.25rem;
  margin-bottom: 1.25rem; }
.narrow { max-width: 28rem; margin: 6vh auto 0; }
.soft { color: var(--soft); } .small { font-size: .875rem; }
form { margin: 0; } label { display: block; font-weight: 600; margin-bottom: .35rem; }
input { font: inherit; color: inherit; width: 100%; padding: .55rem .7rem; border: 1px solid var(--line);
  border-radius: .5rem; background: var(--back); }
button, .button { font: inherit; font-weight: 600; border: 1px solid var(--act); border-radius: .5rem; cursor: pointer;
  padding: .5rem 1rem; background: var(--act); color: var(--on-act); text-decoration: none; display: inline-block; }
.plain { background: transparent; color: var(--act); border-color: var(--line); padding: .3rem .7rem; }
.danger { color: var(--bad); }
:focus-visible { outline: 3px solid var(--act); outline-offset: 2px; }
.row { display: flex; gap: .75rem; align-items: end; flex-wrap: wrap; } .row > div { flex: 1 1 16rem; }
.alert, .notice { border-radius: .5rem; padding: .65rem .9rem; margin: 0 0 1rem; }
.alert { background: var(--bad-back); color: var(--bad); } .notice { background: var(--good-back); color: var(--good); }
table { width: 100%; border-collapse: collapse; }
th { text-align: left; font-size: .8rem; color: var(--soft); font-weight: 600; padding: 0 .6rem .4rem 0; }
td { border-top: 1px solid var(--line); padding: .6rem .6rem .6rem 0; vertical-align: middle; }
td:first-child { overflow-wrap: anywhere; } .fit { white-space: nowrap; width: 1%; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.actions { display: flex; gap: .5rem; justify-content: flex-end; }
.empty { text-align: center; padding: 2rem 1rem; color: var(--soft); }
nav { display: flex; justify-content: space-between; margin-top: 1rem; }
@media (max-width: 40rem) { thead { display: none; } tr { display: block; border-top: 1px solid var(--line);
  padding: .6rem 0; } td { display: block; border: 0; padding: .1rem 0; width: auto; text-align: left; }
  .actions { justify-content: flex-start; margin-top: .35rem; } }
""")

_CSS_HASH: Final = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()

PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_CSS_HASH}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
}

_PAGE: Final = Markup(
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title} · securefs</title><link rel="icon" href="data:,">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><style>{css}</style></head>\n'
    "<body>{header}<main>{body}</main></body></html>\n"
)
_HEADER: Final = Markup(
    '<header><strong>securefs</strong><span class="soft">Signed in as <bdi>{principal}</bdi></span>'
    '<form method="post" action="/logout"><button class="plain">Sign out</button></form></header>\n'
)
_LOGIN: Final = Markup(
    '<section class="narrow"><h1>Sign in</h1>{alert}'
    '<form method="post" action="/login"><label for="token">Access token</label>'
    '<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>'
    '<p><button>Sign in</button></p></form><p class="soft small">Files are encrypted before they are stored. '
    "Ask the operator of this server for a token.</p></section>"
)
_LIST: Final = Markup(
    '{notice}{alert}<section><h2>Upload</h2><form class="row" method="post" action="/files" enctype="multipart/form-data">'
    '<div><label for="files">Files to encrypt and store</label>'
    '<input id="files" name="files" type="file" multiple required></div><button>Upload</button></form></section>'
    "\n<section><h1>Your files</h1>{files}{more}</section>"
)
_TABLE: Final = Markup(
    '<table><thead><tr><th scope="col">Name</th><th scope="col" class="number">Size</th>'
    '<th scope="col">Stored (UTC)</th><th scope="col"><span class="soft">Actions</span></th></tr></thead>\n'
    "<tbody>{rows}</tbody></table>"
)
_ROW: Final = Markup(
    '<tr><td><bdi>{name}</bdi>{flaw}</td><td class="fit number">{size}</td>'
    '<td class="fit soft"><time datetime="{iso}">{when}</time></td><td class="fit"><div class="actions">{download}'
    '<form method="post" action="/files/{object_id}/delete">'
    '<button class="plain danger" aria-label="Delete {name}">Delete</button></form></div></td></tr>\n'
)
_DOWNLOAD: Final = Markup(
    '<a class="button plain" href="/files/{object_id}" aria-label="Download {name}">Download</a>'
)
_FLAW: Final = Markup(' <span class="danger small">cannot be opened: tell the operator of this server</span>')
_EMPTY: Final = Markup('<p class="empty">Nothing here yet. What you upload is encrypted and listed here.</p>')
_ERROR: Final = Markup(
    '<section class="narrow"><h1>{title}</h1><p class="alert" role="alert">{detail}</p>'
    '<p><a class="button" href="/">Back to your files</a></p></section>'
)
_ALERT: Final = Markup('<p class="alert" role="alert">{}</p>')
_NOTICE: Final = Markup('<p class="notice" role="status">{}</p>')


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the list. ``broken`` files can't be opened; their name is unknown."""

    object_id: str
    name: str
    type: str  # the media type that the uploader named
    size: int  # bytes of plaintext
    created: int  # seconds since the epoch
    broken: bool = False


def login_page(alert: str = "") -> str:
    """Return the sign-in page, which asks for a token."""
    return _page("Sign in", _LOGIN.format(alert=_ALERT.format(alert) if alert else ""))


def list_page(
    principal: str,
    rows: Sequence[Row],
    *,
    notice: str = "",
    alert: str = "",
    page: int = 1,
    more: bool = False,
) -> str:
    """Return the page with the upload form and the principal's files."""
    files = _TABLE.format(rows=Markup().join(_row(row) for row in rows)) if rows else _EMPTY
    body = _LIST.format(
        notice=_NOTICE.format(notice) if notice else "",
        alert=_ALERT.format(alert) if alert else "",
        files=files,
        more=_pager(page, more=more),
    )
    return _page("Your files", body, header=_HEADER.format(principal=principal))


def error_page(title: str, detail: str) -> str:
    """Return a page with an error and a link back."""
    return _page(title, _ERROR.format(title=title, detail=detail))


def harmless(name: str, replacement: str = "\ufffd") -> str:
    """Return a file name without control characters and characters that change text direction."""
    return _CONTROLS.sub(replacement, name)


def _page(title: str, body: Markup, header: Markup | str = "") -> str:
    return _PAGE.format(title=title, css=_CSS, header=header, body=body)


def _row(row: Row) -> Markup:
    stored, name = time.gmtime(row.created), harmless(row.name)
    download = "" if row.broken else _DOWNLOAD.format(object_id=row.object_id, name=name)
    return _ROW.format(
        name=name,
        flaw=_FLAW if row.broken else "",
        size=_human(row.size),
        iso=time.strftime("%Y-%m-%dT%H:%M:%SZ", stored),
        when=time.strftime("%Y-%m-%d %H:%M", stored),
        download=download,
        object_id=row.object_id,
    )


def _pager(page: int, *, more: bool) -> Markup:
    newer = Markup('<a class="button plain" href="/?page={}" rel="prev">Newer</a>').format(page - 1)
    older = Markup('<a class="button plain" href="/?page={}" rel="next">Older</a>').format(page + 1)
    if page == 1 and not more:
        return Markup()
    return Markup("<nav>{}{}</nav>").format(
        newer if page > 1 else Markup("<span></span>"), older if more else ""
    )


def _human(size: int) -> str:
    """Return a size for people, in binary units with one decimal."""
    if size < 1024:  # noqa: PLR2004  # bytes in a KiB
        return f"{size} B"
    value, units = size / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while value >= 1023.95 and len(units) > 1:  # noqa: PLR2004  # shown as 1024.0
        value, units = value / 1024, units[1:]
    return f"{value:.1f} {units[0]}"
