"""`python -m bench`: print Markdown tables and write the same as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from . import file_level, http_level
from .measure import as_json, machine, table

MIB = 1024 * 1024


def main() -> None:
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", help="file, http; default: both")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer turns: under a minute")
    parser.add_argument("--json", type=Path, help="write the results there too")
    arguments = parser.parse_args()
    turns = 3 if arguments.quick else 5
    sections = {
        "file": lambda: file_level.run((32 if arguments.quick else 256) * MIB, turns),
        "http": lambda: http_level.run(
            (64 if arguments.quick else 512) * MIB, turns, 50 if arguments.quick else 300
        ),
    }
    setting = machine()
    print("Measured on", ", ".join(f"{name} {value}" for name, value in setting.items()), end="\n\n")
    results = []
    for name in arguments.sections or sections:
        if name not in sections:
            parser.error(f"unknown section {name!r}: use {' or '.join(sections)}")
        for title, rows in sections[name]().items():
            print(table(title, rows), flush=True)
            results.append(as_json(title, rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": setting, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
