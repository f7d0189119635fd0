"""One chain and its file: what breaks it, and that nothing is written after that."""

import os

import pytest
from support.flushes import flushes_of
from support.journals import file_size_limit, records, unprivileged

from securefs.audit.chain import Chain
from securefs.audit.pseudonym import KEY_FILE
from securefs.audit.record import Entry, Source
from securefs.audit.sink import ChainBrokenError, FileSink, chain_file_name

NAME = "0123456789abcdef" * 2
START = Entry("server.start", obj={"names": "clear"})
USE = Entry("key.use")


@pytest.fixture
def chain(tmp_path):
    made = Chain(NAME, Source("h", 1, "v"), FileSink(tmp_path, NAME))
    yield made
    made.sink.close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / chain_file_name(NAME)


def refused(chain, why):
    before = chain.position
    with pytest.raises(ChainBrokenError) as caught:
        chain.append(USE, 0, flush_from=4)
    assert caught.value.why == why
    assert chain.position == before
    assert not chain.usable
    return caught.value


def test_file_is_new_private_and_holds_what_was_appended(chain, path):
    chain.append(START, 0, flush_from=4)
    chain.append(USE, 0, flush_from=1)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert [record["seq"] for record in records(path)] == [0, 1]
    assert chain.usable


def test_existing_file_is_never_opened(chain, tmp_path):
    with pytest.raises(ChainBrokenError) as caught:
        FileSink(tmp_path, NAME)
    assert (caught.value.why, caught.value.error) == ("open_failed", "EEXIST")


def test_symbolic_link_is_never_followed(tmp_path, path):
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ChainBrokenError):
        FileSink(tmp_path, NAME)
    assert not (tmp_path / "elsewhere").exists()


def test_removed_file(chain, path):
    path.unlink()
    refused(chain, "unlinked")


def test_renamed_file(chain, path):
    path.rename(path.with_name("other"))
    refused(chain, "moved")
    assert path.with_name("other").read_bytes() == b""


def test_replaced_file(chain, path):
    path.rename(path.with_name("other"))
    path.write_bytes(b"")
    refused(chain, "moved")
    assert path.read_bytes() == b""


def test_folder_replaced_by_a_file(chain, tmp_path):
    tmp_path.rename(tmp_path.with_name("gone"))
    tmp_path.write_bytes(b"")
    assert refused(chain, "moved").error == "ENOTDIR"


def test_short_write_leaves_the_torn_line_alone(chain, path):
    with file_size_limit(100):
        refused(chain, "short_write")
    chain.abandon()
    assert path.stat().st_size == 100


def test_full_disk_leaves_no_empty_file(chain, path):
    with file_size_limit(0):
        assert refused(chain, "write_failed").error == "EFBIG"
    chain.abandon()
    assert not path.exists()


def test_abandoned_chain_with_records_keeps_its_file(chain, path):
    chain.append(START, 0, flush_from=4)
    chain.abandon()
    chain.abandon()
    assert len(records(path)) == 1
    assert not chain.usable


def test_empty_file_that_was_replaced_is_not_removed(chain, path):
    path.rename(path.with_name("other"))
    path.write_bytes(b"")
    chain.abandon()
    assert path.exists()


def test_flush_that_fails_breaks_the_chain(chain):
    os.close(chain.sink._fd)
    with pytest.raises(ChainBrokenError) as caught:
        chain.sink.flush()
    assert (caught.value.why, caught.value.error) == ("flush_failed", "EBADF")
    chain.abandon()


def test_folder_that_cannot_be_flushed_leaves_no_file(open_folder):
    """A name that may not survive a power cut is no place for evidence."""
    open_folder.chmod(0o300)
    with unprivileged(open_folder):
        with pytest.raises(ChainBrokenError) as caught:
            FileSink(open_folder, NAME)
        assert (caught.value.why, caught.value.error) == ("open_failed", "EACCES")
        open_folder.chmod(0o700)
        assert list(open_folder.iterdir()) == []


def test_an_entry_that_is_no_record_leaves_the_chain_usable(chain, path):
    chain.append(START, 0, flush_from=4)
    with pytest.raises(ValueError):
        chain.append(Entry("no.event"), 0, flush_from=4)
    chain.append(USE, 0, flush_from=4)
    assert len(records(path)) == 2


SYNCHRONOUS = """
import sys
from securefs.audit import Entry, Journal

steps = {}


def step(name, act):
    flushed.clear()
    act()
    steps[name] = list(flushed)


journal = Journal(sys.argv[1], sync=sys.argv[2], names="clear")
step("first record", lambda: journal.record(Entry("file.encrypt")))
for event, outcome in (
    ("file.encrypt", "success"),
    ("file.encrypt", "failure"),
    ("file.decrypt", "failure"),
    ("file.integrity_failure", "failure"),
):
    entry = Entry(event, outcome)
    step(f"severity {entry.severity}", lambda: journal.record(entry))
(chain,) = os.listdir(sys.argv[1])
os.rename(os.path.join(sys.argv[1], chain), os.path.join(sys.argv[1], "moved"))
step("a chain that replaces another", journal.check)
step("close", journal.close)
print(json.dumps(steps))
"""


@pytest.mark.parametrize("sync", ["buffered", "record"])
def test_what_is_promised_to_be_on_the_disk_is_flushed(sync, tmp_path):
    """Records of severity 4, each one with sync="record", and the name of each new file."""
    steps = flushes_of(SYNCHRONOUS, tmp_path / "folder", sync)
    (new,) = {path.name for path in (tmp_path / "folder").iterdir()} - {"moved"}
    (old,) = steps["severity 4"]
    every = [old] if sync == "record" else []
    assert steps == {
        "first record": ["folder", *every, *every],
        "severity 1": every,
        "severity 2": every,
        "severity 3": every,
        "severity 4": [old],
        # The new chain names the last record of the old one, so that one is flushed too.
        "a chain that replaces another": ["moved", "folder", new],
        "close": [new],
    }


def test_a_new_pseudonym_key_is_on_the_disk_before_it_has_its_name(tmp_path):
    made = "from securefs.audit import Journal; import sys; Journal(sys.argv[1]); print(json.dumps(flushed))"
    key, *folders = flushes_of(made, tmp_path / "folder")
    assert key.startswith(f".{KEY_FILE}.")
    assert folders == ["folder", "folder"], "with the temporary name, then with its own"
    assert flushes_of(made, tmp_path / "folder") == []
