"""Commands record who ran them and what they did, and do nothing that they can't record."""

from __future__ import annotations

import os
import pwd
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.commands import sealed
from support.journals import all_records, chain_files
from support.sealing import seal_1
from support.servers import DEADLINE, python_environ

from securefs import FormatError, SourceError
from securefs.audit import Journal
from securefs.cli.operator import _user, record, record_failure

ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def journal(monkeypatch):
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    monkeypatch.setenv("SECUREFS_AUDIT_NAMES", "clear")
    monkeypatch.setenv("SECUREFS_DATA_DIR", "data")
    return Path("journal")


def told(folder, *events):
    return [
        (record["event"], record["outcome"], record.get("reason"), record.get("obj"), record["actor"]["id"])
        for record in all_records(folder)
        if not record["event"].startswith("server.")
    ]


def test_without_a_journal_nothing_is_recorded():
    record(None, "file.open")
    record_failure(None, FormatError("no"), "a")


def test_a_user_without_a_name_has_a_number():
    assert _user(os.geteuid()) == ME
    assert _user(64_999) == "#64999"


@pytest.mark.parametrize(
    ("error", "reason"),
    [(SourceError("no"), "io_error"), (OSError("no"), "io_error"), (FormatError("no"), "bad_header")],
)
def test_a_failure_that_is_not_the_file_s_is_no_alarm(tmp_path, error, reason):
    journal = Journal(tmp_path / "j", names="clear")
    record_failure(journal, error, "a.txt")
    assert told(tmp_path / "j") == [("file.open", "failure", reason, {"name": "a.txt"}, ME)]
    journal.close()


# --- tokens


def test_tokens_are_recorded_with_who_made_them_and_for_whom(run, journal):
    token = run("token", "add", "zoë").out.split(b"_")[1].decode()
    assert run("token", "revoke", token).code == 0
    assert run("token", "revoke", "zoë").code == 2
    who = {"principal": "zoë"}
    assert told(journal) == [
        ("token.add", "success", None, {"token": token, **who}, ME),
        ("token.revoke", "started", None, {"token": token}, ME),
        ("token.revoke", "success", None, {"token": token, "count": 1}, ME),
        ("token.revoke", "started", None, who, ME),
        ("token.revoke", "failure", None, {**who, "count": 0}, ME),
    ]


def test_whose_token_it_is_is_a_pseudonym_as_the_actor_is(run, journal, monkeypatch):
    monkeypatch.delenv("SECUREFS_AUDIT_NAMES")
    run("token", "add", ME)
    (added,) = (record for record in all_records(journal) if record["event"] == "token.add")
    expected = run("audit", "hash", "--principal", ME).out.decode().strip()
    assert added["obj"]["principal"] == added["actor"]["id"] == expected


def broken(folder):
    """Let the journal's folder be one in which nothing can be created."""
    Journal(folder).close()
    (folder / "pseudonym.key").chmod(0o644)


@pytest.mark.parametrize("command", [("add", "bob"), ("revoke", "ann")])
def test_no_token_is_made_or_revoked_with_a_journal_that_cannot_be_used(run, journal, monkeypatch, command):
    secret = run("token", "add", "ann").out
    monkeypatch.delenv("SECUREFS_AUDIT_NAMES")
    broken(journal)
    result = run("token", *command)
    assert (result.code, result.out) == (2, b"")
    assert "pseudonym" in result.line
    monkeypatch.delenv("SECUREFS_AUDIT_DIR")
    assert run("token", "list").out.count(b"\n") == 1
    assert secret.split(b"_")[1] in run("token", "list").out


def full(monkeypatch):
    """Let no file be written to: what a full disk is for a journal."""
    real = os.write

    def write(descriptor, data):
        if b'"event"' in bytes(data):
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr("securefs.audit.sink.os.write", write)


def test_a_token_that_cannot_be_recorded_is_revoked_and_not_shown(run, journal, monkeypatch):
    with monkeypatch.context() as patched:
        full(patched)
        result = run("token", "add", "bob")
    assert result.code != 0
    assert b"sfs_" not in result.out
    assert result.line.startswith("the audit journal cannot be ")
    assert run("token", "list").out == b""


def test_a_token_whose_end_cannot_be_recorded_stays(run, journal, monkeypatch):
    run("token", "add", "bob")
    with monkeypatch.context() as patched:
        full(patched)
        assert run("token", "revoke", "bob").code != 0
    assert run("token", "list").out.count(b"\n") == 1


def test_a_token_that_cannot_be_revoked_is_a_failure(run, journal):
    run("token", "add", "bob")
    with sqlite3.connect("data/securefs.sqlite3") as database:
        database.execute("CREATE TRIGGER no BEFORE DELETE ON tokens BEGIN SELECT RAISE(ABORT, 'no'); END")
    database.close()
    assert run("token", "revoke", "bob").code != 0
    assert told(journal)[-1][:3] == ("token.revoke", "failure", "io_error")


def test_a_command_says_it_in_one_line(run, journal, monkeypatch):
    """As a program, whose log nobody configured."""
    path = sealed()
    Journal("journal").close()
    command = [sys.executable, "-m", "securefs", "decrypt", str(path), "-o", "-"]
    kept = {name: os.environ[name] for name in ("FILE_KEY_BASE64", "SECUREFS_AUDIT_DIR")}
    environ = python_environ(**kept)
    done = subprocess.run(
        command,
        # Without coverage, which could not write either.
        env={name: value for name, value in environ.items() if not name.startswith("COVERAGE_")},
        capture_output=True,
        timeout=DEADLINE,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert (done.returncode != 0, done.stdout) == (True, b"")
    assert done.stderr.count(b"\n") == 1, done.stderr
    assert done.stderr.startswith(b"securefs: the audit journal cannot be ")


# --- decrypt


def test_a_decrypted_file_is_recorded_before_it_is_written(run, journal):
    path = sealed(b"the content")
    assert run("decrypt", path, "-o", "-").out == b"the content"
    ((event, outcome, reason, obj, actor),) = told(journal)
    assert (event, outcome, reason, actor) == ("file.open", "success", None, ME)
    assert (obj["name"], obj["size"], obj["format"]) == ("a.txt.enc", 11, 2)
    assert len(obj["id"]) == 64


def test_so_is_one_from_a_pipe(run, journal, pipe):
    raw = sealed(bytes(3_000_000)).read_bytes()
    assert len(run("decrypt", "-", stdin=pipe(raw)).out) == 3_000_000
    ((event, outcome, _, obj, _),) = told(journal)
    assert (event, outcome, obj.keys()) == ("file.open", "success", {"id", "key_id", "format", "suite"})


def test_a_file_that_does_not_verify_is_an_alarm(run, journal, pipe):
    path = sealed(bytes(3_000_000))
    raw = bytearray(path.read_bytes())
    raw[-70_000] ^= 1
    path.write_bytes(raw)
    assert run("decrypt", path, "-o", "-").code == 1
    assert told(journal) == [("file.integrity_failure", "failure", "tag_mismatch", {"name": "a.txt.enc"}, ME)]
    assert run("decrypt", "-", stdin=pipe(bytes(raw))).code == 1
    assert [line[:3] for line in told(journal)[1:]] == [
        ("file.open", "success", None),
        ("file.integrity_failure", "failure", "tag_mismatch"),
    ]


def test_a_source_that_is_none_is_a_failure_and_a_wrong_option_is_nothing(run, journal):
    Path("a.txt").write_bytes(b"no ciphertext at all")
    assert run("decrypt", "a.txt", "-o", "-").code == 1
    assert run("decrypt", "missing.enc", "-o", "-").code != 0
    assert run("decrypt", sealed(), "--sealed-name").code == 2
    assert [(line[0], line[1], line[3]) for line in told(journal)] == [
        ("file.open", "failure", {"name": "a.txt"}),
        ("file.open", "failure", {"name": "missing.enc"}),
    ]


@pytest.mark.parametrize("piped", [False, True])
def test_nothing_is_written_that_cannot_be_recorded(run, journal, monkeypatch, pipe, piped):
    path = sealed(bytes(3_000_000))
    full(monkeypatch)
    if piped:
        result = run("decrypt", "-", "-o", "target", stdin=pipe(path.read_bytes()))
    else:
        result = run("decrypt", path, "-o", "target")
    assert result.code != 0
    assert "the audit journal cannot be " in result.line
    assert not Path("target").exists()
    assert chain_files(journal) == []


def test_a_format_1_file_has_no_id(run, journal):
    Path("old").write_bytes(seal_1(b"old content"))
    result = run("decrypt", "old", "--format-1", "-o", "-")
    assert result.out == b"old content", result.err
    assert told(journal)[0][3].keys() == {"key_id", "format", "size", "name"}


def test_what_is_changed_in_bulk_names_who_did_it_too(run, journal):
    Path("files").mkdir()
    Path("files/a.txt").write_bytes(b"plaintext")
    assert run("import", "files", "--context", "").code == 0
    assert run("reencrypt", "files", "--all", "--context", "").code in {0, 1}
    assert run("rewrap", "files", "--context", "").code == 0
    done = told(journal)
    assert done[0][0] == "file.import"
    assert {line[4] for line in done} == {ME}
