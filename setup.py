"""The one part of the metadata that is computed: what a package index shows of README.md.

All else is in pyproject.toml. An index shows the page alone, so a link to another file of the
project leads nowhere there: its target is spelled out instead.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

_CODE = re.compile(r"(```.*?```)", re.DOTALL)
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?://)([^)]+)\)")
_NOTE = "\n\nFiles that this page names, such as `docs/format.md`, are in the source distribution.\n"


def _spelled(link: re.Match[str]) -> str:
    text, target = link.groups()
    return f"`{target}`" if text.strip("`") == target else f"{text} (`{target}`)"


def _description(readme: str) -> str:
    # Of the pieces, every second one is code, where brackets and parentheses are no link.
    pieces = _CODE.split(readme)
    pieces[::2] = [_LINK.sub(_spelled, piece) for piece in pieces[::2]]
    return "".join(pieces).rstrip() + _NOTE


setup(
    long_description=_description(Path(__file__).with_name("README.md").read_text("utf-8")),
    long_description_content_type="text/markdown",
)
