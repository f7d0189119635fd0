"""A chain in several files: written, read as one, compressed, and what the verifier says of changes."""

import gzip
import json
import os

import pytest
from support.days import three_days
from support.journals import start_script

from securefs.audit import Entry, Journal, verify_journal
from securefs.audit import chain as chain_module
from securefs.audit.chain import MAX_SIZE
from securefs.audit.compress import compress_journal
from securefs.audit.record import NO_LINE, line_hash
from securefs.audit.segments import LONGEST_FILE, Begin, begin_of, find_chains
from securefs.audit.sink import chain_file_name
from securefs.errors import JournalError

USE = Entry("key.use")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "j"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def codes(folder):
    return {finding.code for finding in verify_journal(folder).findings}


def test_a_chain_goes_on_in_another_file_at_midnight(folder, clock):
    paths = three_days(folder, clock)
    chain = paths[0].name[:32]
    assert [path.name for path in paths] == [chain_file_name(chain, number) for number in range(3)]
    records = [record for path in paths for record in lines(path)]
    assert [record["seq"] for record in records] == list(range(len(records)))
    before = paths[0].read_bytes().splitlines()[-1]
    first = lines(paths[1])[0]
    assert (first["event"], first["prev"]) == ("audit.segment", line_hash(before))
    assert first["obj"] == {
        "segment": 1,
        "start": paths[0].stat().st_size,
        "names": "clear",
        "sync": "buffered",
        "on_failure": "closed",
    }
    report = verify_journal(folder)
    assert (report.intact, report.torn, len(report.chains)) == (True, (), 1)
    assert report.records == len(records)
    assert report.chains[0].ended


def test_a_chain_goes_on_in_another_file_before_it_is_too_large(folder, monkeypatch):
    monkeypatch.setattr(chain_module, "MAX_SIZE", 70_000)
    journal = Journal(folder, names="clear")
    for _ in range(200):
        journal.record(Entry("file.encrypt", obj={"name": "n" * 200}))
    journal.close()
    paths = list(folder.glob("*.jsonl"))
    assert len(paths) > 5
    assert all(path.stat().st_size <= 70_000 for path in paths)
    assert verify_journal(folder).intact


def test_no_file_is_longer_than_what_is_unpacked():
    assert MAX_SIZE <= LONGEST_FILE


def test_a_bad_entry_at_midnight_is_refused_before_anything_is_written(folder, clock):
    journal = Journal(folder, names="clear")
    journal.record(USE)
    clock(1)
    with pytest.raises(ValueError, match="unknown or of a wrong type"):
        journal.record(Entry("file.encrypt", obj={"size": -1}))
    assert len(list(folder.glob("*.jsonl"))) == 1
    journal.record(USE)
    journal.close()
    assert verify_journal(folder).intact


def test_a_stream_has_no_files(tmp_path, clock):
    with (tmp_path / "log").open("wb") as stream:
        journal = Journal(stream=stream)
        journal.record(USE)
        clock(1)
        journal.record(USE)
        journal.close()
    assert [record["event"] for record in lines(tmp_path / "log")] == [
        "server.start",
        "key.use",
        "key.use",
        "server.stop",
    ]


def test_a_next_file_that_cannot_be_made_abandons_the_chain(folder, clock):
    journal = Journal(folder, names="clear")
    journal.record(USE)
    (path,) = folder.glob("*.jsonl")
    path.with_name(chain_file_name(path.name[:32], 1)).mkdir()
    clock(1)
    with pytest.raises(JournalError, match="cannot open a new file"):
        journal.record(USE)
    path.with_name(chain_file_name(path.name[:32], 1)).rmdir()
    journal.record(USE)
    journal.close()
    starts = [lines(found)[0]["obj"] for found in folder.glob("*.jsonl")]
    assert [obj["why"] for obj in starts if "why" in obj] == ["open_failed"]
    assert verify_journal(folder).intact


def test_first_record_that_cannot_be_written_leaves_no_empty_file(folder, clock, monkeypatch):
    """The old file stays as it was, and is let go; a new chain says why."""
    journal = Journal(folder, names="clear")
    journal.record(USE)
    clock(1)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(JournalError, match="No space left"):
        journal.record(USE)
    monkeypatch.setattr(os, "write", write)
    assert len(list(folder.glob("*.jsonl"))) == 1
    journal.record(USE)
    journal.close()
    assert verify_journal(folder).intact


def test_a_file_that_was_removed_at_midnight_is_noticed(folder, clock):
    journal = Journal(folder, names="clear")
    journal.record(USE)
    next(folder.glob("*.jsonl")).unlink()
    clock(1)
    with pytest.raises(JournalError, match="was removed while it was open"):
        journal.record(USE)
    journal.close()


def test_one_of_the_files_is_locked_as_long_as_the_writer_lives(folder, clock):
    paths, journal = three_days(folder, clock, stop=False)
    report = verify_journal(folder)
    assert report.intact
    assert report.chains[0].live
    # Closed files may be moved about as anybody likes: the writer does not look at them.
    paths[0].rename(folder.parent / "elsewhere")
    journal.record(USE)
    (folder.parent / "elsewhere").rename(paths[0])
    paths[-1].rename(folder.parent / "elsewhere")
    with pytest.raises(JournalError, match="was renamed"):
        journal.record(USE)
    journal.close()


@pytest.mark.parametrize("last", [b"", b'{"half'])
def test_a_crash_between_two_files(folder, clock, last):
    """An empty next file is nothing; half a record in it is a torn tail."""
    paths = three_days(folder, clock)
    chain = paths[0].name[:32]
    kept = paths[2].read_bytes().splitlines(keepends=True)[:-1]
    paths[2].write_bytes(b"".join(kept))
    paths[2].with_name(chain_file_name(chain, 3)).write_bytes(last)
    report = verify_journal(folder)
    assert report.intact
    assert [torn.size for torn in report.torn] == ([len(last)] if last else [])
    assert report.exit_code == (4 if last else 3)


def test_a_writer_that_is_killed_after_each_step(tmp_path):
    code = """
import os, sys, time
from securefs.audit import Entry, Journal, chain
from securefs.audit.sink import FileSink
from pathlib import Path
chain.MAX_SIZE = 66_500
step = int(sys.argv[2])
calls = 0
def counted(name, real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == step:
            os.kill(os.getpid(), 9)
        return real(*args, **kwargs)
    return call
journal = Journal(sys.argv[1], names="clear")
journal.record(Entry("key.use"))
for owner, name in ((os, "open"), (os, "write"), (os, "close"), (os, "fdatasync"), (os, "fsync")):
    setattr(owner, name, counted(name, getattr(owner, name)))
for _ in range(10):
    journal.record(Entry("key.use"))
"""

    killed = 0
    for step in range(1, 16):
        folder = tmp_path / str(step)
        process = start_script(code, folder, step, measured=False)
        process.communicate(timeout=60)
        killed += process.returncode == -9
        report = verify_journal(folder)
        assert report.intact, (step, report.findings)
        assert report.torn == ()
    assert killed >= 10


def _swap(paths):
    first, second = paths[1].read_bytes(), paths[2].read_bytes()
    paths[1].write_bytes(second)
    paths[2].write_bytes(first)


def _rechain(paths):
    record = lines(paths[1])[0]
    record["obj"]["start"] += 1
    rest = paths[1].read_bytes().split(b"\n", 1)[1]
    line = json.dumps(record, sort_keys=True, separators=(",", ":")).encode()
    paths[1].write_bytes(line + b"\n" + rest)


def _torn(paths):
    with paths[1].open("ab") as file:
        file.write(b"x")


def _long(paths):
    with paths[1].open("ab") as file:
        file.write(b"x" * 200_000)


def _joined(paths):
    paths[1].write_bytes(paths[1].read_bytes() + paths[2].read_bytes())
    paths[2].unlink()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(
            lambda paths: paths[1].unlink(), {"segment", "sequence", "link"}, id="middle-is-missing"
        ),
        pytest.param(lambda paths: paths[0].unlink(), {"segment"}, id="first-is-missing"),
        pytest.param(_swap, {"segment"}, id="swapped"),
        pytest.param(_rechain, {"segment", "link"}, id="other-start"),
        pytest.param(_torn, {"segment"}, id="torn-in-the-middle"),
        pytest.param(_long, {"segment"}, id="long-in-the-middle"),
        pytest.param(_joined, {"segment"}, id="joined"),
        pytest.param(lambda paths: paths[1].write_bytes(b""), {"segment"}, id="emptied"),
        pytest.param(lambda paths: paths[1].write_bytes(b"x\n"), {"segment", "not_json"}, id="overwritten"),
        pytest.param(
            lambda paths: paths[2].write_bytes(b"".join(paths[2].read_bytes().splitlines(keepends=True)[1:])),
            {"segment", "sequence"},
            id="link-is-missing",
        ),
    ],
)
def test_changes_of_files_are_found(folder, clock, change, expected):
    paths = three_days(folder, clock)
    change(paths)
    assert codes(folder) >= expected


def test_findings_name_the_file_and_the_byte_in_it(folder, clock):
    paths = three_days(folder, clock)
    data = paths[1].read_bytes()
    second = data.index(b"\n") + 1
    third = data.index(b"\n", second) + 1
    paths[1].write_bytes(data[:second] + data[second:].replace(b'"sev":1', b'"sev":2', 1))
    (finding,) = verify_journal(folder).findings
    assert (finding.code, finding.file, finding.offset) == ("link", paths[1].name, third)


def _bomb(path):
    with gzip.open(path, "wb") as file:
        for _ in range(LONGEST_FILE // 2**20 + 1):
            file.write(bytes(2**20))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-9]), "can't be unpacked", id="cut"),
        pytest.param(lambda path: path.write_bytes(b"x" * 99), "can't be unpacked", id="no-gzip"),
        pytest.param(_bomb, f"more than {LONGEST_FILE} bytes", id="bomb"),
    ],
)
def test_compressed_files_that_are_damaged(folder, clock, change, message):
    paths = three_days(folder, clock)
    list(compress_journal(folder))
    change(paths[1].with_name(f"{paths[1].name}.gz"))
    assert any(message in finding.message for finding in verify_journal(folder).findings)


def test_bytes_are_numbered_over_all_files(folder, clock):
    paths = three_days(folder, clock)
    whole = b"".join(path.read_bytes() for path in paths)
    for packed in (False, True):
        if packed:
            list(compress_journal(folder))
        (files,) = find_chains(folder).values()
        assert files.size() == len(whole)
        with files.open() as file:
            assert file.read() == whole
            for offset in (0, 7, paths[0].stat().st_size if not packed else 9, len(whole) - 5, len(whole)):
                assert file.seek(offset) == offset
                assert file.read() == whole[offset:]
            with pytest.raises(OSError, match="a byte that is known"):
                file.raw.seek(0, os.SEEK_END)


def test_where_files_begin(folder, clock):
    paths = three_days(folder, clock)
    (files,) = find_chains(folder).values()
    count = len(paths[0].read_bytes().splitlines())
    head = line_hash(paths[0].read_bytes().splitlines()[-1])
    assert files.begins[:2] == [Begin(0, 0, NO_LINE), Begin(count, paths[0].stat().st_size, head)]
    for data in (b"", b"{}\n", b"x\n", b"y" * 300_000, paths[2].read_bytes(), paths[0].read_bytes()):
        paths[1].write_bytes(data)
        assert begin_of(files.segments[1]) is None
    # A file that says nothing of itself is not believed, and neither are those after it.
    (files,) = find_chains(folder).values()
    assert files.size() == paths[0].stat().st_size


def test_files_that_vanish_end_the_reading(folder, clock):
    paths = three_days(folder, clock)
    (files,) = find_chains(folder).values()
    sizes = [path.stat().st_size for path in paths]
    paths[2].unlink()
    assert files.size() == sum(sizes[:2])
    with files.open() as file:
        assert len(file.read()) == sum(sizes[:2])
    paths[1].unlink()
    paths[1].mkdir()
    with files.open() as file:
        assert len(file.read()) == sizes[0]
