"""Keys of pseudonyms by month, outside the journal's folder."""

import json
import re
import time
from datetime import datetime, timezone

import pytest
from support.journals import chain_files, unprivileged

from securefs.audit import Entry, Journal, hash_name, verify_journal
from securefs.audit.name_keys import NameKeys, hash_names, period_of, prepare_keys
from securefs.audit.pseudonym import KEY_FILE, load_or_create
from securefs.errors import ConfigurationError, JournalError

UPLOAD = Entry("file.encrypt", obj={"name": "secret-plan.pdf"}, actor="alice")


def nanoseconds(*when):
    return int(datetime(*when, tzinfo=timezone.utc).timestamp()) * 1_000_000_000


NOVEMBER = nanoseconds(2026, 11, 26)


@pytest.mark.parametrize(
    ("now", "name"),
    [
        (nanoseconds(2026, 11, 1), "2026-11"),
        (nanoseconds(2026, 12, 1) - 1, "2026-11"),
        (nanoseconds(2026, 12, 31), "2026-12"),
        (nanoseconds(2027, 1, 1), "2027-01"),
        (nanoseconds(2028, 2, 29), "2028-02"),
    ],
)
def test_a_period_is_a_month(now, name):
    found, period = period_of(now)
    assert found == name
    assert now in period
    assert period_of(period.stop)[0] > name
    assert period_of(period.start - 1)[0] < name


def test_each_month_has_a_key_of_its_own(tmp_path):
    keys = NameKeys(tmp_path)
    first = keys.at(NOVEMBER)
    assert keys.at(NOVEMBER + 1) is first
    second = keys.at(nanoseconds(2026, 12, 1))
    assert first.of("name", "x") != second.of("name", "x")
    # A clock that is set back leads to the same key again.
    assert keys.at(NOVEMBER) == first
    assert {path.name for path in tmp_path.iterdir()} >= {"2026-11.key", "2026-12.key"}
    assert (tmp_path / "2026-11.key").stat().st_mode & 0o777 == 0o600


def test_names_are_found_under_the_key_outside_and_the_journal_has_none(tmp_path):
    journal = Journal(tmp_path / "j", names_key=tmp_path / "keys")
    journal.record(UPLOAD)
    journal.close()
    text = chain_files(tmp_path / "j")[0].read_text()
    assert not (tmp_path / "j" / KEY_FILE).exists()
    month = period_of(time.time_ns())[0]
    for given in ({}, {"period": month}):
        assert hash_name(None, "secret-plan.pdf", names_key=tmp_path / "keys", **given) in text
    assert hash_name(tmp_path / "j", "alice", "principal", names_key=tmp_path / "keys") in text
    assert "secret-plan" not in text
    assert "alice" not in text


def test_a_stream_may_have_keys_that_stay(tmp_path):
    with (tmp_path / "log").open("wb") as stream:
        journal = Journal(stream=stream, names_key=tmp_path / "keys")
        journal.record(UPLOAD)
        journal.close()
    assert hash_name(None, "secret-plan.pdf", names_key=tmp_path / "keys") in (tmp_path / "log").read_text()


def test_with_names_in_clear_no_key_is_made(tmp_path):
    Journal(tmp_path / "j", names="clear", names_key=tmp_path / "keys").close()
    assert not (tmp_path / "keys").exists()


def test_month_that_begins_while_a_server_runs_has_its_key(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: NOVEMBER)
    journal = Journal(tmp_path / "j", names_key=tmp_path / "keys")
    journal.record(UPLOAD)
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds(2026, 12, 1))
    journal.record(UPLOAD)
    journal.close()
    found = hash_names(tmp_path / "j", "secret-plan.pdf", names_key=tmp_path / "keys")
    assert list(found) == ["2026-11", "2026-12"]
    text = "".join(path.read_text() for path in chain_files(tmp_path / "j"))
    assert all(pseudonym in text for pseudonym in found.values())


def test_a_key_that_cannot_be_made_refuses_the_operation_and_then_goes_on(open_folder, monkeypatch):
    keys = open_folder / "keys"
    monkeypatch.setattr(time, "time_ns", lambda: NOVEMBER)
    with unprivileged(open_folder):
        journal = Journal(open_folder / "j", names_key=keys)
        journal.record(UPLOAD)
        keys.chmod(0o500)
        monkeypatch.setattr(time, "time_ns", lambda: nanoseconds(2026, 12, 1))
        for attempt in (lambda: journal.record(UPLOAD), journal.check):
            with pytest.raises(JournalError, match=r"cannot create .*2026-12\.key"):
                attempt()
        keys.chmod(0o700)
        journal.record(UPLOAD)
        journal.close()
    lines = [line for path in chain_files(open_folder / "j") for line in path.read_text().splitlines()]
    assert [json.loads(line)["event"] for line in lines].count("file.encrypt") == 2


def test_destroying_a_key_leaves_a_journal_that_verifies_and_names_that_nobody_finds(tmp_path):
    journal = Journal(tmp_path / "j", names_key=tmp_path / "keys")
    journal.record(UPLOAD)
    journal.close()
    (key,) = (tmp_path / "keys").iterdir()
    key.unlink()
    assert verify_journal(tmp_path / "j").intact
    with pytest.raises(ConfigurationError, match=r"there is no key .*or its key was destroyed"):
        hash_name(None, "secret-plan.pdf", names_key=tmp_path / "keys")
    assert hash_names(tmp_path / "j", "secret-plan.pdf", names_key=tmp_path / "keys") == {}


def test_journal_that_began_with_a_key_of_its_own_stays_readable(tmp_path):
    old = Journal(tmp_path / "j")
    old.record(UPLOAD)
    old.close()
    new = Journal(tmp_path / "j", names_key=tmp_path / "keys")
    new.record(UPLOAD)
    new.close()
    found = hash_names(tmp_path / "j", "secret-plan.pdf", names_key=tmp_path / "keys")
    assert list(found) == ["", period_of(time.time_ns())[0]]
    text = "".join(path.read_text() for path in chain_files(tmp_path / "j"))
    assert all(pseudonym in text for pseudonym in found.values())
    assert found[""] == hash_name(tmp_path / "j", "secret-plan.pdf")


@pytest.mark.parametrize("where", ["j", "j/keys", "link"])
def test_keys_in_the_journal_are_refused(tmp_path, where):
    (tmp_path / "j").mkdir(0o700)
    (tmp_path / "link").symlink_to("j")
    with pytest.raises(ConfigurationError, match="is in the journal's folder"):
        Journal(tmp_path / "j", names_key=tmp_path / where)


def _open_to_others(path):
    path.mkdir()
    path.chmod(0o770)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda path: path.write_bytes(b""), "pseudonyms' keys .* is not a folder", id="file"),
        pytest.param(_open_to_others, "others can write to the folder of the pseudonyms' keys", id="open"),
        pytest.param(lambda path: path.symlink_to(path / "x"), "cannot use the folder", id="loop"),
    ],
)
def test_unfit_folder_is_one_clear_line(tmp_path, make, message):
    make(tmp_path / "keys")
    with pytest.raises(ConfigurationError, match=message) as caught:
        prepare_keys(tmp_path / "keys", None)
    assert "\n" not in str(caught.value)


def test_unfit_key_is_refused(tmp_path):
    keys = prepare_keys(tmp_path / "keys", None)
    name = f"{period_of(time.time_ns())[0]}.key"
    (keys / name).write_bytes(bytes(32))
    (keys / name).chmod(0o644)
    with pytest.raises(ConfigurationError, match="others can read"):
        Journal(tmp_path / "j", names_key=keys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param({"period": "2026-13", "names_key": "x"}, "is not a month such as 2026-11", id="month"),
        pytest.param({"period": "../2026-11", "names_key": "x"}, "is not a month", id="path"),
        pytest.param({"period": 202611, "names_key": "x"}, "period must be a str", id="number"),
        pytest.param({"period": "2026-11"}, "a period is for keys by period", id="no-folder"),
        pytest.param({"period": "2026-11", "names_key": "none"}, "there is no key none/2026-11", id="none"),
        pytest.param({"names_key": 7}, "names_key must be a path", id="type"),
        pytest.param({}, "directory must be a path", id="nothing"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=re.compile(message)):
        hash_name(None, "x", **arguments)


def test_folder_of_keys_that_cannot_be_listed_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot read the folder of the pseudonyms' keys"):
        hash_names(None, "x", names_key=tmp_path / "none")


def test_other_files_in_the_folder_are_not_keys(tmp_path):
    load_or_create(tmp_path, "2026-11.key")
    (tmp_path / ".2026-10.key.0123").write_bytes(b"")
    assert list(hash_names(None, "x", names_key=tmp_path)) == ["2026-11"]


def test_variable(tmp_path):
    environ = {
        "SECUREFS_AUDIT_DIR": str(tmp_path / "j"),
        "SECUREFS_AUDIT_NAMES_KEY": str(tmp_path / "keys"),
    }
    journal = Journal.from_env(environ)
    journal.record(UPLOAD)
    journal.close()
    assert len(list((tmp_path / "keys").iterdir())) == 1
    for value, message in ((" ", "NAMES_KEY is empty"), ("/dev/null", "NAMES_KEY: the folder of")):
        with pytest.raises(ConfigurationError, match=f"SECUREFS_AUDIT_{message}"):
            Journal.from_env({**environ, "SECUREFS_AUDIT_NAMES_KEY": value})
    with pytest.raises(ConfigurationError, match="SECUREFS_AUDIT_NAMES_KEY: the folder of"):
        Journal.from_env({"SECUREFS_AUDIT_NAMES_KEY": "/dev/null"})
