"""A file appears whole or not at all, whatever fails while it is written."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from securefs import (
    ConfigurationError,
)
from securefs.disk import write_atomically


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_target_created_in_the_meantime_is_kept(tmp_path):
    target = tmp_path / "target"
    writing = write_atomically(target)
    writing.__enter__().write(b"ours")
    target.write_bytes(b"theirs")
    with pytest.raises(ConfigurationError, match="exists already"):
        writing.__exit__(None, None, None)
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == {"target"}


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_file_system_without_hard_links_will_do(tmp_path, monkeypatch, code):
    """Such as FAT, which no test may mount: so the system call fails here as it does there."""
    monkeypatch.setattr(os, "link", failing(code))
    with write_atomically(tmp_path / "target") as file:
        file.write(b"data")
    assert (tmp_path / "target").read_bytes() == b"data"
    assert names(tmp_path) == {"target"}


def test_any_other_failure_to_put_the_file_in_place_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    with pytest.raises(OSError, match="broken"), write_atomically(tmp_path / "target") as file:
        file.write(b"data")
    assert names(tmp_path) == set()


def failing(code: int):
    def link(source, target):
        raise OSError(code, "broken")

    return link


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, OSError])
@pytest.mark.parametrize("overwrite", [True, False])
def test_whatever_is_raised_while_writing_leaves_all_as_it_was(tmp_path, error, overwrite):
    target = tmp_path / "target"
    if overwrite:
        target.write_bytes(b"kept")
    with pytest.raises(error):
        write_half(target, error, overwrite)
    assert names(tmp_path) == ({"target"} if overwrite else set())
    if overwrite:
        assert target.read_bytes() == b"kept"


def write_half(target: Path, error: type[BaseException], overwrite: bool) -> None:
    with write_atomically(target, overwrite=overwrite) as file:
        file.write(b"half")
        file.flush()
        assert len(names(target.parent)) == 1 + overwrite
        raise error


def test_the_temporary_file_is_private_and_beside_the_target(tmp_path):
    with write_atomically(tmp_path / "target") as file:
        file.write(b"x")
        (temporary,) = tmp_path.iterdir()
        assert temporary.name.startswith(".target.")
        assert temporary.suffix == ".tmp"
        assert mode(temporary) == 0o600


@pytest.mark.parametrize("name", ["a" * 255, "ä" * 127, "😀" * 63, "\udcff" * 250])
def test_the_longest_names_are_no_trouble(tmp_path, name):
    with write_atomically(tmp_path / name) as file:
        file.write(b"x")
    assert names(tmp_path) == {name}
