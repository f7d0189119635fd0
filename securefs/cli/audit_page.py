"""``securefs audit page``: the page with which an auditor verifies a journal in a browser."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from securefs.cli.terminal import DONE, STREAM, open_target

if TYPE_CHECKING:
    import argparse

__all__ = ["page"]


def page(_arguments: argparse.Namespace) -> int:
    """Print the page, byte for byte as it was released."""
    with open_target(STREAM, force=False) as output:
        output.write(resources.files("securefs.audit").joinpath("verify.html").read_bytes())
    return DONE
