from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import shutil
import sys
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import openpyxl
import pypdf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.fuzzing import examples
from support.sealing import (
    PRIMITIVES,
    RING,
    pattern,
    seal,
    seal_1,
)

from securefs import (
    ConfigurationError,
    FormatError,
    Reason,
    Suite,
    open_encrypted,
    verify,
)
from securefs.reader import BUFFER_SIZE

SIZE = 3 * 65_536 + 1234
PLAIN = pattern(SIZE)
FILES = {
    "suite-1": (seal(PLAIN, Suite.CBC_HMAC), False),
    "suite-2": (seal(PLAIN, Suite.GCM), False),
    "format-1": (seal_1(PLAIN), True),
}
KINDS = [pytest.param(name, id=name) for name in FILES]


def opened(name: str, source=io.BytesIO, **options):
    data, format_1 = FILES[name]
    return open_encrypted(source(data), RING, format_1=format_1, **options)


OFFSETS = st.one_of(
    st.integers(0, SIZE + 10),
    st.builds(lambda block, shift: max(0, block * 16_384 + shift), st.integers(0, 13), st.integers(-2, 2)),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("seek"), OFFSETS),
        st.tuples(st.just("forward"), st.integers(0, 70_000)),
        st.tuples(st.just("from end"), st.integers(0, SIZE)),
        st.tuples(st.just("read"), st.one_of(st.integers(-1, 200_000), st.none())),
        st.tuples(st.just("read1"), st.integers(1, 100_000)),
        st.tuples(st.just("readinto"), st.integers(0, 100_000)),
        st.tuples(st.just("readline"), st.integers(-1, 300)),
        st.tuples(st.just("next"), st.none()),
        st.tuples(st.just("peek"), st.integers(0, 100_000)),
    ),
    max_size=12,
)


def apply(file, action: str, value):
    if action == "seek":
        return file.seek(value)
    if action == "forward":
        return file.seek(value, os.SEEK_CUR)
    if action == "from end":
        return file.seek(-value, os.SEEK_END)
    if action == "next":
        return next(file, b"")
    if action == "readinto":
        buffer = bytearray(value)
        return file.readinto(buffer), bytes(buffer)
    return getattr(file, action)(value)


@pytest.mark.parametrize("name", KINDS)
@examples(60)
@given(steps=STEPS)
def test_it_reads_as_an_ordinary_file_of_the_plaintext_would(name, steps):
    with opened(name) as file, io.BytesIO(PLAIN) as plain:
        for action, value in steps:
            if action == "peek":
                at = plain.tell()
                got = file.peek(value)
                assert got == PLAIN[at : at + len(got)]
                assert bool(got) == (at < SIZE)
                continue
            got, wanted = apply(file, action, value), apply(plain, action, value)
            if action == "read1":
                # BytesIO gives all at once; a file may give less, though never nothing before the
                # end.
                assert wanted.startswith(got)
                assert bool(got) == bool(wanted)
                plain.seek(file.tell())
            else:
                assert got == wanted
            assert file.tell() == plain.tell()


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("primitives", PRIMITIVES)
def test_the_whole_is_read_in_any_pieces(name, primitives):
    for size in (4096, 65_536, 100_000, SIZE, SIZE + 1):
        with opened(name, primitives=primitives) as file:
            assert b"".join(iter(partial(file.read, size), b"")) == PLAIN
            assert file.read() == b""


@pytest.mark.parametrize("name", KINDS)
def test_it_is_a_buffered_read_only_seekable_file(name):
    with opened(name) as file:
        assert isinstance(file, io.BufferedReader)
        assert file.readable()
        assert file.seekable()
        assert not file.writable()
        for action in (lambda: file.write(b"x"), lambda: file.truncate(0), file.fileno, file.detach):
            with pytest.raises(io.UnsupportedOperation):
                action()
        with pytest.raises(ValueError, match="negative seek position"):
            file.seek(-1)
        with pytest.raises(ValueError, match="whence"):
            file.seek(0, 9)
        with pytest.raises(ValueError, match="invalid whence"):
            file.raw.seek(0, 9)
        assert file.read(0) == b""
        assert file.read1() == PLAIN[: min(file.block_size, BUFFER_SIZE)]


@pytest.mark.parametrize("name", KINDS)
def test_closing_closes_it_and_not_what_it_was_given(name):
    data, format_1 = FILES[name]
    with io.BytesIO(data) as source:
        file = open_encrypted(source, RING, format_1=format_1)
        assert (file.closed, file.raw.closed) == (False, False)
        file.close()
        file.close()
        assert (file.closed, file.raw.closed, source.closed) == (True, True, False)
        for action in (file.read, file.tell, lambda: file.seek(0), lambda: file.read1(1)):
            with pytest.raises(ValueError, match="closed file"):
                action()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_path_is_opened_and_closed(name, kind, tmp_path):
    data, format_1 = FILES[name]
    (tmp_path / "file").write_bytes(data)
    before = open_files()
    with open_encrypted(kind(tmp_path / "file"), RING, format_1=format_1) as file:
        assert file.read() == PLAIN
    assert open_files() == before


@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_nobody_closes_is_closed_when_it_is_gone(name, tmp_path):
    data, format_1 = FILES[name]
    (tmp_path / "file").write_bytes(data)
    before = open_files()
    file = open_encrypted(tmp_path / "file", RING, format_1=format_1)
    assert open_files() == before + 1
    del file
    assert open_files() == before


def test_a_path_that_does_not_open_leaves_no_file_open(tmp_path):
    (tmp_path / "file").write_bytes(b"not encrypted")
    before = open_files()
    with pytest.raises(FormatError):
        open_encrypted(tmp_path / "file", RING)
    assert open_files() == before


def test_a_missing_path_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_encrypted(tmp_path / "none", RING)


class Trickle(io.BytesIO):
    """A source whose reads are short, as those of raw files and sockets may be."""

    def read(self, size=-1, /):
        return super().read(min(size, 700) if size >= 0 else 700)


@pytest.mark.parametrize("name", KINDS)
def test_short_reads_of_the_source_are_filled_up(name):
    with opened(name, Trickle) as file:
        assert file.read() == PLAIN
        file.check()


def test_a_file_without_planted_slots_has_none_to_tell_of():
    for name in FILES:
        assert opened(name).passed_over == ()


@pytest.mark.parametrize("magic", [False, True])
def test_a_context_is_refused_where_it_would_be_ignored(magic):
    """Whatever the file turns out to be: the answer does not depend on who wrote it."""
    data = seal(PLAIN, context=b"tenant") if magic else seal_1(PLAIN)
    for action in (open_encrypted, verify):
        with pytest.raises(ConfigurationError, match="bound to no context"):
            action(io.BytesIO(data), RING, b"tenant", format_1=True)
    with open_encrypted(io.BytesIO(data), RING, b"tenant", format_1=True, unbound_format_1=True) as file:
        assert file.read() == PLAIN


def test_reading_starts_at_the_beginning_wherever_the_source_stands():
    with io.BytesIO(FILES["suite-1"][0]) as source:
        source.seek(1000)
        assert open_encrypted(source, RING).read(10) == PLAIN[:10]


@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_source_shorter_than_the_magic_is_not_encrypted(length):
    with pytest.raises(FormatError) as caught:
        open_encrypted(io.BytesIO(FILES["suite-1"][0][:length]), RING)
    assert caught.value.reason is Reason.NOT_ENCRYPTED


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("size", [0, 1, 2, 1000, 2**20, 2**30, -1])
def test_read1_gives_up_to_a_block_and_nothing_where_nothing_was_asked_for(name, size):
    data, format_1 = FILES[name]
    with open_encrypted(io.BytesIO(data), RING, format_1=format_1) as file:
        for start in (0, 7):
            file.seek(start)
            got = file.read1(size)
            most = file.block_size if size < 0 else min(size, file.block_size)
            assert min(most, 1) <= len(got) <= most
            assert got == PLAIN[start : start + len(got)]
            assert file.tell() == start + len(got)
        file.seek(0, os.SEEK_END)
        assert file.read1(size) == b""


TEXT = b"a,b\n" + b"".join(b"row%07d,%d\r\n" % (number, number) for number in range(50_000))
LONG = b"a" * 200_000 + b"\n" + b"\n" * 70_000 + b"b" * 65_536 + b"\nthe last line has no end"
TEXTS = {
    f"{name} {what}": (seal_(text), format_1, text)
    for what, text in (("rows", TEXT), ("long lines", LONG), ("empty", b""))
    for name, seal_, format_1 in (
        ("suite-1", seal, False),
        ("suite-2", partial(seal, suite=Suite.GCM), False),
        ("format-1", seal_1, True),
    )
}


@pytest.mark.parametrize(("data", "format_1", "text"), TEXTS.values(), ids=TEXTS)
def test_lines_are_those_of_a_plain_file(data, format_1, text):
    lines = list(io.BytesIO(text))
    with open_encrypted(io.BytesIO(data), RING, format_1=format_1) as file:
        assert list(file) == lines
        file.seek(0)
        assert file.readlines() == lines
        file.seek(0)
        assert iter(file) is file
        # A loop that is left can be gone on with, in the same place and in another way.
        first = next(iter(file), b"")
        assert file.tell() == len(first)
        assert [line for line in (first, file.readline(), *file) if line] == lines


OURS = {f"securefs.{name}" for name in ("reader", "plaintext", "format1_reader", "format2_reader")}


def calls_of(action) -> int:
    """How many functions of the reader Python calls while ``action`` runs."""
    calls = 0

    def count(frame, event, _):
        nonlocal calls
        calls += event == "call" and frame.f_globals["__name__"] in OURS

    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith("rows")])
@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda file: sum(1 for _ in file), id="iteration"),
        pytest.param(lambda file: len(file.readlines()), id="readlines"),
        pytest.param(lambda file: len(list(iter(file.readline, b""))), id="readline"),
        pytest.param(lambda file: sum(1 for _ in io.TextIOWrapper(file, newline="")), id="TextIOWrapper"),
    ],
)
def test_a_line_costs_no_call_of_ours(name, read):
    """Python's own buffer has the lines: what is called depends on the bytes, not on the lines."""
    data, format_1, text = TEXTS[name]
    file = open_encrypted(io.BytesIO(data), RING, format_1=format_1)
    calls = calls_of(lambda: read(file))
    assert 0 < calls < 10 * (len(text) // 8192 + 2)
    assert calls < text.count(b"\n") / 20


@pytest.mark.parametrize("name", KINDS)
def test_a_size_that_no_file_has_is_the_rest(name):
    with opened(name) as file:
        assert file.read(2**62) == PLAIN
        file.seek(5)
        assert file.read(2**62) == PLAIN[5:]
        assert file.read(2**62) == b""
        file.seek(SIZE + 5)
        assert file.read(2**62) == file.read() == file.raw.readall() == b""
        file.raw.seek(7)
        assert file.raw.readall() == PLAIN[7:]


@pytest.mark.parametrize("name", KINDS)
def test_it_has_no_name_by_which_the_ciphertext_would_be_read(name, tmp_path):
    data, format_1 = FILES[name]
    (tmp_path / "file").write_bytes(data)
    with open_encrypted(tmp_path / "file", RING, format_1=format_1) as file:
        assert not hasattr(file, "name")
        assert str(tmp_path) not in repr(file)
        with pytest.raises(io.UnsupportedOperation):
            file.fileno()


def zipped() -> bytes:
    with io.BytesIO() as target:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("rows.csv", TEXT)
        return target.getvalue()


def tarred() -> bytes:
    with io.BytesIO() as target:
        with tarfile.open(fileobj=target, mode="w:gz") as archive:
            member = tarfile.TarInfo("rows.csv")
            member.size = len(TEXT)
            archive.addfile(member, io.BytesIO(TEXT))
        return target.getvalue()


def picture() -> bytes:
    with io.BytesIO() as target:
        Image.effect_noise((400, 300), 50).save(target, "PNG")
        return target.getvalue()


def workbook() -> bytes:
    with io.BytesIO() as target:
        book = openpyxl.Workbook()
        book.active.append(["a", 2])
        book.save(target)
        return target.getvalue()


def pdf() -> bytes:
    with io.BytesIO() as target:
        writer = pypdf.PdfWriter()
        writer.add_blank_page(200, 100)
        writer.write(target)
        return target.getvalue()


def copied(file) -> bytes:
    target = io.BytesIO()
    shutil.copyfileobj(file, target)
    return target.getvalue()


# What reads a file: (the bytes of one, how it is read). The plaintext gives the same.
READERS = {
    "TextIOWrapper": (TEXT, lambda file: io.TextIOWrapper(file, "utf-8").read()),
    "BufferedReader": (TEXT, lambda file: io.BufferedReader(file).read()),
    "csv": (TEXT, lambda file: list(csv.reader(io.TextIOWrapper(file, "utf-8", newline="")))),
    "codecs": (TEXT, lambda file: list(codecs.iterdecode(file, "utf-8"))),
    "shutil": (TEXT, copied),
    "zipfile": (zipped(), lambda file: zipfile.ZipFile(file).read("rows.csv")),
    "tarfile": (tarred(), lambda file: tarfile.TarFile.gzopen("", "r", file).extractfile("rows.csv").read()),
    "gzip": (gzip.compress(TEXT), lambda file: gzip.GzipFile(fileobj=file).read()),
    "Pillow": (picture(), lambda file: Image.open(file).resize((40, 30)).tobytes()),
    "openpyxl": (workbook(), lambda file: [*openpyxl.load_workbook(file).active.values]),
    "pypdf": (pdf(), lambda file: [page.mediabox[2:] for page in pypdf.PdfReader(file).pages]),
}


@pytest.mark.parametrize(("data", "read"), READERS.values(), ids=READERS)
@pytest.mark.parametrize(
    ("seal_", "format_1"),
    [
        pytest.param(seal, False, id="suite-1"),
        pytest.param(partial(seal, suite=Suite.GCM), False, id="suite-2"),
        pytest.param(seal_1, True, id="format-1"),
    ],
)
def test_what_reads_a_binary_file_reads_it(data, read, seal_, format_1):
    wanted = read(io.BytesIO(data))
    assert wanted
    assert read(open_encrypted(io.BytesIO(seal_(data)), RING, format_1=format_1)) == wanted
