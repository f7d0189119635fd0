"""Files of chains that are compressed, and those that stay."""

import gzip
import shutil

import pytest
from support.days import USE, three_days

from securefs.audit import verify_journal
from securefs.audit.compress import compress_journal
from securefs.audit.segments import LONGEST_FILE
from securefs.audit.sink import chain_file_name
from securefs.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "j"


def test_compressed_files_are_verified_as_they_are(folder, clock):
    paths = three_days(folder, clock)
    plain = verify_journal(folder)
    mode = paths[0].stat()
    assert [packed.file for packed in compress_journal(folder, dry_run=True)] == [path.name for path in paths]
    assert all(path.exists() for path in paths)
    done = list(compress_journal(folder))
    assert [(packed.file, packed.trouble) for packed in done] == [(path.name, "") for path in paths]
    assert {path.name for path in folder.glob("*.jsonl*")} == {f"{path.name}.gz" for path in paths}
    kept = paths[0].with_name(f"{paths[0].name}.gz").stat()
    assert (kept.st_mode, kept.st_mtime_ns) == (mode.st_mode, mode.st_mtime_ns)
    report = verify_journal(folder)
    assert (report.intact, report.records) == (True, plain.records)
    assert report.chains[0].head == plain.chains[0].head
    assert list(compress_journal(folder)) == []


def test_files_that_an_operator_compressed_by_hand(folder, clock):
    for path in three_days(folder, clock)[:2]:
        with path.open("rb") as file, gzip.open(f"{path}.gz", "wb") as packed:
            shutil.copyfileobj(file, packed)
        path.unlink()
    assert verify_journal(folder).intact


def test_what_a_writer_holds_is_not_compressed(folder, clock):
    paths, journal = three_days(folder, clock, stop=False)
    assert [packed.file for packed in compress_journal(folder)] == [path.name for path in paths[:2]]
    journal.record(USE)
    journal.close()
    assert verify_journal(folder).intact


def test_what_is_not_compressed(folder, clock):
    paths = three_days(folder, clock)
    with paths[2].open("ab") as file:
        file.write(b"x")
    paths[1].with_name(f"{paths[1].name}.gz").write_bytes(gzip.compress(b"x\n"))
    (folder / chain_file_name("a" * 32)).write_bytes(b"")
    (folder / chain_file_name("b" * 32)).mkdir()
    with (folder / chain_file_name("c" * 32)).open("wb") as file:
        file.seek(LONGEST_FILE)
        file.write(b"\n")
    (folder / chain_file_name("d" * 32)).write_bytes(b"x\n")
    (folder / f"{chain_file_name('d' * 32)}.gz").mkdir()
    troubles = {packed.file: packed.trouble for packed in compress_journal(folder) if packed.trouble}
    assert troubles.keys() >= {paths[1].name, paths[2].name, chain_file_name("b" * 32)}
    assert "is not a copy of it" in troubles[paths[1].name]
    assert "within a line" in troubles[paths[2].name]
    assert "more than" in troubles[chain_file_name("c" * 32)]
    assert "is not a copy" in troubles[chain_file_name("d" * 32)]
    assert paths[1].exists()


def test_compressing_that_was_cut_short_goes_on(folder, clock):
    paths = three_days(folder, clock)
    copy = paths[0].with_name(f"{paths[0].name}.gz")
    copy.write_bytes(gzip.compress(paths[0].read_bytes()))
    report = verify_journal(folder)
    assert (report.intact, report.unknown) == (True, (copy.name,))
    list(compress_journal(folder))
    assert not paths[0].exists()
    assert verify_journal(folder).intact


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot read the journal"):
        list(compress_journal(tmp_path / "none"))


def test_a_longer_or_shorter_copy_is_none(folder, clock):
    paths = three_days(folder, clock)
    data = paths[0].read_bytes()
    for other in (data + b"x", data[:-1], b""):
        paths[0].with_name(f"{paths[0].name}.gz").write_bytes(gzip.compress(other))
        troubles = [packed.trouble for packed in compress_journal(folder) if packed.file == paths[0].name]
        assert "is not a copy of it" in troubles[0]
    paths[0].with_name(f"{paths[0].name}.gz").unlink()
    assert verify_journal(folder).intact
