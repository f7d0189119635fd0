"""What belongs to a service is not written to as root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.commands import sealed
from support.journals import NOBODY

from securefs.cli.service import refuse_root
from securefs.errors import ConfigurationError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NAMELESS = 64_999  # a user id that has no name


def of_the_service(name, user=NOBODY):
    path = Path(name)
    path.mkdir(mode=0o700)
    os.chown(path, user, user)
    return path


@as_root
def test_rewrap_as_root_leaves_no_file_of_root_in_a_service_s_journal(run, rotating, monkeypatch):
    before = sealed().read_bytes()
    folder = of_the_service("journal")
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    result = run("rewrap", "a.txt.enc")
    assert result.code == 2
    assert result.line == (
        f"SECUREFS_AUDIT_DIR: {folder.absolute()} belongs to nobody, and this is root, whose files nobody could not use; "
        "run the command as that user (sudo -u nobody), or without SECUREFS_AUDIT_DIR"
    )
    assert Path("a.txt.enc").read_bytes() == before
    assert list(folder.iterdir()) == []
    monkeypatch.delenv("SECUREFS_AUDIT_DIR")
    assert run("rewrap", "a.txt.enc").code == 0


@as_root
@pytest.mark.parametrize("command", [["token", "add", "ann"], ["token", "revoke", "ann"], ["token", "list"]])
def test_the_reference_app_s_database_is_not_made_by_root(run, monkeypatch, command):
    folder = of_the_service("data")
    for options in (["--data-dir", "data"], []):
        result = run(*command, *options)
        assert (result.code, "data belongs to nobody" in result.line) == (2, True)
        monkeypatch.setenv("SECUREFS_DATA_DIR", "data")
    assert list(folder.iterdir()) == []


@as_root
def test_a_folder_that_would_be_made_counts_as_the_one_above_it():
    of_the_service("service", NAMELESS)
    with pytest.raises(ConfigurationError, match=f"service belongs to #{NAMELESS}.*sudo -u #{NAMELESS}"):
        refuse_root("SECUREFS_AUDIT_DIR", "service/a/b")
    refuse_root("SECUREFS_AUDIT_DIR", "own/a/b")
    assert not Path("own").exists()


@as_root
def test_whoever_is_not_root_is_asked_nothing():
    folder = of_the_service("service", NAMELESS)
    os.seteuid(NOBODY)
    try:
        refuse_root("SECUREFS_AUDIT_DIR", str(folder))
    finally:
        os.seteuid(0)
