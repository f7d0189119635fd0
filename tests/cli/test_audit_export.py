"""securefs audit export: one line for each record, whatever else is in the folder."""

from __future__ import annotations

import gzip
import json

import pytest
from support.exports import CHAIN, OTHER, SEAL

from securefs.audit import Entry, Journal
from securefs.audit.record import Position, Source, build_line
from securefs.cli import main
from securefs.cli.audit_export import FORMATS

SOURCE = Source("files-1", 1, "0.1.0")


@pytest.fixture
def folder(tmp_path):
    """Return a journal of two chains and a log of one, each of which has one record or two."""
    folder = tmp_path / "journal"
    log = folder / "log"
    log.mkdir(parents=True, mode=0o700)
    write(folder / f"{OTHER}-0.jsonl", OTHER, 1, Entry("server.start"), Entry("file.open", actor="alice"))
    write(folder / f"{CHAIN}-0.jsonl", CHAIN, 2, Entry("server.start"))
    write(log / f"{CHAIN}-0.jsonl", CHAIN, 3, Entry("audit.seal", seal=SEAL))
    (folder / "pseudonym.key").write_bytes(b"x" * 32)
    return folder


def write(path, chain, time_ns, *entries):
    lines = [
        build_line(Position(chain, seq), SOURCE, time_ns + seq, entry) for seq, entry in enumerate(entries)
    ]
    path.write_bytes(b"".join(lines))


def export(capfd, *arguments):
    code = main(["audit", "export", *map(str, arguments)])
    out, err = capfd.readouterr()
    return code, out.splitlines(), err


@pytest.mark.parametrize("format_", FORMATS)
def test_each_record_is_one_line_in_the_order_of_the_chains_first_records(folder, capfd, format_):
    code, lines, err = export(capfd, "--format", format_, folder)
    assert (code, err) == (0, "")
    assert [
        event for line in lines for event in ("server.start", "file.open", "audit.seal") if event in line
    ] == [
        "server.start",
        "file.open",
        "server.start",
        "audit.seal",
    ]
    if format_ == "cef":
        assert all(line.startswith("CEF:0|") for line in lines)
    else:
        assert all(json.loads(line) for line in lines)


def test_what_a_server_writes_is_exported(tmp_path, capfd):
    journal = Journal(tmp_path / "journal", names="clear")
    journal.record(Entry("file.open", actor="alice", obj={"name": "a\nb"}))
    journal.close()
    code, lines, _ = export(capfd, "--format", "ecs", tmp_path / "journal")
    assert code == 0
    assert [json.loads(line)["event"]["action"] for line in lines] == [
        "server.start",
        "file.open",
        "server.stop",
    ]
    assert json.loads(lines[1])["file"] == {"name": "a\nb"}


def test_a_line_that_is_no_record_is_told_and_left_out(folder, capfd):
    with (folder / f"{OTHER}-0.jsonl").open("ab") as file:
        file.write(b"{}\n" + b"x" * 300_000 + b"\n")
    code, lines, err = export(capfd, "--format", "ocsf", folder)
    assert (code, len(lines)) == (1, 4)
    # The long one is read in pieces, and none of them is a record.
    assert "no records, and were left out: 4; run securefs audit verify" in err


def test_a_chain_that_begins_with_no_record_is_told(folder, capfd):
    (folder / f"{'e' * 32}-0.jsonl").write_bytes(b"\n")
    (folder / f"{'d' * 32}-0.jsonl").write_bytes(b"")
    code, lines, err = export(capfd, "--format", "cef", folder)
    assert (code, len(lines)) == (1, 4)
    assert "left out: 1" in err


def test_a_torn_tail_is_left_out(folder, capfd):
    with (folder / f"{OTHER}-0.jsonl").open("ab") as file:
        file.write(b'{"half')
    code, lines, err = export(capfd, "--format", "cef", folder)
    assert (code, len(lines), err) == (0, 4, "")


def test_links_are_not_followed(folder, tmp_path, capfd):
    (folder / f"{'a' * 32}-0.jsonl").symlink_to(folder / f"{OTHER}-0.jsonl")
    assert len(export(capfd, "--format", "cef", folder)[1]) == 4


def test_files_of_a_chain_are_read_in_their_order(tmp_path, capfd):
    for number in (10, 2, 1):
        write(tmp_path / f"{CHAIN}-{number}.jsonl", CHAIN, 1, Entry("file.open", obj={"size": number}))
    lines = export(capfd, "--format", "ecs", tmp_path)[1]
    assert [json.loads(line)["file"]["size"] for line in lines] == [1, 2, 10]


@pytest.mark.parametrize("way", ["option", "variable"])
def test_the_log_may_be_elsewhere(folder, tmp_path, capfd, monkeypatch, way):
    (folder / "log").rename(tmp_path / "elsewhere")
    assert len(export(capfd, "--format", "cef", folder)[1]) == 3
    options = ["--log", tmp_path / "elsewhere"] if way == "option" else []
    if way == "variable":
        monkeypatch.setenv("SECUREFS_AUDIT_LOG", str(tmp_path / "elsewhere"))
    assert len(export(capfd, "--format", "cef", *options, folder)[1]) == 4


def test_a_folder_that_is_no_journal_is_refused(tmp_path, capfd):
    code, lines, err = export(capfd, "--format", "cef", tmp_path)
    assert (code, lines) == (2, [])
    assert "there is no chain of a journal in" in err
    code, _, err = export(capfd, "--format", "cef", tmp_path / "missing")
    assert code == 2
    assert err.startswith("securefs: cannot read the journal ")
    assert err.count("\n") == 1


def test_a_format_must_be_named(capfd):
    with pytest.raises(SystemExit) as end:
        main(["audit", "export", "DIR"])
    assert end.value.code == 2
    assert "--format" in capfd.readouterr().err


def test_a_compressed_file_is_exported(folder, capfd):
    before = export(capfd, "--format", "ecs", folder)[1]
    pack(folder / f"{OTHER}-0.jsonl")
    assert export(capfd, "--format", "ecs", folder) == (0, before, "")


@pytest.mark.parametrize("records", [2, 4000])  # it is noticed at the first record, or later
def test_a_compressed_file_that_is_damaged_ends_the_export(tmp_path, capfd, records):
    write(tmp_path / f"{CHAIN}-0.jsonl", CHAIN, 1, *[Entry("server.start")] * records)
    packed = pack(tmp_path / f"{CHAIN}-0.jsonl")
    packed.write_bytes(packed.read_bytes()[:-9])
    code, lines, err = export(capfd, "--format", "ecs", tmp_path)
    assert (code, bool(lines)) == (2, records > 2)
    assert err.count("\n") == 1
    assert "it can't be unpacked" in err
    assert str(tmp_path) in err


def pack(path):
    """Compress a file in its place."""
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return packed
