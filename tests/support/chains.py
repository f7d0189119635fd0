"""Chains of the journal made by hand."""

from securefs.audit.record import Position, Source, build_line, line_hash

CHAIN = "0123456789abcdef" * 2
SOURCE = Source("h", 1, "v")


def chain_bytes(*entries, chain=CHAIN):
    """Lines that are linked as a writer links them, whatever they say."""
    position, data = Position(chain), b""
    for entry in entries:
        line = build_line(position, SOURCE, 0, entry)
        data += line
        position = Position(chain, position.seq + 1, line_hash(line[:-1]))
    return data
