"""What the verifier finds, and what it must not find."""

import fcntl
import hashlib
import json
import os
import shutil

import pytest
from support.chains import CHAIN, SOURCE, chain_bytes
from support.journals import chain_files, only_chain, records, unprivileged

from securefs.audit import Journal, verify_journal
from securefs.audit.record import Entry, Position, build_line, line_hash
from securefs.audit.verify_chain import MAX_FINDINGS
from securefs.audit.verify_journal import _MAX_KEPT
from securefs.errors import ConfigurationError, JournalError


@pytest.fixture
def folder(tmp_path):
    """A journal of one chain: start, eight records, stop."""
    write_journal(tmp_path / "journal")
    return tmp_path / "journal"


def write_journal(folder):
    journal = Journal(folder)
    for number in range(8):
        journal.record(Entry("file.encrypt", obj={"size": number}))
    journal.close()


def rewrite(folder, change):
    path = only_chain(folder)
    lines = path.read_bytes().split(b"\n")[:-1]
    change(lines)
    path.write_bytes(b"".join(line + b"\n" for line in lines))


def codes(report):
    return [(finding.code, finding.seq) for finding in report.findings]


def test_intact_journal_is_not_proven_complete(folder):
    report = verify_journal(folder)
    assert report.intact
    assert report.completeness == "not proven"
    assert report.exit_code == 3
    assert report.records == 10
    assert report.torn == report.unknown == report.findings == ()
    (chain,) = report.chains
    assert chain.head == line_hash(only_chain(folder).read_bytes().split(b"\n")[-2])
    assert chain.ended
    assert not chain.live


def _edit(lines):
    lines[4] = lines[4].replace(b'"size":3', b'"size":9')


def _edit_into_no_record(lines):
    lines[4] = lines[4].replace(b'"size":3', b'"size":x')


def _delete(lines):
    del lines[4]


def _delete_several(lines):
    del lines[3:6]


def _delete_first(lines):
    del lines[0]


def _swap(lines):
    lines[4], lines[5] = lines[5], lines[4]


def _repeat(lines):
    lines.insert(4, lines[4])


def _space(lines):
    lines[4] = lines[4].replace(b":3}", b": 3}")


def _after_stop(lines):
    record = json.loads(lines[-1]) | {"seq": 10, "prev": line_hash(lines[-1]), "event": "key.use"}
    lines.append(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())


def _second_start(lines):
    record = json.loads(lines[0]) | {"seq": 10, "prev": line_hash(lines[-1])}
    lines.append(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("change", "found"),
    [
        pytest.param(_edit, [("link", 5)], id="edited"),
        pytest.param(_edit_into_no_record, [("not_json", None), ("link", 5)], id="edited-into-no-record"),
        pytest.param(_space, [("not_canonical", None), ("link", 5)], id="spelled-differently"),
        pytest.param(_delete, [("sequence", 5), ("link", 5)], id="deleted"),
        pytest.param(_delete_several, [("sequence", 6), ("link", 6)], id="middle-deleted"),
        pytest.param(_delete_first, [("sequence", 1), ("link", 1), ("start", 1)], id="first-deleted"),
        pytest.param(
            _swap,
            [("sequence", 5), ("link", 5), ("sequence", 4), ("link", 4), ("sequence", 6), ("link", 6)],
            id="reordered",
        ),
        pytest.param(_repeat, [("sequence", 4), ("link", 4)], id="repeated"),
        pytest.param(_after_stop, [("stop", 10)], id="after-stop"),
        pytest.param(_second_start, [("start", 10), ("stop", 10)], id="second-start"),
    ],
)
def test_changed_lines_are_tampering(folder, change, found):
    rewrite(folder, change)
    report = verify_journal(folder)
    assert codes(report) == found
    assert report.exit_code == 1
    assert not report.intact
    assert report.completeness == "not proven"


def test_finding_says_where(folder):
    path = only_chain(folder)
    rewrite(folder, _edit)
    (finding,) = verify_journal(folder).findings
    assert (finding.file, finding.chain) == (path.name, path.name[:32])
    assert path.read_bytes()[finding.offset :].startswith(path.read_bytes().split(b"\n")[5])


@pytest.mark.parametrize("cut", [1, 100, 250])
def test_torn_last_line_is_no_tampering(folder, cut):
    path = only_chain(folder)
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    start = data[:-1].rindex(b"\n") + 1
    report = verify_journal(folder)
    assert report.intact
    assert report.exit_code == 4
    (tail,) = report.torn
    assert (tail.offset, tail.size) == (start, len(data) - start - cut)
    assert tail.digest == hashlib.sha256(data[start:-cut]).hexdigest()
    assert report.records == 9


def test_torn_bytes_after_an_orderly_end_are_tampering(folder):
    path = only_chain(folder)
    path.write_bytes(path.read_bytes() + b"x")
    report = verify_journal(folder)
    assert codes(report) == [("stop", None)]
    assert report.exit_code == 1


def test_tampering_outweighs_a_torn_tail(folder):
    rewrite(folder, _edit)
    path = only_chain(folder)
    path.write_bytes(path.read_bytes()[:-5])
    report = verify_journal(folder)
    assert report.exit_code == 1
    assert len(report.torn) == 1


def test_chain_cut_at_a_line_end_is_not_detected_and_not_claimed_complete(folder):
    """The honest limit of a journal without signatures."""
    rewrite(folder, lambda lines: lines.__delitem__(slice(6, None)))
    assert verify_journal(folder).exit_code == 3


def test_empty_file_is_torn(folder):
    only_chain(folder).write_bytes(b"")
    report = verify_journal(folder)
    assert report.exit_code == 4
    assert report.torn[0].size == 0


@pytest.mark.parametrize("names", [[], ["note.txt"], ["pseudonym.key"]], ids=["empty", "other", "key"])
def test_a_folder_without_a_chain_is_no_journal(tmp_path, names):
    """An empty or a wrong folder is not intact."""
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(ConfigurationError, match="no chain of a journal"):
        verify_journal(tmp_path)


def test_copy_under_another_chains_name(folder):
    path = only_chain(folder)
    shutil.copy(path, folder / f"{CHAIN}-0.jsonl")
    report = verify_journal(folder)
    assert {finding.code for finding in report.findings} == {"chain"}
    assert {finding.file for finding in report.findings} == {f"{CHAIN}-0.jsonl"}


def test_second_file_that_does_not_go_on_where_the_first_one_ends(folder):
    path = only_chain(folder)
    shutil.copy(path, folder / path.name.replace("-0.", "-1."))
    report = verify_journal(folder)
    assert {finding.code for finding in report.findings} >= {"segment", "sequence", "link", "start"}
    assert {finding.file for finding in report.findings} == {path.name.replace("-0.", "-1.")}


def test_a_chain_in_two_folders(folder):
    path = only_chain(folder)
    (folder / "log").mkdir()
    shutil.copy(path, folder / "log")
    assert [finding.code for finding in verify_journal(folder).findings] == ["second_file"]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.symlink_to("/dev/zero"), id="link"),
        pytest.param(lambda path: path.mkdir(), id="folder"),
        pytest.param(os.mkfifo, id="pipe"),
    ],
)
def test_chain_that_is_not_a_file(folder, make):
    make(folder / f"{CHAIN}-0.jsonl")
    assert [finding.code for finding in verify_journal(folder).findings] == ["not_a_file"]


def test_unknown_names_are_reported_and_escaped(folder):
    (folder / "note\x1b[2J.txt").write_text("x")
    (folder / f"{CHAIN.upper()}-0.jsonl").write_text("x")
    report = verify_journal(folder)
    assert len(report.unknown) == 2
    assert report.exit_code == 3
    text = "\n".join(report.lines())
    assert "\x1b" not in text
    assert "note\\x1b[2J.txt" in text


def test_live_chain_is_shown_as_live(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.record(Entry("key.use"))
    path = only_chain(tmp_path / "j")
    with path.open("ab") as file:
        file.write(b'{"half')
    report = verify_journal(tmp_path / "j")
    assert report.chains[0].live
    assert report.torn == ()
    assert report.exit_code == 3
    assert any("2 records in 1 chain" in line for line in report.lines())
    assert any(
        "being written: 1, ended in order: 0, ended without server.stop: 0" in line for line in report.lines()
    )
    with pytest.raises(JournalError, match="somebody else appended to "):
        journal.close()
    assert [tail.size for tail in verify_journal(tmp_path / "j").torn] == [6]


def test_replaced_chain_must_have_the_end_that_its_successor_names(tmp_path):
    folder = tmp_path / "j"
    journal = Journal(folder)
    journal.record(Entry("key.use"))
    journal.record(Entry("key.use"))
    journal._abandon(journal._chain, "write_failed", "EIO")
    journal.record(Entry("key.use"))
    journal.close()
    first, second = chain_files(folder)
    if "replaces" in records(first)[0]["obj"]:
        first, second = second, first
    data = first.read_bytes()
    lines = data.split(b"\n")[:-1]
    assert verify_journal(folder).intact
    first.write_bytes(b"".join(line + b"\n" for line in lines[:-1]))
    assert [(f.code, f.file) for f in verify_journal(folder).findings] == [("cut_chain", first.name)]
    # A write that was reported as failed may have arrived after all.
    more = build_line(Position(first.name[:32], 3, line_hash(lines[-1])), SOURCE, 0, Entry("key.use"))
    first.write_bytes(data + more)
    assert verify_journal(folder).intact
    last = build_line(Position(first.name[:32], 4, line_hash(more[:-1])), SOURCE, 0, Entry("key.use"))
    first.write_bytes(data + more + last)
    assert [f.code for f in verify_journal(folder).findings] == ["cut_chain"]
    first.unlink()
    assert [(f.code, f.file) for f in verify_journal(folder).findings] == [("missing_chain", second.name)]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("missing", "No such file", id="missing"),
        pytest.param("file", "Not a directory", id="file"),
        pytest.param("a\0b", "NUL", id="nul"),
    ],
)
def test_path_that_is_no_folder_is_a_usage_error(tmp_path, path, message):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError, match=message):
        verify_journal(tmp_path / path)


@pytest.mark.parametrize("log", [5, "a\0b"])
def test_a_log_that_is_no_path_is_a_usage_error(folder, log):
    with pytest.raises(ConfigurationError, match=r"^log "):
        verify_journal(folder, log)


def test_chain_that_cannot_be_read_is_a_usage_error(open_folder):
    """A journal of which a part was skipped was not verified."""
    path = open_folder / f"{CHAIN}-0.jsonl"
    path.write_bytes(chain_bytes(Entry("server.start")))
    path.chmod(0)
    with (
        unprivileged(open_folder),
        pytest.raises(ConfigurationError, match=r"cannot read .*Permission denied"),
    ):
        verify_journal(open_folder)


def test_report_as_json(folder):
    rewrite(folder, lambda lines: (_edit(lines), lines.pop()))
    path = only_chain(folder)
    path.write_bytes(path.read_bytes() + b"torn")
    (folder / "other").write_text("x")
    found = json.loads(json.dumps(verify_journal(folder).to_json()))
    assert (found["integrity"], found["completeness"], found["exit_code"]) == ("tampered", "not proven", 1)
    assert (found["records"], found["finding_count"], found["unknown_files"]) == (9, 1, ["other"])
    assert found["findings"][0]["code"] == "link"
    assert found["torn"][0]["size"] == 4
    assert found["chains"][0]["file"] == path.name
    assert found["log"] is None


def test_report_as_text(folder):
    text = "\n".join(verify_journal(folder).lines())
    assert "consistent: yes: " in text
    assert "10 records in 1 chain" in text
    assert "being written: 0, ended in order: 1, ended without server.stop: 0" in text
    assert "NOT PROVEN (exit code 3)" in text
    assert "not sealed: there is no log" in text
    rewrite(folder, lambda lines: (_edit_into_no_record(lines), lines.pop()))
    path = only_chain(folder)
    path.write_bytes(path.read_bytes() + b"torn")
    text = "\n".join(verify_journal(folder).lines())
    assert "consistent: NO: 2 findings" in text
    assert ", record 5: link: " in text
    assert "TAMPERING (exit code 1)" in text
    assert "4 bytes of a record that was not written whole" in text
    assert "9 records in 1 chain" in text
    assert "ended without server.stop: 1" in text


def test_findings_are_counted_beyond_what_is_kept(tmp_path):
    for number in range(_MAX_KEPT // MAX_FINDINGS + 1):
        (tmp_path / f"{number:032x}-0.jsonl").write_bytes(b"x\n" * (MAX_FINDINGS + 1))
    report = verify_journal(tmp_path)
    assert len(report.findings) == _MAX_KEPT
    assert report.finding_count == 11 * 101
    assert list(report.lines())[-2] == f"  and {11 * 101 - _MAX_KEPT} more"


def test_a_chain_that_is_locked_while_it_is_read_is_live(folder, monkeypatch):
    """A writer locks its file a moment after it made it: what it writes then is no torn tail."""
    path = only_chain(folder)
    path.write_bytes(path.read_bytes()[:-5])
    watched, calls = path.stat().st_ino, []
    with path.open("ab") as writer:

        def fstat(descriptor, real=os.fstat):
            status = real(descriptor)
            if status.st_ino == watched:
                calls.append(descriptor)
                if len(calls) == 2:
                    # Its size is asked for: the reader has looked at the lock once.
                    fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return status

        monkeypatch.setattr("os.fstat", fstat)
        report = verify_journal(folder)
    assert len(calls) == 2
    assert report.chains[0].live
    assert report.torn == ()


def test_a_finding_about_a_file_names_it_and_no_record(folder):
    (chain,) = (only_chain(folder).name,)
    (folder / chain.replace("-0.", "-7.")).write_bytes(b"")
    (folder / f"{CHAIN}-0.jsonl").mkdir()
    found = {finding.code: finding for finding in verify_journal(folder).findings}
    assert found.keys() == {"segment", "not_a_file"}
    for code, file in (("segment", chain.replace("-0.", "-7.")), ("not_a_file", f"{CHAIN}-0.jsonl")):
        assert (found[code].file, found[code].chain) == (file, file[:32])
        assert (found[code].seq, found[code].offset) == (None, 0)


@pytest.mark.parametrize("there", [False, True], ids=["missing", "cut"])
def test_a_claim_that_does_not_hold_is_found_in_the_record_that_makes_it(there, tmp_path):
    """The successor's first line, where the other chain is missing; else the other chain."""
    old, new = "a" * 32, "b" * 32
    obj = {"replaces": old, "replaces_seq": 3, "replaces_hash": "ab" * 32}
    (tmp_path / f"{new}-0.jsonl").write_bytes(chain_bytes(Entry("server.start", obj=obj), chain=new))
    if there:
        (tmp_path / f"{old}-0.jsonl").write_bytes(chain_bytes(Entry("server.start"), chain=old))
    report = verify_journal(tmp_path)
    (finding,) = report.findings
    expected = (
        ("cut_chain", f"{old}-0.jsonl", old, None) if there else ("missing_chain", f"{new}-0.jsonl", new, 0)
    )
    assert (finding.code, finding.file, finding.chain, finding.seq) == expected
    assert finding.offset == 0
    assert (report.finding_count, report.exit_code) == (1, 1)


@pytest.mark.parametrize("path", ["missing", "file"])
def test_a_path_that_is_no_folder_is_told_once_and_without_an_error_number(tmp_path, path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigurationError) as caught:
        verify_journal(tmp_path / path)
    assert "Errno" not in str(caught.value)
    assert str(caught.value).count(str(tmp_path / path)) == 1
