"""The documentation's own verifier is run, so that it stays true."""

import re

import pytest
from support.journals import ROOT, only_chain, run_script

from securefs.audit import Entry, Journal
from securefs.audit.events import EVENTS
from securefs.errors import Reason

TEXT = (ROOT / "docs" / "journal.md").read_text()
CODE = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]


@pytest.fixture
def folder(tmp_path):
    journal = Journal(tmp_path / "j")
    for _ in range(3):
        journal.record(Entry("file.decrypt", obj={"name": "\U0001f600\ud800\n", "size": 1}))
    journal.close()
    return tmp_path / "j"


def test_verifier_by_hand_accepts_a_journal(folder):
    out, _ = run_script(CODE, folder)
    assert out.decode().endswith("-0.jsonl: 5 records, 0 torn bytes: intact\n")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param(b'"size":1', b'"size":2', id="edited"),
        pytest.param(b'"size":1', b'"size": 1', id="spelled-differently"),
        pytest.param(b'"seq":2', b'"seq":3', id="renumbered"),
        pytest.param(b"{", b"", id="no-record"),
    ],
)
def test_verifier_by_hand_finds_a_change(folder, old, new):
    path = only_chain(folder)
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    out, _ = run_script(CODE, folder)
    assert out.decode().endswith("TAMPERED\n")


@pytest.mark.parametrize("word", sorted(EVENTS.keys() | {reason.value for reason in Reason}))
def test_closed_lists_are_documented(word):
    assert f"`{word}`" in TEXT
