"""Witnesses and checkpoints kept elsewhere: what they saw must be in the log."""

from __future__ import annotations

import pytest
from support.logs import cosignature_line, new_key, sealed, vkey
from support.look import codes, look

from securefs.errors import ConfigurationError

NAME = "witness.example/w1"


@pytest.fixture
def log(tmp_path):
    return sealed(tmp_path / "j")


def cosign(log, index, key, *, time=None, name=NAME):
    """Let a witness cosign a checkpoint."""
    text = log.text(log.sizes[index])
    time = int(log.seconds) if time is None else time
    with (log.log / "cosignatures").open("a") as file:
        file.write(f"{log.notes[index]}{cosignature_line(name, key, text, time)}\n")


def test_a_witnessed_log(log):
    key = new_key()
    cosign(log, 1, key, time=1_790_000_001)
    cosign(log, 2, key, time=1_790_000_002)
    report = look(log, log.vkey(), vkey(NAME, key, 4), strict=True)
    assert (report.exit_code, report.findings) == (0, ())
    (witnessed,) = report.log.witnessed
    assert (witnessed.witness, witnessed.size, witnessed.time) == (NAME, log.sizes[2], "2026-09-21T14:13:22Z")
    assert any(f"witnessed: {NAME!a} cosigned {log.sizes[2]} records" in line for line in report.lines())


def test_strict_asks_for_the_last_checkpoint_of_each_witness(log):
    key, other = new_key(), new_key()
    cosign(log, 1, key)
    pins = (log.vkey(), vkey(NAME, key, 4), vkey("w2", other, 4))
    assert look(log, *pins).exit_code == 0
    report = look(log, *pins, strict=True)
    assert report.exit_code == 3
    assert [f"the witness {name} has not cosigned the last checkpoint" for name in (NAME, "w2")] == list(
        report.reasons
    )


def test_strict_asks_for_a_witness(log):
    report = look(log, strict=True)
    assert report.exit_code == 3
    assert any("no witness is pinned" in reason for reason in report.reasons)


def test_a_cosignature_by_somebody_else_counts_for_nothing(log):
    cosign(log, 2, new_key())
    report = look(log, log.vkey(), vkey(NAME, new_key(), 4), strict=True)
    assert (report.exit_code, report.findings, report.log.witnessed) == (3, (), ())


def test_a_wrong_cosignature_of_a_pinned_witness(log):
    key = new_key()
    cosign(log, 2, key)
    path = log.log / "cosignatures"
    path.write_text(path.read_text().replace(log.text(log.sizes[2]), log.text(log.sizes[1])))
    assert codes(look(log, log.vkey(), vkey(NAME, key, 4))) == {"signature"}


def test_what_is_no_cosigned_checkpoint(log):
    path = log.log / "cosignatures"
    key = new_key()
    path.write_text("text\n\n- no signature\n\n")
    assert look(log).exit_code == 0, "nobody asked for it"
    assert codes(look(log, log.vkey(), vkey(NAME, key, 4))) == {"checkpoint"}


def test_a_cosignature_that_a_crash_cut(log):
    key = new_key()
    cosign(log, 1, key)
    cosign(log, 2, key)
    path = log.log / "cosignatures"
    path.write_bytes(path.read_bytes()[:-9])
    report = look(log, log.vkey(), vkey(NAME, key, 4))
    assert report.exit_code == 0
    assert report.log.witnessed[0].size == log.sizes[1]


def cut(log, rounds):
    """Cut chains and log, consistently, to an older checkpoint."""
    files = (log.log / "cosignatures").read_bytes() if (log.log / "cosignatures").exists() else b""
    young = sealed(log.folder.parent / "young", rounds=rounds)
    young.folder, log.folder = log.folder, young.folder
    young.save()
    (young.log / "cosignatures").write_bytes(files)
    return young


def test_a_log_cut_to_before_what_a_witness_saw(log):
    """The consistent cut that nothing in the files shows."""
    key = new_key()
    size = log.sizes[1]
    cosign(log, 2, key)
    # An honest copy of the state after the second checkpoint.
    del log.notes[2:]
    own = log.sealers[0]
    taken = {}
    import json

    for line in log.lines[own]:
        seal = json.loads(line).get("seal")
        if seal is not None and seal["index"] < 2:
            taken |= {chain: last + 1 for chain, _, last in seal["runs"]}
    log.lines = {chain: lines[: taken[chain]] for chain, lines in log.lines.items()}
    log.leaves = log.leaves[:size]
    log.save()
    assert look(log).exit_code == 0, "nobody can tell"
    report = look(log, log.vkey(), vkey(NAME, key, 4))
    (finding,) = report.findings
    assert "it was cut, or is another one" in finding.message
    assert report.exit_code == 1


def test_another_root_than_a_witness_saw(log, tmp_path):
    key = new_key()
    other = sealed(tmp_path / "other")
    text = f"{log.origin}\n" + other.text(other.sizes[1]).split("\n", 1)[1]
    with (log.log / "cosignatures").open("a") as file:
        file.write(f"{text}\n{cosignature_line(NAME, key, text, 5)}\n")
    (finding,) = look(log, log.vkey(), vkey(NAME, key, 4)).findings
    assert "is not in this log: it was written anew" in finding.message


def test_a_size_between_two_checkpoints(log):
    key = new_key()
    text = log.text(log.sizes[1] - 1)
    with (log.log / "cosignatures").open("a") as file:
        file.write(f"{text}\n{cosignature_line(NAME, key, text, 5)}\n")
    assert codes(look(log, log.vkey(), vkey(NAME, key, 4))) == {"log"}


def test_a_checkpoint_of_another_log(log, tmp_path):
    key = new_key()
    other = sealed(tmp_path / "other", origin="files-2/securefs-ffffffff")
    cosign(other, 1, key)
    (log.log / "cosignatures").write_bytes((other.log / "cosignatures").read_bytes())
    (finding,) = look(log, log.vkey(), vkey(NAME, key, 4)).findings
    assert "which is another one" in finding.message


def test_a_cosignature_of_the_far_future_is_told_in_seconds(log):
    key = new_key()
    cosign(log, 2, key, time=2**62)
    report = look(log, log.vkey(), vkey(NAME, key, 4))
    assert report.log.witnessed[0].time == f"second {2**62}"


# Checkpoints that the auditor kept.


@pytest.mark.parametrize("whole", [True, False], ids=["notes", "one-note"])
def test_a_kept_checkpoint_is_in_the_log(log, tmp_path, whole):
    kept = tmp_path / "kept"
    kept.write_text("".join(f"{note}\n" for note in log.notes[:2]) if whole else log.notes[1])
    assert look(log, anchors=[kept]).exit_code == 0


def test_a_kept_checkpoint_that_is_not_in_the_log(log, tmp_path):
    other = sealed(tmp_path / "other")
    kept = tmp_path / "kept"
    kept.write_text(other.notes[1])
    (finding,) = look(log, anchors=[kept]).findings
    assert (finding.code, finding.file, finding.offset) == ("log", str(kept), 0)


def test_a_kept_checkpoint_is_larger_than_the_log(log, tmp_path):
    kept = tmp_path / "kept"
    log.seal()
    kept.write_text(log.notes[3])
    (finding,) = look(log, anchors=[kept]).findings
    assert "it was cut" in finding.message


@pytest.mark.parametrize("content", [b"", b"text\n", b"text\n\n\xe2\x80\x94 n AAAAAAA=\n\n"])
def test_a_file_without_a_checkpoint_is_a_usage_error(log, tmp_path, content):
    kept = tmp_path / "kept"
    kept.write_bytes(content)
    with pytest.raises(ConfigurationError, match="no checkpoint"):
        look(log, anchors=[kept])


def test_a_file_that_is_missing_is_a_usage_error(log, tmp_path):
    with pytest.raises(ConfigurationError, match="no checkpoint in"):
        look(log, anchors=[tmp_path / "missing"])
