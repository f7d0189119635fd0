"""Who may write to the journal's folder, and what is read there."""

import os
import stat

import pytest

from securefs.audit import Journal
from securefs.audit.folder import _refuse_stranger, open_regular, prepare_folder
from securefs.errors import ConfigurationError


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "journal"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_folder_that_others_can_write_to_is_refused(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ConfigurationError, match="others can write"):
        Journal(folder)


@pytest.mark.parametrize(
    ("owner", "user", "fit"),
    [
        pytest.param(1000, 1000, True, id="own"),
        pytest.param(0, 1000, True, id="of-root"),
        pytest.param(1000, 0, True, id="root-for-another"),
        pytest.param(1001, 1000, False, id="of-another"),
    ],
)
def test_folder_of_a_stranger_is_refused(folder, owner, user, fit):
    if fit:
        assert _refuse_stranger(folder, owner, user) is None
        return
    with pytest.raises(ConfigurationError, match="belongs to user 1001"):
        _refuse_stranger(folder, owner, user)


def test_folder_is_made_private_and_its_path_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = prepare_folder("made")
    assert path == tmp_path / "made"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert prepare_folder(path) == path


def test_file_is_opened_for_reading(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with open_regular(path) as file:
        assert file.read() == b"content"
        assert not file.writable()


def _link(path):
    path.with_name("elsewhere").write_bytes(b"content of another")
    path.symlink_to(path.with_name("elsewhere"))


def _dangling(path):
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(_link, id="link"),
        pytest.param(_dangling, id="dangling link"),
        pytest.param(os.mkfifo, id="pipe"),
        pytest.param(os.mkdir, id="folder"),
    ],
)
def test_what_is_no_file_is_not_opened(tmp_path, make):
    """A pipe in particular: opened as a file is, it would hold whoever reads for ever."""
    make(tmp_path / "name")
    assert open_regular(tmp_path / "name") is None


def test_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "none")
