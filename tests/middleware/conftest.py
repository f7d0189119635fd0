from __future__ import annotations

from pathlib import Path

import pytest
from support.journals import all_records
from support.uploads import Lab

from securefs import Keyring
from securefs.audit import Journal


@pytest.fixture(scope="session")
def keyring():
    return Keyring(bytes(range(32)), [bytes(range(1, 33))])


class Evidence(Journal):
    """A real journal that can read back what it wrote."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, names="clear")
        self.folder = folder

    def lines(self) -> list[dict]:
        return all_records(self.folder)

    def events(self) -> list[tuple]:
        """Return (event, outcome, reason) of every record of a request."""
        return [
            (line["event"], line["outcome"], line.get("reason"))
            for line in self.lines()
            if not line["event"].startswith("server.")
        ]


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
