"""``securefs inspect``: show the header of a Format 2 file; no key, no verification."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securefs.cli.terminal import DONE, open_source, reading, regular_size, say, say_json
from securefs.header import FIXED_SIZE, KIND_NAMES, header_length, parse_header

if TYPE_CHECKING:
    import argparse

    from securefs.header import Header

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Print the header of a Format 2 file. Without a key, nothing of it is verified."""
    with open_source(arguments.file) as file, reading(file, arguments.file) as source:
        start = source.read(FIXED_SIZE)
        start += source.read(header_length(start) - len(start))
        size = regular_size(file)
    header = parse_header(start)
    document: dict[str, object] = {
        "format": 2,
        "suite": header.suite.label,
        "object_id": header.object_id,
        "header_size": header.length,
        "sealed_metadata_size": len(header.sealed_metadata),
        "slots": [
            {"kind": KIND_NAMES[slot.kind], "generation": slot.generation, "key_id": slot.key_id.hex()}
            for slot in header.slots
        ],
        "free_slots": header.slot_count - len(header.slots),
    }
    if size is not None:
        document |= _sizes(header, size)
    if arguments.json:
        say_json(document)
        return DONE
    _say(document)
    say("not verified: this is what the header says; securefs verify tells whether it is true")
    return DONE


def _say(document: dict[str, object]) -> None:
    for key, value in document.items():
        for item in value if isinstance(value, list) else [value]:
            text = (
                ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in item.items())
                if isinstance(item, dict)
                else item
            )
            say(f"{key.replace('_', ' ')}: {text}")


def _sizes(header: Header, length: int) -> dict[str, object]:
    """Return the file's size, and the plaintext's as far as it follows from it.

    Suite 1 pads, so the plaintext's size is known to within one block.
    """
    if not header.may_be_whole(length):
        return {"file_size": length, "plaintext_size": "unknown: the file was cut or extended"}
    least, most = header.plaintext_bounds(length)
    return {"file_size": length, "plaintext_size": most if most == least else f"{least} to {most}"}
