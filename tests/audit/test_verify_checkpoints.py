"""The checkpoints as they stand in their file; test_verify_log.py changes each byte of them."""

from __future__ import annotations

import pytest
from support.logs import new_key, sealed, signature_line
from support.look import codes, look


@pytest.fixture
def log(tmp_path):
    return sealed(tmp_path / "j")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        pytest.param(lambda note: note.replace("\n\n", "\nextension\n\n", 1), "checkpoint", id="extension"),
        pytest.param(lambda note: note.replace("— ", "- "), "checkpoint", id="no-dash"),
        pytest.param(lambda note: note + note.split("\n\n")[1], "signature", id="signature-twice"),
        pytest.param(lambda note: note.replace("files-1", "files-2"), "checkpoint", id="another-origin"),
        pytest.param(lambda note: note.replace("\n\n", "\n\n" + "x" * 70_000), "checkpoint", id="endless"),
    ],
)
def test_a_checkpoint_in_another_spelling(log, change, code):
    log.notes[1] = change(log.notes[1])
    report = look(log.save())
    assert code in codes(report)
    assert report.exit_code == 1


def test_signatures_of_others_are_ignored(log):
    text = log.text(log.sizes[1])
    log.notes[1] += signature_line("other.example/x", new_key(), text)
    assert look(log.save()).exit_code == 0


def test_the_finding_says_where_the_checkpoint_begins(log):
    log.notes[1] = log.notes[1].replace(log.notes[1][-20:-4], "A" * 16)
    (finding,) = look(log.save()).findings
    assert (finding.code, finding.file) == ("signature", "checkpoints")
    assert finding.offset == len(log.notes[0].encode()) + 1
    assert "checkpoint 1" in finding.message


def test_a_file_that_was_verified_before_and_is_shorter_now(log):
    state = look(log).log.state
    path = log.log / "checkpoints"
    path.write_bytes(path.read_bytes()[:-40])
    assert codes(look(log, state=state)) == {"checkpoint"}
