"""Who may write to the journal's folder, and what is read there."""

import pytest

from securefs.audit import Journal
from securefs.audit.folder import _refuse_stranger
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
        _refuse_stranger(folder, owner, user)
        return
    with pytest.raises(ConfigurationError, match="belongs to user 1001"):
        _refuse_stranger(folder, owner, user)
