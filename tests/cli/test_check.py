"""``securefs check``: one line for each setting, and no file left behind."""

from __future__ import annotations

import base64
import json
import os
import re
import tempfile
from pathlib import Path

import pytest
from support.commands import KEY, OTHER_KEY
from support.journals import NOBODY, unprivileged
from support.reference_app import Site

from securefs import Keyring, __version__
from securefs.cli.check import VARIABLES

NAMES = ["versions", "variables", "keys", "places", "journal", "data"]


def lines(result):
    """Return {name: (verdict, text)} of what was printed."""
    found = re.findall(r"^(ok|FAILED) +([a-z]+): (.*)$", result.out.decode(), re.MULTILINE)
    assert [name for _, name, _ in found] == NAMES
    assert result.err == ""
    assert result.out.count(b"\n") == len(NAMES)
    return {name: (verdict, text) for verdict, name, text in found}


def failures(result):
    failed = {name: text for name, (verdict, text) in lines(result).items() if verdict == "FAILED"}
    assert result.code == bool(failed)
    return failed


def test_a_key_alone_is_enough(run, tmp_path):
    result = run("check")
    told = lines(result)
    assert failures(result) == {}
    assert f"securefs {__version__}, Python " in told["versions"][1]
    assert "pycryptodome " in told["versions"][1]
    assert told["keys"][1] == f"new files are sealed under key {Keyring(KEY).primary_id.hex()}"
    assert told["places"][1].startswith("none in the environment")
    assert told["journal"][1].startswith("lines on standard error")
    assert told["data"][1] == "SECUREFS_DATA_DIR is not set, so this is not the reference app"
    assert list(tmp_path.iterdir()) == []


def test_a_package_that_is_missing_is_told(run, monkeypatch):
    monkeypatch.setattr("securefs.cli.check.PACKAGES", ("no-such-package",))
    assert lines(run("check"))["versions"][1].endswith(", no-such-package not installed")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SECUREFS_STORE", "SECUREFS_STORES"),
        ("SECUREFS_PROTECTED_PATH", "SECUREFS_PROTECTED_PATHS"),
        ("SECUREFS_PROTECTED-PATHS", "SECUREFS_PROTECTED_PATHS"),
        ("SECUREFS_RAW_UPLOAD", "SECUREFS_RAW_UPLOADS"),
        ("SECUREFS_AUDITDIR", "SECUREFS_AUDIT_DIR"),
        ("FILE_KEY_BASE64_PREVIOUS_FILES", "FILE_KEY_BASE64_PREVIOUS_FILE"),
        ("FILE_KEY_BASE_64", "FILE_KEY_BASE64"),
    ],
)
def test_a_misspelled_variable_is_told(name, meant, run, monkeypatch):
    """Its setting would not be in force, and nothing else says so."""
    monkeypatch.setenv(name, "anything")
    assert failures(run("check")) == {"variables": f"{name} is not read by securefs: is {meant} meant?"}


def test_a_variable_of_somebody_else_is_no_failure(run, monkeypatch):
    monkeypatch.setenv("SECUREFS_OUR_HOME", "/srv")
    result = run("check")
    assert failures(result) == {}
    assert lines(result)["variables"][1] == "FILE_KEY_BASE64 set; not read: SECUREFS_OUR_HOME"


def test_the_variables_are_those_that_the_code_reads():
    root = Path(__file__).resolve().parents[2]
    pattern = re.compile(r"\b(?:SECUREFS|FILE_KEY)_[A-Z0-9_]+[A-Z0-9]\b")
    files = [root / "gunicorn.conf.py"]
    files += [path for room in ("securefs", "middleware", "audit") for path in (root / room).rglob("*.py")]
    found = {
        name.removesuffix("_FILE")
        for path in files
        if path.resolve() != (root / "securefs/cli/check.py")
        for name in pattern.findall(path.read_text("utf-8"))
    }
    assert found == set(VARIABLES)


def test_everything_that_is_set_is_told(run, rotating, monkeypatch, tmp_path):
    Path("store").mkdir()
    Path("journal").mkdir(mode=0o700)
    monkeypatch.setenv("SECUREFS_STORES", "store")
    monkeypatch.setenv("SECUREFS_PROTECTED_PATHS", "/files/*")
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    result = run("check")
    assert failures(result) == {}
    told = lines(result)
    assert told["keys"][1].endswith(f"; previous keys: {Keyring(KEY).primary_id.hex()}")
    assert told["places"][1] == "declared: store, /files/*"
    assert told["journal"][1] == "journal is private and can be written"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["journal", "store"]


@pytest.mark.parametrize(
    ("variable", "value", "name", "text"),
    [
        ("FILE_KEY_BASE64", "c2hvcnQ=", "keys", "FILE_KEY_BASE64"),
        ("SECUREFS_STORES", "nowhere", "places", "SECUREFS_STORES"),
        ("SECUREFS_SUITE", "rot13", "places", "SECUREFS_SUITE"),
        ("SECUREFS_AUDIT_DIR", "open", "journal", "others can write"),
        ("SECUREFS_AUDIT_DIR", " ", "journal", "SECUREFS_AUDIT_DIR"),
        ("SECUREFS_AUDIT_DIR", "no/where", "journal", "no does not exist"),
        ("SECUREFS_AUDIT_SYNC", "never", "journal", "SECUREFS_AUDIT_SYNC"),
        ("SECUREFS_DATA_DIR", "open", "data", "other users can write"),
        ("SECUREFS_DATA_DIR", "no/where", "data", "no does not exist"),
        ("SECUREFS_DATA_DIR", "x" * 300, "data", "File name too long"),
    ],
)
def test_what_cannot_be_used_is_named_and_the_rest_is_looked_at_all_the_same(
    run, monkeypatch, variable, value, name, text
):
    Path("open").mkdir()
    Path("open").chmod(0o777)
    monkeypatch.setenv(variable, value)
    before = sorted(Path().rglob("*"))
    failed = failures(run("check"))
    assert list(failed) == [name]
    assert text in failed[name]
    assert "c2hvcnQ" not in failed[name]
    assert sorted(Path().rglob("*")) == before


def test_missing_folders_are_in_order_where_the_app_can_make_them(run, monkeypatch, tmp_path):
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    result = run("check", "--data-dir", "data")
    assert failures(result) == {}
    told = lines(result)
    assert told["journal"][1] == "journal is missing; the app makes it when it starts"
    assert told["data"][1] == "data is missing; the app makes it when it starts"
    assert told["places"][1] == "the reference app declares its own"
    assert list(tmp_path.iterdir()) == []
    Path("data").mkdir(mode=0o700)
    assert lines(run("check", "--data-dir", "data"))["data"][1] == "data holds no files yet"
    assert list(Path("data").iterdir()) == []


def test_folders_that_this_user_cannot_write_to_fail(run, monkeypatch):
    # Not under tmp_path, whose parents nobody else may enter.
    with tempfile.TemporaryDirectory() as here:
        Path(here).chmod(0o755)
        for name in ("journal", "data"):
            folder = Path(here, name)
            folder.mkdir()
            folder.chmod(0o500)
            if os.geteuid() == 0:
                os.chown(folder, NOBODY, NOBODY)
        monkeypatch.setenv("SECUREFS_AUDIT_DIR", f"{here}/journal")
        monkeypatch.setenv("SECUREFS_DATA_DIR", f"{here}/data")
        with unprivileged(here):
            run("--version")  # what was printed until here is no line of the command
            failed = failures(run("check"))
    assert failed == {
        "journal": f"SECUREFS_AUDIT_DIR: {here}/journal cannot be written by this user",
        "data": f"SECUREFS_DATA_DIR: {here}/data cannot be written by this user",
    }


def test_the_keys_of_a_data_folder_are_told_from_others(run, monkeypatch, tmp_path):
    site = Site(tmp_path)
    site.upload(("a", b"1"))
    monkeypatch.setenv("FILE_KEY_BASE64", (tmp_path / "file.key").read_text().strip())
    before = sorted(tmp_path.rglob("*"))
    result = run("check", "--data-dir", site.data)
    assert failures(result) == {}
    assert lines(result)["data"][1].endswith("and the keys are those of its files")
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(OTHER_KEY).decode())
    failed = failures(run("check", "--data-dir", site.data))
    assert list(failed) == ["data"]
    assert failed["data"].startswith("FILE_KEY_BASE64: no key of the keyring opens key-check.enc")
    (site.data / "key-check.enc").unlink()
    result = run("check", "--data-dir", site.data)
    assert lines(result)["data"][1].endswith("the next start makes key-check.enc")


def test_json_for_programs(run, monkeypatch):
    monkeypatch.setenv("SECUREFS_STORES", "nowhere")
    result = run("check", "--json")
    checks = json.loads(result.out)["checks"]
    assert [check["name"] for check in checks] == NAMES
    assert [check["name"] for check in checks if not check["ok"]] == ["places"]
    assert all(check["message"] for check in checks)
    assert result.code == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    ("variable", "name"), [("SECUREFS_AUDIT_DIR", "journal"), ("SECUREFS_DATA_DIR", "data")]
)
def test_root_is_told_to_be_the_service(run, monkeypatch, variable, name):
    Path("folder").mkdir(mode=0o700)
    os.chown("folder", NOBODY, NOBODY)
    monkeypatch.setenv(variable, "folder")
    assert "this is root" in failures(run("check"))[name]
    assert list(Path("folder").iterdir()) == []
