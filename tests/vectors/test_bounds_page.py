"""docs/bounds.md gives figures: they are computed here from the constants of the code."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from securefs import Suite
from securefs.header import FIXED_SIZE, MAX_META_SIZE, MAX_SLOT_SIZE, MAX_SLOTS
from securefs.keys import KEY_SIZE
from securefs.metadata import MAX_TEXT
from securefs.suites import COMMITMENT_SIZE, MAX_CONTEXT_SIZE, MAX_SEGMENTS, SALT_SIZE

# The page's minus and multiplication signs are those of typography.
PAGE = (
    (Path(__file__).parents[2] / "docs" / "bounds.md").read_text("utf-8").translate({0x2212: "-", 0xD7: "x"})
)
BLOCK = 16
GIB = 2**30


def row(start: str) -> list[str]:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {start}")]
    return [cell.strip() for cell in line.strip("| ").split("|")]


def exponents(cell: str) -> list[float]:
    return [float(text) for text in re.findall(r"2\^(-?[0-9.]+)", cell)]


def blocks_of(suite: Suite) -> int:
    """AES blocks of a full segment: the padding's in suite 1, the tag's in suite 2."""
    return suite.segment_size // BLOCK + 1


def bound(blocks: float, denominator: int) -> float:
    return 2 * math.log2(blocks) - denominator


@pytest.mark.parametrize(("suite", "column", "denominator"), [(Suite.CBC_HMAC, 1, 128), (Suite.GCM, 2, 129)])
def test_what_one_key_encrypts(suite, column, denominator):
    assert exponents(row("segments of a file")[column]) == [math.log2(MAX_SEGMENTS)]
    (bits,) = exponents(row("bytes of a file")[column])
    assert suite.max_size == 2**bits - 1
    assert f"({suite.max_size // 2**40 + 1} TiB)" in row("bytes of a file")[column]
    largest, gib = MAX_SEGMENTS * blocks_of(suite), GIB / suite.segment_size * blocks_of(suite)
    assert exponents(row("AES blocks under one key, largest")[column]) == [round(math.log2(largest), 1)]
    assert exponents(row("AES blocks under one key, file of")[column]) == [round(math.log2(gib), 1)]
    _, formula, *figures = row(f"telling suite {suite.value}'s")
    assert formula == f"σ² / 2^{denominator}"
    assert [exponents(figure)[0] for figure in figures] == [
        round(bound(blocks, denominator), 1) for blocks in (largest, gib)
    ]
    assert f"{blocks_of(suite):,} blocks" in PAGE


@pytest.mark.parametrize(
    ("start", "blocks", "bits"),
    [
        pytest.param("a forged segment of suite 2", Suite.GCM.segment_size // BLOCK + 1, 128, id="segment"),
        pytest.param("a forged slot", KEY_SIZE // BLOCK + 1, 128, id="slot"),
        pytest.param("forged metadata", MAX_TEXT // BLOCK + 1, 128, id="metadata"),
        pytest.param("a forged segment of suite 1", 1, 256, id="HMAC"),
    ],
)
def test_forgeries(start, blocks, bits):
    _, formula, figure = row(start)
    assert exponents(figure) == [round(math.log2(blocks) - bits, 1)]
    assert formula == (f"v x {blocks:,} / 2^{bits}" if blocks > 1 else f"v / 2^{bits}")


@pytest.mark.parametrize(
    ("start", "count", "size"),
    [
        pytest.param("two wraps", 64, 32, id="salts"),
        pytest.param("two files", 64, KEY_SIZE, id="ids"),
        pytest.param("two file keys", 20, 16, id="key ids"),
        pytest.param("one body", 64, COMMITMENT_SIZE, id="commitments"),
    ],
)
def test_birthdays(start, count, size):
    what, formula, figure = row(start)
    assert f"2^{count} " in what
    assert formula == f"n² / 2^{8 * size + 1}"
    assert exponents(figure) == [2 * count - 8 * size - 1]


def test_format_1_counts_all_files():
    for start, size in (("1 TiB", 2**40), ("1 PiB", 2**50)):
        _, blocks, figure = row(start)
        assert exponents(blocks) == [math.log2(size / BLOCK)]
        assert exponents(figure) == [bound(size / BLOCK, 128)]


def test_sizes():
    header = FIXED_SIZE + MAX_SLOTS * MAX_SLOT_SIZE + MAX_META_SIZE
    assert row("header")[1] == f"{header:,} bytes; metadata {MAX_TEXT:,}; context {MAX_CONTEXT_SIZE:,}"
    assert SALT_SIZE == 24


def test_the_question_to_the_machine_is_answered():
    (command,) = re.findall(r"```sh\n\s*(python3 .*?)\n\s*```", PAGE)
    code = re.fullmatch(r"python3 -c '(.*)'", command)[1]
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout in {"AES-NI: True\n", "AES-NI: False\n"}
