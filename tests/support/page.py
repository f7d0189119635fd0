"""The page that verifies a journal in a browser: what in it follows from other files, and its hash.

Run this file after a change of the page, of :mod:`securefs.audit.events` or of the fields of a
record: it writes the lists of the page, the hashes in its policy, and its own hash beside it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "audit" / "verify.html"
HASH = ROOT / "audit" / "verify.html.sha256"  # as sha256sum writes it

_LOG_NAMES = (
    *("checkpoints", "cosignatures", "first.key", "lock", "next.key"),
    *("origin", "positions", "stable.key", "tiles", "vkey"),
)
_LISTS = re.compile(r"(const LISTS = ).*?(;\n\n/\* ---- 2\.)", re.DOTALL)
_PARTS = {
    "script": re.compile("<script>(.*?)</script>", re.DOTALL),
    "style": re.compile("<style>(.*?)</style>", re.DOTALL),
}


def lists() -> dict[str, object]:
    """Return what the page must know of the closed lists of records."""
    from securefs.audit import events, fields

    def members(made: fields.Members) -> dict[str, list[str]]:
        return {name: sorted(getattr(made, name)) for name in ("strings", "integers", "required")}

    layouts = {
        version: {
            "required": sorted(layout.required),
            "sections": {name: members(made) for name, made in sorted(layout.sections.items())},
            "texts": sorted(layout.texts.strings),
            "other": sorted(layout.other),
            "max_line": layout.max_line,
        }
        for version, layout in sorted(fields.LAYOUTS.items())
    }
    return {
        "log_names": log_names(),
        "events": sorted(events.EVENTS),
        "outcomes": sorted(events.OUTCOMES),
        "severities": list(events.SEVERITIES),
        "reasons": sorted(fields.REASONS),
        "max_string": fields.MAX_STRING,
        "short_path": fields.SHORT_PATH,
        "max_runs": fields.MAX_RUNS,
        "longest_line": fields.LONGEST_LINE,
        "layouts": layouts,
    }


def log_names() -> list[str]:
    """Return what stands in a log's folder beside chains."""
    try:
        from securefs.audit.log_files import LOG_NAMES
    except ImportError:
        return sorted(_LOG_NAMES)
    return sorted(LOG_NAMES)


def spelled(value: object, indent: str = "") -> str:
    """Return the lists as JavaScript that can be read: one line for each list of words."""
    if not isinstance(value, dict) or not any(isinstance(inner, dict | list) for inner in value.values()):
        return json.dumps(value)
    inner = "".join(
        f"{indent}  {json.dumps(str(key))}: {spelled(part, indent + '  ')},\n" for key, part in value.items()
    )
    return f"{{\n{inner}{indent}}}"


def completed(text: str) -> str:
    """Return the page with its lists and with the hashes of its script and style in its policy."""
    text = _LISTS.sub(lambda match: match[1] + spelled(lists()) + match[2], text)
    for name, part in _PARTS.items():
        (inner,) = part.findall(text)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        text = re.sub(rf"{name}-src 'sha256-[^']*'", f"{name}-src 'sha256-{digest}'", text)
    return text


def hash_line(data: bytes) -> str:
    """Return the line that names the page's hash."""
    return f"{hashlib.sha256(data).hexdigest()}  {PAGE.name}\n"


def main() -> None:
    """Write what follows from other files."""
    data = completed(PAGE.read_text("utf-8")).encode()
    PAGE.write_bytes(data)
    HASH.write_text(hash_line(data))
    print(hash_line(data), end="")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
