from __future__ import annotations

import pytest
from support.journals import Evidence
from support.uploads import Lab

from securefs import Keyring


@pytest.fixture(scope="session")
def keyring():
    return Keyring(bytes(range(32)), [bytes(range(1, 33))])


@pytest.fixture
def journal(tmp_path):
    evidence = Evidence(tmp_path / "audit")
    yield evidence
    evidence.close()


@pytest.fixture
def lab_of(tmp_path):
    labs = []

    def make(app=None, **options):
        folder = tmp_path / str(len(labs))
        folder.mkdir()
        labs.append(Lab(folder, app, **options))
        return labs[-1]

    yield make
    for lab in labs:
        lab.close()
