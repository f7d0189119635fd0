"""``securefs audit compress``: the files of a journal that are never written again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securefs.audit.compress import compress_journal
from securefs.cli.terminal import DONE, FINDING, complain, say

if TYPE_CHECKING:
    import argparse

__all__ = ["compress"]


def compress(arguments: argparse.Namespace) -> int:
    """Compress the closed files of a journal; 1 if one of them could not be."""
    failed = 0
    for packed in compress_journal(arguments.directory, dry_run=arguments.dry_run):
        if packed.trouble:
            failed += 1
            complain(f"{packed.file}: not compressed: {packed.trouble}")
        elif arguments.dry_run:
            say(f"would be compressed: {packed.file}: {packed.size} bytes")
        else:
            say(f"compressed: {packed.file}: {packed.size} bytes, now {packed.packed}")
    return FINDING if failed else DONE
