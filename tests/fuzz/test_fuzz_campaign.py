"""The seeded campaign: its inputs and its verdict follow from the seed and the repository alone.

Where uploads are broken on purpose, it fails.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from hashlib import sha256
from itertools import islice
from pathlib import Path

import pytest
from fuzz import campaign, upload_property
from fuzz.mutation import Mutator, dictionary
from fuzz.upload_property import FIXED_TYPE, check, encode

from securefs.header import MAGIC
from securefs.middleware.upload import UploadPipeline

ROOT = Path(__file__).resolve().parents[2]
FIELD = b'--XX\r\nContent-Disposition: form-data; name="n"\r\n\r\na value of n\r\n'
FILE = b'--XX\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n%b\r\n'
BODY = FIELD + FILE % b"a plaintext of some length" + b"--XX--\r\n"
KNOWN = [encode(FIXED_TYPE, BODY, (0, 0, 0, 0)), encode("text/plain", b"abc", (7, 1, 2, 3)), b"", b"\xff"]
WORDS = [b"\r\n", b'"', b"..\\"]
LONGEST = 300


def drawn(seed, count=5000):
    return list(islice(Mutator(seed, KNOWN, WORDS, LONGEST), count))


def test_a_seed_gives_the_same_inputs_on_every_version_of_python():
    """Whoever changes the mutations on purpose writes the new digest here."""
    assert sha256(b"|".join(drawn(1))).hexdigest()[:16] == "b974f661f6e26ecd"


def test_another_seed_gives_other_inputs():
    assert len(set(drawn(1)) & set(drawn(2))) < 500


def test_inputs_are_varied_and_short():
    inputs = drawn(1)
    assert len(set(inputs)) > 3500
    assert max(map(len, inputs)) == LONGEST
    assert len({data[:1] for data in inputs}) >= 32, "how they are sent and read varies too"
    assert not set(inputs) <= set(KNOWN)


def test_the_dictionary_is_read_as_libfuzzer_reads_it():
    words = dictionary(campaign.DICTIONARY)
    assert {b"\r\n", b"--XX", b'"', b"\\", b'\\"', b"C:\\", MAGIC, b"\xc3\xa4"} <= set(words)
    text = campaign.DICTIONARY.read_text("ascii")
    assert len(words) == sum(line.startswith('"') for line in text.splitlines())


def run_seeded(hash_seed, *arguments):
    """Run the script with this PYTHONHASHSEED; return its exit code, output and errors.

    The name of its temporary folder is replaced.
    """
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/fuzz/campaign.py"), *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, re.sub(r"securefs-fuzz-\w+", "FOLDER", done.stdout), done.stderr


def test_a_seed_gives_the_same_figures_in_every_process():
    """The digest of all inputs is among the figures."""
    one, other = (run_seeded(hash_seed, "--seed", "7", "--runs", "150") for hash_seed in ("0", "4242"))
    assert one == other
    status, out, err = one
    assert (status, err) == (0, "")
    assert re.search(
        r"^seed 7: 150 inputs \(SHA-256 [0-9a-f]{16}\): \d+ accepted, .*\d+ refused", out, re.MULTILINE
    )
    assert "finding" not in out


def test_an_input_is_answered_alike_to_the_byte_each_time():
    """Boundaries, keys and IVs follow from the input, so no chance is left in a verdict."""
    plan = upload_property.decode(KNOWN[0])
    seen = []
    for data in (KNOWN[0], KNOWN[0], KNOWN[0] + b"\r\n"):
        with upload_property.drawn_from(data):
            seen.append(upload_property.send(plan)[1].got)
    assert seen[0] == seen[1] != seen[2]
    assert upload_property.send(plan)[1].got != upload_property.send(plan)[1].got, "drawn again afterwards"


def test_a_content_that_goes_on_as_a_boundary_may_begin_is_no_leak():
    for digit in b"0123456789abcdef":
        for way in range(9):
            body = FIELD + FILE % (b"a value of n\r\n--%c" % digit) + b"--XX--\r\n"
            check(encode(FIXED_TYPE, body, (0, 0, way, 0)))


@pytest.mark.parametrize("name", [rb"a..\%22b", rb"C:a\%22b", rb"C:\\a/b\\c", rb"%22:\a", rb"a%\22b"])
def test_a_name_that_parsers_cut_or_decode_in_another_order_is_no_finding(name):
    check(encode(FIXED_TYPE, (FILE % b"x").replace(b'"a"', b'"%b"' % name) + b"--XX--\r\n", (0, 0, 0, 0)))


def pass_files_as_fields(patch):
    """What an app would store in plaintext."""
    patch.setattr(UploadPipeline, "_file", UploadPipeline._field)


def test_a_seeded_campaign_finds_what_is_broken_and_prints_the_input(monkeypatch, tmp_path, capsys):
    with monkeypatch.context() as patch:
        pass_files_as_fields(patch)
        assert campaign.seeded(tmp_path, 1, 1000) == 1
    out = capsys.readouterr().out
    assert "AssertionError" in out
    found = re.findall(
        r"^FINDING (\S+): python tests/fuzz/campaign\.py --replay \1\n  in base64: (\S+)$", out, re.MULTILINE
    )
    assert len(found) == campaign.MOST_FINDINGS, "it goes on behind the first, and not for ever"
    assert f"{campaign.MOST_FINDINGS} finding" in out.splitlines()[-1]
    for path, text in found:
        data = Path(path).read_bytes()
        assert base64.b64decode(text) == data
        check(data)
        with monkeypatch.context() as patch:
            pass_files_as_fields(patch)
            with pytest.raises(AssertionError):
                check(data)


def test_the_input_under_way_is_on_the_disk_should_the_process_end(monkeypatch, tmp_path):
    """A crash of a library, or a kill of what hangs, leaves no time to tell."""
    at = []

    def ended(data):
        at.append(data)
        if len(at) == 3:
            raise SystemExit
        return "accepted"

    monkeypatch.setattr(campaign, "check", ended)
    with pytest.raises(SystemExit):
        campaign.seeded(tmp_path, 1, 1000)
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == at[2]


def test_replay_says_what_an_input_is_and_what_becomes_of_it(tmp_path):
    path = tmp_path / "input"
    path.write_bytes(KNOWN[0])
    status, out, _ = run_seeded("0", "--replay", str(path))
    assert status == 0
    assert out.startswith("Plan(content_type='multipart/form-data; boundary=XX'")
    assert out.endswith("\naccepted\n")


def test_ci_takes_the_seeded_campaign_and_no_random_one():
    """The same commit must get the same verdict each time."""
    commands = re.findall(r"\bmake (fuzz[\w-]*)", (ROOT / ".ci/run").read_text())
    assert set(commands) == {"fuzz-seeded"}
