"""Where lines go: a file that nobody else touches, and a stream that may stall."""

from __future__ import annotations

import errno
import itertools
import os
import pty
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from support.journals import open_descriptors

from securefs.audit.sink import PATIENCE, ChainBrokenError, FileSink, StreamSink, chain_file_name

NAME = "0123456789abcdef" * 2
BRIEF = 0.05  # seconds


@pytest.fixture
def sink(tmp_path):
    made = FileSink(tmp_path, NAME)
    made.write(b"one\n")
    made.write(b"two\n")
    yield made
    made.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / chain_file_name(NAME)


def why_not(check):
    with pytest.raises(ChainBrokenError) as caught:
        check()
    return caught.value.why


# --- a file


def test_a_file_that_nobody_else_touched_is_written_on(sink, path):
    sink.check()
    sink.write(b"three\n")
    sink.check()
    assert path.read_bytes() == b"one\ntwo\nthree\n"


@pytest.mark.parametrize(("folder", "file"), [(0o700, 0o600), (0o2750, 0o640), (0o711, 0o600)])
def test_whoever_may_list_the_folder_may_read_the_chain(tmp_path, folder, file):
    tmp_path.chmod(folder)
    before = os.umask(0o077)
    try:
        FileSink(tmp_path, NAME).close()
    finally:
        os.umask(before)
    assert (tmp_path / chain_file_name(NAME)).stat().st_mode & 0o777 == file


@pytest.mark.parametrize("size", [0, 1, 4, 7])
def test_a_file_that_was_cut_is_not_written_on(sink, path, size):
    """What follows would stand behind a gap: at a line end it would look like a chain that was edited."""
    os.truncate(path, size)
    assert why_not(sink.check) == "truncated"


@pytest.mark.parametrize("data", [b"x", b"three\n", b"\0" * 5000])
def test_a_file_that_others_appended_to_is_not_written_on(sink, path, data):
    with path.open("ab") as file:
        file.write(data)
    assert why_not(sink.check) == "appended"


def test_a_file_that_was_cut_and_filled_up_to_the_same_length_is_left_to_the_verifier(sink, path):
    """The size tells nothing of the contents: the next line's hash does."""
    path.write_bytes(b"one\nTWO\n")
    sink.check()


def test_a_file_that_is_closed_and_gone_cannot_be_seen(sink, path):
    path.unlink()
    os.close(sink._fd)
    with pytest.raises(ChainBrokenError) as caught:
        sink.check()
    assert (caught.value.why, caught.value.error) == ("moved", "EBADF")
    sink._close.detach()


def test_a_file_that_cannot_be_locked_or_named_is_closed(tmp_path, monkeypatch):
    """Nobody else would close it: the chain that it was for was never made."""

    def fail(*_):
        raise OSError(errno.EIO, "a broken disk")

    before = len(list(Path("/dev/fd").iterdir()))
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ChainBrokenError):
        FileSink(tmp_path, NAME)
    assert len(list(Path("/dev/fd").iterdir())) == before
    assert list(tmp_path.iterdir()) == []


# --- a stream


@pytest.fixture(params=["pipe", "socket", "terminal"])
def stream(request):
    """Yield (our end, the end of a reader that takes nothing yet)."""
    if request.param == "pipe":
        reader, writer = os.pipe()
    elif request.param == "socket":
        reader, writer = (end.detach() for end in socket.socketpair())
    else:
        reader, writer = pty.openpty()
    yield writer, reader
    os.close(writer)
    os.close(reader)


def stall(sink):
    """Write until nothing more is taken, and return how many lines were."""
    lines = itertools.count()
    assert why_not(lambda: [sink.write(b"x" * 99 + b"\n") for _ in lines]) == "stalled"
    return next(lines) - 1


def test_a_reader_that_stalls_costs_a_deadline_and_not_the_worker(stream):
    writer, _ = stream
    sink = StreamSink(writer, patience=BRIEF)
    assert stall(sink) > 10
    assert why_not(sink.check) == "stalled"


def test_nobody_waits_for_a_reader_that_is_known_to_stall(stream):
    """Each thread of a worker would wait in turn, for as long."""
    writer, _ = stream
    sink = StreamSink(writer, patience=BRIEF)
    stall(sink)
    sink._patience = 3600.0
    assert why_not(lambda: sink.write(b"next\n")) == "stalled"


def test_a_reader_that_returns_is_waited_for_again(stream):
    writer, reader = stream
    sink = StreamSink(writer, patience=BRIEF)
    lines = stall(sink)
    os.set_blocking(reader, False)
    got = drained(reader)
    sink.check()
    sink.write(b"next\n")
    got += drained(reader)
    assert got.replace(b"\r", b"").startswith((b"x" * 99 + b"\n") * lines)
    assert got.replace(b"\r", b"").endswith(b"\nnext\n"), "after a torn line, a line of its own"
    assert sink._at_hand == BRIEF


def drained(reader):
    data = b""
    while True:
        try:
            data += os.read(reader, 1 << 20)
        except BlockingIOError:
            return data


def test_a_slow_reader_is_waited_for(stream):
    writer, reader = stream
    sink = StreamSink(writer, patience=60)
    line, taken = b"x" * 999 + b"\n", []

    def read():
        while sum(map(len, taken)) < 300 * len(line):
            taken.append(os.read(reader, 5000).replace(b"\r", b""))

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(300):
        sink.write(line)
    thread.join()
    assert b"".join(taken) == line * 300


def test_a_stream_stays_as_it_is_for_others(stream):
    """Not blocking belongs to the open file, and a shell may share it."""
    writer, _ = stream
    StreamSink(writer).write(b"line\n")
    assert os.get_blocking(writer)


def test_what_the_descriptor_leads_to_may_change(stream):
    writer, reader = stream
    sink = StreamSink(writer)
    sink.write(b"one\n")
    other_reader, other = os.pipe()
    os.dup2(other, writer)
    sink.write(b"two\n")
    assert os.read(reader, 100).replace(b"\r", b"") == b"one\n"
    assert os.read(other_reader, 100) == b"two\n"
    os.close(other)
    os.close(other_reader)


def test_a_stream_leaves_no_descriptor_behind(stream):
    before = open_descriptors()
    sink = StreamSink(stream[0])
    sink.write(b"line\n")
    del sink
    assert open_descriptors() == before


def test_a_stream_that_may_not_be_opened_again_is_written_to_as_it_is(monkeypatch):
    reader, writer = os.pipe()

    def refuse(*_):
        raise PermissionError(errno.EACCES, "another user's")

    monkeypatch.setattr("securefs.audit.sink.os.open", refuse)
    sink = StreamSink(writer, patience=BRIEF)
    sink.write(b"line\n")
    assert os.read(reader, 100) == b"line\n"
    # A line fits while the system says so.
    assert why_not(lambda: [sink.write(b"x" * 4095 + b"\n") for _ in range(1000)]) == "stalled"
    os.close(reader)
    os.close(writer)


def test_a_stream_that_nobody_reads_any_more_fails_at_once():
    reader, writer = os.pipe()
    os.close(reader)
    sink = StreamSink(writer, patience=3600)
    with pytest.raises(ChainBrokenError) as caught:
        sink.write(b"line\n")
    assert (caught.value.why, caught.value.error) == ("write_failed", "EPIPE")
    os.close(writer)


def test_another_process_may_be_faster(monkeypatch):
    """The pipe was ready, and is full when the line comes."""
    reader, writer = os.pipe()
    sink = StreamSink(writer, patience=BRIEF)
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"x")
    monkeypatch.setattr(sink, "_is_ready", lambda timeout, left=[True, True]: left and left.pop())
    assert why_not(lambda: sink.write(b"line\n")) == "stalled"
    os.close(reader)
    os.close(writer)


def test_only_a_log_on_the_same_stream_is_stalled(stream):
    writer, _ = stream
    sink = StreamSink(writer, patience=BRIEF)
    assert not sink.stalls(writer), "nothing was written"
    stall(sink)
    other = os.open("/dev/null", os.O_WRONLY)
    assert sink.stalls(writer)
    assert not sink.stalls(other)
    os.close(other)
    assert not sink.stalls(other)


def test_a_regular_file_is_a_stream_too(tmp_path):
    with (tmp_path / "log").open("wb") as file:
        sink = StreamSink(file.fileno())
        sink.write(b"one\n")
        sink.check()
        sink.write(b"two\n")
        sink.flush()
        sink.close()
    assert (tmp_path / "log").read_bytes() == b"one\ntwo\n"


def test_the_patience_is_what_the_documentation_says():
    assert PATIENCE == 2.0


def test_stream_puts_the_line_after_a_torn_one_on_its_own_line():
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    try:
        sink = StreamSink(write_end, patience=0.05)
        sink.check()
        sink.flush()
        with pytest.raises(ChainBrokenError) as caught:
            sink.write(b"x" * 200_000)
        assert caught.value.why == "stalled"
        torn = os.read(read_end, 300_000)
        sink.write(b"next\n")
        sink.write(b"last\n")
        sink.close()
        assert torn == b"x" * len(torn)
        assert os.read(read_end, 100) == b"\nnext\nlast\n"
    finally:
        os.close(read_end)
        os.close(write_end)


def test_closed_stream():
    read_end, write_end = os.pipe()
    os.close(read_end)
    os.close(write_end)
    with pytest.raises(ChainBrokenError) as caught:
        StreamSink(write_end).check()
    assert caught.value.error == "EBADF"
