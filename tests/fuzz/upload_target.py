"""The libFuzzer target: what atheris runs, with libFuzzer's own arguments. `make fuzz` starts it by way of campaign.py."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import atheris

TESTS = Path(__file__).resolve().parents[1]
# The repository first: tests/securefs is a folder of tests that Python would else take for the
# package.
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

# The boundary alone: coverage of the ciphers would lead nowhere, and slow down.
with atheris.instrument_imports(include=["securefs.middleware"]):
    from fuzz.upload_property import check


def test_one_input(data: bytes) -> None:
    check(data)


if __name__ == "__main__":
    logging.getLogger("securefs").setLevel(logging.CRITICAL)
    # To merge, libFuzzer starts itself anew by its first argument.
    atheris.Setup([f"{sys.executable} {__file__}", *sys.argv[1:]], test_one_input)
    atheris.Fuzz()
