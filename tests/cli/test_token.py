"""``securefs token``."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.servers import DEADLINE, python_environ


def test_tokens_are_added_listed_and_revoked(run, monkeypatch):
    monkeypatch.setenv("SECUREFS_DATA_DIR", "data")
    added = run("token", "add", "zoë")
    assert added.code == 0
    assert added.out.startswith(b"sfs_")
    assert "only now" in added.line
    token_id = added.out.split(b"_")[1].decode()
    assert run("token", "add", "bob", "--data-dir", "data").code == 0
    listed = run("token", "list")
    assert listed.out.decode().count("\n") == 2
    assert f"{token_id}  " in listed.out.decode()
    assert "zoë" in listed.out.decode()
    assert added.out.strip().split(b"_")[2] not in listed.out
    document = json.loads(run("token", "list", "--json").out)
    assert {token["name"] for token in document["tokens"]} == {"zoë", "bob"}
    assert run("token", "revoke", token_id).out == b"revoked: 1\n"
    assert run("token", "revoke", "bob").out == b"revoked: 1\n"
    assert run("token", "list").out == b""


# Runs a command as if Werkzeug and gunicorn were not installed.
MINIMAL = """
import sys
sys.modules["werkzeug"] = sys.modules["gunicorn"] = None
from securefs.cli import main
sys.exit(main())
"""


def test_tokens_need_no_server_package(tmp_path):
    command = [sys.executable, "-c", MINIMAL, "token", "add", "ann", "--data-dir", str(tmp_path / "data")]
    done = subprocess.run(command, env=python_environ(), capture_output=True, check=False, timeout=DEADLINE)
    assert (done.returncode, done.stdout[:4]) == (0, b"sfs_")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("who", ["nobody", "\udcff", "a\nb", ""])
def test_nobody_of_that_name_is_one_line(run, who):
    result = run("token", "revoke", who, "--data-dir", "data")
    assert result.code == 2
    assert "no token has the id or name" in result.line


@pytest.mark.parametrize("fault", ["folder", "text", "missing"])
def test_a_data_folder_that_cannot_be_used_is_one_line(run, tmp_path, fault):
    folder = tmp_path / "data"
    if fault != "missing":
        folder.mkdir(0o700)
    if fault == "folder":
        (folder / "securefs.sqlite3").mkdir()
    elif fault == "text":
        (folder / "securefs.sqlite3").write_text("this is no database")
    result = run("token", "list", "--data-dir", folder / "below" if fault == "missing" else folder)
    assert result.code == 2
    assert result.line.startswith("SECUREFS_DATA_DIR: ")


def test_without_a_data_folder_it_says_which_variable_to_set(run):
    result = run("token", "list")
    assert (result.code, result.line.split(":")[0]) == (2, "SECUREFS_DATA_DIR is not set")
