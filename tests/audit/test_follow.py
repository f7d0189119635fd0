"""A chain as it grows: whole lines once each, and what is wrong with it."""

import fcntl
import json
import os
import time

import pytest
from support.chains import CHAIN, chain_bytes
from support.journals import unprivileged

from securefs.audit import follow
from securefs.audit.fields import LONGEST_LINE
from securefs.audit.follow import EMPTY_FOR, Followed, Here, chain_names
from securefs.audit.record import Entry, Position, Source, build_line
from securefs.audit.tree import leaf_hash

HERE = Here("h", "boot-1")
START = Entry("server.start")


def lines(count, stop=False):
    entries = [START, *[Entry("file.decrypt", obj={"size": n}) for n in range(count - 1 - stop)]]
    return chain_bytes(*entries, *([Entry("server.stop")] if stop else []))


def leaves(data):
    return [leaf_hash(line) for line in data.split(b"\n")[:-1]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / f"{CHAIN}-0.jsonl"


@pytest.fixture
def chain(path):
    return Followed(CHAIN, path)


def test_names_of_chains(tmp_path):
    for name in (
        f"{CHAIN}-0.jsonl",
        f"{CHAIN}-01.jsonl",
        f"{CHAIN}-1.jsonl",
        "pseudonym.key",
        f"x{CHAIN}-0.jsonl",
        "log",
    ):
        (tmp_path / name).touch()
    assert chain_names(tmp_path) == [CHAIN]


def test_each_whole_line_is_read_once(path, chain):
    data = lines(5, stop=True)
    assert chain.read(10) == []
    for size in range(0, len(data) + 1, 7):
        path.write_bytes(data[:size])
        before = chain.count
        found = chain.read(100)
        assert found == leaves(data[:size])[before:]
    path.write_bytes(data)
    chain.read(100)
    assert (chain.count, chain.offset, chain.head) == (5, len(data), leaves(data)[-1])
    assert chain.stopped
    assert chain.read(100) == []


def test_a_limit_is_kept_and_the_rest_comes_later(path, chain, monkeypatch):
    monkeypatch.setattr(follow, "_BLOCK", 300)
    data = lines(20)
    path.write_bytes(data)
    found = []
    while some := chain.read(3):
        assert len(some) <= 3
        found += some
    assert found == leaves(data)
    assert not chain.stopped


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path, data: path.write_bytes(data[:-1]), "was cut"),
        (lambda path, data: path.unlink(), "not there any more"),
        (lambda path, data: (path.rename(path.with_name("x")), path.write_bytes(data)), "took its place"),
        (lambda path, data: (path.unlink(), path.symlink_to("x")), "symbolic link"),
        (lambda path, data: path.write_bytes(data + b"x" * (LONGEST_LINE + 1)), "longer than"),
    ],
    ids=["cut", "removed", "replaced", "link", "long"],
)
def test_what_happens_to_a_file_is_told_and_it_is_read_no_further(path, chain, change, words):
    data = lines(3)
    path.write_bytes(data)
    chain.read(10)
    change(path, data)
    assert chain.read(10) == []
    assert words in chain.tampering
    assert chain.lost
    assert chain.read(10) == []
    assert not chain.flush()
    with chain.dead(HERE) as death:
        assert death is None


def test_a_file_that_this_user_cannot_read_is_tried_again(open_folder):
    path = open_folder / f"{CHAIN}-0.jsonl"
    path.write_bytes(lines(2))
    path.chmod(0)
    chain = Followed(CHAIN, path)
    with unprivileged(open_folder):
        assert chain.read(10) == []
        assert "cannot be read: Permission denied" in chain.trouble
        assert not chain.lost
    path.chmod(0o600)
    assert len(chain.read(10)) == 2
    assert chain.trouble == ""


def test_it_catches_up_with_what_was_sealed(path, chain):
    data = lines(4)
    path.write_bytes(data)
    chain.catch_up(3, leaves(data)[2])
    assert (chain.count, chain.tampering) == (3, "")
    assert chain.read(10) == leaves(data)[3:]


@pytest.mark.parametrize(
    ("count", "words"), [(9, "it has 4 records, and 9 were sealed"), (3, "record 2 is not")]
)
def test_a_chain_that_is_shorter_or_other_than_what_was_sealed(path, chain, count, words):
    path.write_bytes(lines(4))
    chain.catch_up(count, b"x")
    assert words in chain.tampering


def test_it_resumes_where_a_line_ends_and_nowhere_else(path):
    data = lines(4)
    path.write_bytes(data)
    end = len(lines(2))
    good = Followed(CHAIN, path)
    assert good.resume(2, end, leaves(data)[1])
    assert good.read(10) == leaves(data)[2:]
    for offset, head in ((end - 1, leaves(data)[1]), (end, b"x"), (0, b""), (10**6, leaves(data)[1])):
        other = Followed(CHAIN, path)
        assert not other.resume(2, offset, head)
        assert (other.count, other.offset) == (0, 0)
    assert not Followed(CHAIN, path.parent / "none" / path.name).resume(2, end, leaves(data)[1])


def test_a_flush_that_failed_is_not_tried_again(path, chain, monkeypatch):
    """The kernel reports it once, and has given the pages up."""
    path.write_bytes(lines(2))
    chain.read(10)
    assert chain.flush()

    def fail(descriptor):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(follow, "_flush_to_disk", fail)
        assert not chain.flush()
    assert not chain.flush()
    assert chain.lost
    assert "cannot be flushed: Input/output error" in chain.trouble
    path.write_bytes(lines(3))
    assert chain.read(10) == []
    assert not chain.flush()
    assert chain.trouble


@pytest.mark.parametrize("torn", [b"", b'{"actor"'])
def test_a_writer_is_dead_if_nobody_holds_the_lock(path, chain, torn):
    path.write_bytes(lines(3) + torn)
    with path.open("rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        chain.read(10)
        with chain.dead(HERE) as death:
            assert death is None
    with chain.dead(HERE) as death:
        assert death.size == len(torn)
        with path.open("rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    chain.closed = True
    with chain.dead(HERE) as death:
        assert death is None


def test_it_is_not_dead_before_all_of_it_was_read(path, chain):
    path.write_bytes(lines(3))
    chain.read(1)
    with chain.dead(HERE) as death:
        assert death is None


def test_an_empty_file_may_be_about_to_be_locked(path, chain):
    path.touch()
    with chain.dead(HERE) as death:
        assert death is None
    old = time.time() - EMPTY_FOR - 1
    os.utime(path, (old, old))
    with chain.dead(HERE) as death:
        assert death.size == 0
    assert not chain.gone
    path.unlink()
    assert chain.gone


@pytest.mark.parametrize("boot", [None, "boot-1"], ids=["no boot id", "boot id"])
@pytest.mark.parametrize(
    ("host", "here", "same"),
    [
        pytest.param("h", "boot-2", True, id="this machine, started again"),
        pytest.param("other", "boot-1", True, id="another container of it"),
        pytest.param("other", "boot-2", False, id="another machine"),
    ],
)
def test_a_lock_of_another_machine_proves_nothing(path, chain, host, here, same, boot):
    """The first line says host h."""
    same = same and (host == "h" or boot is not None)
    source = Source("h", 1, "v", boot)
    path.write_bytes(build_line(Position(CHAIN), source, 0, START))
    chain.read(10)
    for _ in range(2):
        with chain.dead(Here(host, here)) as death:
            assert (death is not None) == same
    assert chain.foreign == ("" if same else "h")
    if same:
        assert death.boot == (boot or "")


def test_a_first_line_of_version_1_names_its_host(path, chain):
    record = json.loads(lines(1))
    record["v"], record["src"] = 1, {"host": "old", "pid": 1, "version": "0"}
    del record["host"]
    path.write_bytes(json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    chain.read(10)
    with chain.dead(HERE) as death:
        assert death is None
    assert chain.foreign == "old"


@pytest.mark.parametrize("data", [b"no record\n", b"{}\n", b'{"actor":', b"x"])
def test_a_first_line_that_says_nothing(path, chain, data):
    path.write_bytes(data)
    chain.read(10)
    with chain.dead(HERE) as death:
        assert death.size == (0 if data.endswith(b"\n") else len(data))
    assert chain.foreign == ""


def test_what_was_sealed_of_a_file_that_cannot_be_read_now_is_read_over_later(open_folder):
    path = open_folder / f"{CHAIN}-0.jsonl"
    data = lines(5)
    path.write_bytes(data)
    path.chmod(0)
    chain = Followed(CHAIN, path)
    with unprivileged(open_folder):
        chain.catch_up(3, leaves(data)[2])
        assert chain.read(10) == []
    assert (chain.tampering, chain.count) == ("", 0)
    path.chmod(0o600)
    assert chain.read(10) == leaves(data)[3:]
    path.chmod(0)
    chain = Followed(CHAIN, path)
    with unprivileged(open_folder):
        chain.catch_up(3, b"x")
    path.chmod(0o600)
    assert chain.read(10) == []
    assert "record 2 is not the one that was sealed" in chain.tampering
