"""The answer to a refused request as a page, for people who see it in a browser.

It says what happened and what to do next, and leads back to where the request came from. It loads
nothing and runs nothing.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["POLICY", "page", "wants_page"]

_NEXT: Final = {
    400: "This upload was not accepted. Go back, choose the files again, and send the form anew.",
    401: "You are not signed in, or no longer. Sign in, then open this page again.",
    408: "The upload was too slow, and was ended. Try again over a faster connection, or with fewer files.",
    413: "This upload was not accepted, because it is larger than allowed. Send fewer or smaller files.",
    415: "This address takes no such upload. Go back and use the form there.",
    500: "The file was not sent, because it could not be verified. Tell the people who run this service.",
    503: "Nothing was done. Try again in a few seconds.",
    507: "There is no room at the moment. Try again later, or tell the people who run this service.",
}
_STYLE: Final = (
    "body{font:1.1rem/1.5 system-ui,sans-serif;margin:0;color:#1c1c1c;background:#fff}"
    "main{max-width:38rem;margin:12vh auto;padding:0 1.5rem}h1{font-size:1.5rem}"
    "small{color:#595959}code{overflow-wrap:anywhere}"
    "@media(prefers-color-scheme:dark){body{color:#eee;background:#1c1c1c}a{color:#9cf}small{color:#aaa}}"
)
# The one style sheet is allowed by its hash; nothing else is.
POLICY: Final = (
    "sandbox; default-src 'none'; style-src 'sha256-"
    + b64encode(sha256(_STYLE.encode("ascii")).digest()).decode("ascii")
    + "'"
)
_JSON: Final = frozenset({"application/json", "application/problem+json"})


def wants_page(environ: Mapping[str, Any]) -> bool:
    """Return whether the client names HTML, and prefers it to JSON (RFC 9110 section 12.5.1).

    Browsers do so for pages. Their scripts, images and most other clients do not.
    """
    html = json = 0.0
    for item in environ.get("HTTP_ACCEPT", "").split(","):
        name, *parameters = (word.strip().lower() for word in item.split(";"))
        weight = next(map(_weight, (word for word in parameters if word.startswith("q="))), 1.0)
        if name == "text/html":
            html = weight
        elif name in _JSON:
            json = max(json, weight)
    return 0 < html >= json


def _weight(parameter: str) -> float:
    text = parameter.removeprefix("q=")
    return float(text) if text.replace(".", "", 1).isdecimal() and text.isascii() else 0.0


def page(environ: Mapping[str, Any], status: int, title: str, detail: str | None, request: str) -> bytes:
    """Return the page for one refusal, in UTF-8.

    :param detail: what the client may be told, if anything.
    :param request: the id of the request.
    """
    told = f"<p>The rule: <code>{escape(detail)}</code></p>" if detail else ""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><main><h1>{escape(title)}</h1><p>{_NEXT[status]}</p>{told}"
        f'<p><a href="{escape(_way_back(environ))}">Go back</a></p>'
        f"<p><small>Request {escape(request)}</small></p></main></html>\n"
    ).encode()


def _way_back(environ: Mapping[str, Any]) -> str:
    """Return the path of the page that the request came from, else that of the app's start page.

    Only a page of this site counts: what a client says of other sites leads nowhere.
    """
    try:
        referrer = urlsplit(environ.get("HTTP_REFERER", ""))
    except ValueError:
        referrer = urlsplit("")
    if referrer.scheme in {"http", "https"} and referrer.netloc == environ.get("HTTP_HOST"):
        # One slash: two would name another site.
        path = "/" + referrer.path.lstrip("/\\")
        return quote(path, safe="/%:@!$&'()*+,;=~") + ("?" + referrer.query if referrer.query else "")
    return quote(environ.get("SCRIPT_NAME", "").rstrip("/").encode("latin-1")) + "/"
