"""The journal of one process: settings, failing closed, and what the next chain says of a broken one."""

import gc
import json
import os
import signal
import stat
from pathlib import Path

import pytest
from support.journals import (
    all_records,
    chain_files,
    file_size_limit,
    only_chain,
    open_descriptors,
    records,
    run_script,
    unprivileged,
)

from securefs.audit import Entry, Journal, verify_journal
from securefs.audit.journal import _boot_id, _version
from securefs.audit.record import Source, line_hash
from securefs.audit.sink import FileSink
from securefs.errors import ConfigurationError, JournalError, Reason


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


def test_chain_opens_with_the_first_record(folder):
    journal = Journal(folder, sync="record", names="clear", on_failure="continue")
    assert list(folder.iterdir()) == []
    journal.record(
        Entry(
            "file.rejected",
            outcome="failure",
            reason=Reason.LIMIT,
            obj={"parts": 2},
            actor="alice",
            request_id="r1",
            address="192.0.2.7",
            http={"method": "POST", "path": "/u", "status": 413},
        )
    )
    journal.close()
    start, record, stop = records(only_chain(folder))
    assert start["event"] == "server.start"
    assert start["obj"] == {"names": "clear", "sync": "record", "on_failure": "continue"}
    assert record["obj"] == {"parts": 2}
    assert record["actor"] == {"id": "alice"}
    assert record["http"] == {"method": "POST", "path": "/u", "status": 413}
    assert record["client"]["addr"] == "192.0.2.7"
    assert record["host"]["pid"] == os.getpid()
    assert (record["reason"], record["req"], record["sev"], record["outcome"]) == (
        "limit",
        "r1",
        2,
        "failure",
    )
    assert stop["event"] == "server.stop"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_names_and_principals_are_pseudonyms_by_default(folder):
    journal = Journal(folder)
    journal.record(
        Entry("file.encrypt", outcome="failure", obj={"name": "plan.pdf", "field": "f"}, actor="alice")
    )
    journal.record(Entry("file.encrypt", outcome="failure", obj={"field": "f"}))
    journal.close()
    named, bare = records(only_chain(folder))[1:3]
    assert named["obj"]["name"].startswith("hmac-sha256:")
    assert named["actor"]["id"].startswith("hmac-sha256:")
    assert named["obj"]["field"] == "f"
    assert "actor" not in bare


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"event": "server.start"}, id="own-event"),
        pytest.param({"event": "no.event"}, id="event"),
        pytest.param({"event": "key.use", "obj": {"other": 1}}, id="key"),
        pytest.param({"event": "file.encrypt", "obj": {"name": 1}}, id="name-type"),
        pytest.param({"event": "key.use", "actor": 1}, id="actor-type"),
    ],
)
@pytest.mark.parametrize("mode", ["closed", "continue"])
def test_programming_errors_are_never_swallowed(folder, arguments, mode):
    journal = Journal(folder, on_failure=mode)
    with pytest.raises(ValueError):
        journal.record(Entry(**arguments))
    journal.record(Entry("key.use"))
    journal.close()
    assert verify_journal(folder).intact


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"names": "plain"}, "names is 'plain'", id="names"),
        pytest.param({"sync": "always"}, "sync is 'always'", id="sync"),
        pytest.param({"on_failure": "ignore\n"}, r"on_failure is 'ignore\\n'", id="on-failure"),
        pytest.param({"directory": "x", "stream": 1}, "one of the two", id="both"),
        pytest.param({"directory": "/dev/null"}, "is not a folder", id="device"),
        pytest.param({"directory": "/no/such/parent"}, "No such file", id="parent"),
        pytest.param({"directory": "a\0b"}, "null", id="nul"),
    ],
)
def test_bad_settings_are_one_clear_line(arguments, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        Journal(**arguments)
    assert "\n" not in str(caught.value)


def test_environment(folder):
    environ = {
        "SECUREFS_AUDIT_DIR": str(folder),
        "SECUREFS_AUDIT_SYNC": "record",
        "SECUREFS_AUDIT_NAMES": "clear",
    }
    assert repr(Journal.from_env(environ)) == (
        f"<Journal to {folder}: names=clear, sync=record, on_failure=closed>"
    )
    assert (
        repr(Journal.from_env({}))
        == "<Journal to a stream: names=pseudonym, sync=buffered, on_failure=closed>"
    )


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        pytest.param({"SECUREFS_AUDIT_DIR": " "}, "SECUREFS_AUDIT_DIR is empty", id="empty"),
        pytest.param({"SECUREFS_AUDIT_DIR": "/dev/null"}, "SECUREFS_AUDIT_DIR: the journal", id="folder"),
        pytest.param({"SECUREFS_AUDIT_SYNC": "yes"}, "SECUREFS_AUDIT_SYNC is 'yes'", id="sync"),
        pytest.param({"SECUREFS_AUDIT_NAMES": ""}, "SECUREFS_AUDIT_NAMES is ''", id="names"),
    ],
)
def test_bad_variable_is_named(environ, message):
    with pytest.raises(ConfigurationError, match=message):
        Journal.from_env(environ)


def test_without_a_folder_lines_go_to_standard_error(capfd):
    journal = Journal()
    journal.record(Entry("key.use", actor="alice"))
    journal.close()
    lines = capfd.readouterr().err.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["server.start", "key.use", "server.stop"]
    assert json.loads(lines[1])["prev"] == line_hash(lines[0].encode())
    assert "alice" not in lines[1]


def test_a_given_stream_takes_the_lines(tmp_path):
    with (tmp_path / "log").open("wb") as stream:
        journal = Journal(stream=stream)
        journal.record(Entry("key.use"))
        journal.check()
        journal.close()
    assert len(records(tmp_path / "log")) == 3


def test_stream_without_descriptor_is_refused(tmp_path):
    with (tmp_path / "log").open("wb") as stream:
        pass
    with pytest.raises(ConfigurationError, match="no file descriptor"):
        Journal(stream=stream)


def test_full_stream_fails_closed():
    with Path("/dev/full").open("wb", buffering=0) as stream:
        journal = Journal(stream=stream)
        with pytest.raises(JournalError, match="No space left on device"):
            journal.record(Entry("key.use"))
        with pytest.raises(JournalError):
            journal.check()
        with pytest.raises(JournalError):
            journal.close()


@pytest.mark.parametrize(
    ("obstacle", "why"),
    [
        pytest.param(lambda path: path.unlink(), "unlinked", id="unlinked"),
        pytest.param(lambda path: path.rename(path.with_suffix(".old")), "moved", id="renamed"),
    ],
)
def test_lost_file_fails_closed_and_the_next_chain_says_so(folder, obstacle, why):
    journal = Journal(folder)
    journal.record(Entry("key.use"))
    path = only_chain(folder)
    *_, last = path.read_bytes().split(b"\n")[:-1]
    obstacle(path)
    with pytest.raises(JournalError, match="cannot be written"):
        journal.record(Entry("key.use"))
    journal.record(Entry("key.use"))
    journal.close()
    start, *rest = records(only_chain(folder))
    assert start["obj"] == {
        "names": "pseudonym", "sync": "buffered", "on_failure": "closed",
        "replaces": path.name[:32], "replaces_seq": 1, "replaces_hash": line_hash(last), "why": why, "lost": 1,
    }  # fmt: skip
    assert start["sev"] == 4
    assert [record["event"] for record in rest] == ["key.use", "server.stop"]
    assert [finding.code for finding in verify_journal(folder).findings] == ["missing_chain"]


def test_full_disk_fails_closed_and_is_no_tampering(folder):
    journal = Journal(folder)
    journal.record(Entry("key.use"))
    path = only_chain(folder)
    size = path.stat().st_size
    with file_size_limit(size + 10), pytest.raises(JournalError, match="10 of"):
        journal.record(Entry("key.use"))
    assert path.stat().st_size == size + 10
    with file_size_limit(0):
        for _ in range(3):
            with pytest.raises(JournalError, match="File too large"):
                journal.record(Entry("key.use"))
        with pytest.raises(JournalError):
            journal.check()
    assert chain_files(folder) == [path]
    journal.record(Entry("key.use"))
    journal.close()
    start = records(chain_files(folder)[1])[0]["obj"]
    # The first cause stands: what failed after it is its consequence.
    assert (start["why"], start["lost"], start["replaces"]) == ("short_write", 4, path.name[:32])
    report = verify_journal(folder)
    assert report.intact
    (torn,) = [chain for chain in report.chains if chain.torn is not None]
    assert (torn.file, torn.torn.size) == (path.name, 10)
    # Its successor says how it ended.
    assert (report.torn, report.explained, report.exit_code) == ((), {torn.chain}, 3)


def test_disk_full_from_the_start(folder):
    journal = Journal(folder)
    with file_size_limit(0), pytest.raises(JournalError):
        journal.record(Entry("key.use"))
    journal.record(Entry("key.use"))
    journal.close()
    start = records(only_chain(folder))[0]["obj"]
    assert (start["why"], start["error"], start["lost"]) == ("write_failed", "EFBIG", 1)
    assert "replaces" not in start


def test_read_only_folder_fails_closed(open_folder):
    with unprivileged(open_folder):
        journal = Journal(open_folder)
        open_folder.chmod(0o500)
        with pytest.raises(JournalError, match="Permission denied"):
            journal.record(Entry("key.use"))
        with pytest.raises(JournalError):
            journal.check()
        open_folder.chmod(0o700)
        journal.check()
        journal.close()
    start = all_records(open_folder)[0]["obj"]
    assert (start["why"], start["error"], start["lost"]) == ("open_failed", "EACCES", 1)


def test_continue_counts_what_was_lost(folder):
    journal = Journal(folder, on_failure="continue")
    journal.record(Entry("key.use"))
    with file_size_limit(0):
        journal.record(Entry("key.use"))
        journal.record(Entry("key.use"))
    journal.close()
    second = records(chain_files(folder)[1])
    assert second[0]["obj"]["lost"] == 2
    assert second[0]["obj"]["on_failure"] == "continue"
    assert second[1]["event"] == "server.stop"
    assert verify_journal(folder).intact


def test_continue_swallows_a_failing_close(folder):
    journal = Journal(folder, on_failure="continue")
    journal.record(Entry("key.use"))
    only_chain(folder).unlink()
    journal.close()
    assert chain_files(folder) == []


def test_check_opens_a_chain_and_heals_a_lost_one(folder):
    journal = Journal(folder)
    journal.check()
    first = only_chain(folder)
    journal.check()
    first.unlink()
    journal.check()
    journal.record(Entry("key.use"))
    journal.close()
    start = records(only_chain(folder))[0]["obj"]
    assert (start["replaces"], start["why"]) == (first.name[:32], "unlinked")
    assert "lost" not in start


def test_closed_journal_refuses(folder):
    journal = Journal(folder)
    journal.close()
    journal.close()
    assert chain_files(folder) == []
    with pytest.raises(JournalError, match="closed"):
        journal.record(Entry("key.use"))
    with pytest.raises(JournalError, match="closed"):
        journal.check()


def test_dropped_journal_lets_its_file_go(folder):
    before = open_descriptors()
    journal = Journal(folder)
    journal.record(Entry("key.use"))
    assert verify_journal(folder).chains[0].live
    del journal
    gc.collect()
    assert open_descriptors() == before
    assert not verify_journal(folder).chains[0].live


def test_signal_handler_that_interrupts_the_journal_is_refused(folder):
    """It gets an error, not a deadlock and not a second record with the same number."""
    journal = Journal(folder)
    journal.record(Entry("key.use"))

    def handler(number, frame):
        journal.close()

    previous = signal.signal(signal.SIGUSR1, handler)
    try:
        with journal._exclusive(), pytest.raises(JournalError, match="signal handler"):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    journal.record(Entry("key.use"))
    journal.close()
    assert verify_journal(folder).records == 4


class InterruptedSink(FileSink):
    """A file whose writer is interrupted once the line is out, before it could take note of that."""

    def write(self, line):
        super().write(line)
        raise KeyboardInterrupt


def test_chain_whose_writer_was_interrupted_is_left(folder):
    """The line may be out though its number was not counted: a second one with that number would look forged."""
    journal = Journal(folder)
    journal.record(Entry("key.use"))
    journal._chain.sink.__class__ = InterruptedSink
    with pytest.raises(KeyboardInterrupt):
        journal.record(Entry("key.use"))
    journal.record(Entry("key.use"))
    journal.close()
    by_seq = {path.name[:32]: records(path) for path in chain_files(folder)}
    first = next(name for name, found in by_seq.items() if "replaces" not in found[0]["obj"])
    (second,) = by_seq.keys() - {first}
    start = by_seq[second][0]["obj"]
    assert (start["replaces"], start["replaces_seq"], start["why"]) == (first, 1, "interrupted")
    assert "lost" not in start
    assert len(by_seq[first]) == 3
    assert verify_journal(folder).intact


def test_exceptions_out_of_signal_handlers_never_look_like_tampering(folder):
    """An interrupted chain is left, and its successor says so: no sequence number is used twice."""
    code = """
import signal, sys
from securefs.audit import Entry, Journal, verify_journal
class Interrupted(BaseException): pass
armed = False
def handler(number, frame):
    if armed:
        raise Interrupted
signal.signal(signal.SIGALRM, handler)
journal = Journal(sys.argv[1])
journal.record(Entry("key.use"))
hits = done = 0
signal.setitimer(signal.ITIMER_REAL, 0.0011, 0.00073)
while hits < 300:
    try:
        armed = True
        while True:
            journal.record(Entry("file.decrypt", obj={"size": done}))
            done += 1
    except Interrupted:
        armed = False
        hits += 1
signal.setitimer(signal.ITIMER_REAL, 0)
journal.close()
report = verify_journal(sys.argv[1])
print(report.records >= done, [f.message for f in report.findings], sum(t.size for t in report.torn))
"""
    out, _ = run_script(code, folder, measured=False)
    assert out == b"True [] 0\n"


def test_version_of_a_distribution_that_is_not_installed():
    assert _version("no-such-distribution-of-securefs") == "unknown"
    assert _version("pytest") == pytest.__version__


def test_a_record_that_says_no_more_is_a_success_of_the_least_severity(folder):
    journal = Journal(folder)
    journal.record(Entry("file.encrypt"))
    journal.close()
    start, record, stop = records(only_chain(folder))
    assert (record["outcome"], record["sev"]) == ("success", 1)
    assert record.keys() == {"v", "time", "seq", "chain", "prev", "event", "outcome", "sev", "host"}
    assert (start["sev"], stop["sev"]) == (1, 4)


def test_a_record_names_the_start_of_the_host_that_wrote_it(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.record(Entry("key.use"))
    journal.close()
    file = Path("/proc/sys/kernel/random/boot_id")
    expected = file.read_text().strip() if file.exists() else None
    assert {record["host"].get("boot") for record in all_records(tmp_path / "j")} == {expected}


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff", None])
def test_a_host_that_tells_no_start_has_none(tmp_path, content):
    if content is not None:
        (tmp_path / "boot_id").write_bytes(content)
    assert _boot_id(str(tmp_path / "boot_id")) is None
    assert "boot" not in Source("h", 1, "v").encoded
