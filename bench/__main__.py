"""`python -m bench`: print Markdown tables and write the same as JSON."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from . import cold_start, disk, file_level, http_level, journal, memory, range_level, rewrap, scaling, targets
from .measure import machine

SECTIONS = {
    "targets": targets.run,
    "file": file_level.run,
    "disk": disk.run,
    "http": http_level.run,
    "memory": memory.run,
    "range": range_level.run,
    "journal": journal.run,
    "rewrap": rewrap.run,
    "cold": cold_start.run,
    "scaling": scaling.run,
}
QUICK = ("targets", "range")


def main() -> None:
    """Run the sections that were asked for, and show each table as soon as it is there."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(SECTIONS)}; default: all")
    parser.add_argument(
        "--quick", action="store_true", help=f"smaller, in under a minute; default: {', '.join(QUICK)}"
    )
    parser.add_argument("--json", type=Path, help="write the results there too")
    arguments = parser.parse_args()
    for name in arguments.sections:
        if name not in SECTIONS:
            parser.error(f"unknown section {name!r}: use {', '.join(SECTIONS)}")
    setting, results, start = machine(), [], time.monotonic()
    print("Measured on", ", ".join(f"{name} {value}" for name, value in setting.items()), end="\n\n")
    for name in arguments.sections or (QUICK if arguments.quick else SECTIONS):
        begun = time.monotonic()
        for table in SECTIONS[name](arguments.quick):
            print(table.markdown(), flush=True)
            results.append({"section": name, **table.json()})
        print(f"(section {name}: {time.monotonic() - begun:.0f} s)\n", flush=True)
    print(f"All in {time.monotonic() - start:.0f} s.")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"machine": setting, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
