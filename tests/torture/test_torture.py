"""A short campaign finds nothing, and finds each check that is disabled on purpose."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import second_decryptor
from Crypto.Cipher import AES
from support.sealing import LIBRARIES, SUITES, seal_1
from torture import campaign, sealer
from torture.campaign import NAMES, Maker, Tally, run
from torture.dice import Dice
from torture.keyed import Plan
from torture.mutants import KEYLESS
from torture.pool import Pool
from torture.readers import Judge, keyring

from securefs import (
    Decryptor,
    IntegrityError,
    format1,
    format1_reader,
    format2_reader,
    header,
    metadata,
    open_encrypted,
    stream,
    suites,
)
from securefs.keys import slots
from securefs.primitives import _PyCryptodomeGcm
from securefs.stream import Randomness, seal_with

SEED = 7
MUTANTS = 3000
PROGRAM = Path(campaign.__file__)

# Classes of which nothing opens, or nothing is rejected. Of all others both must occur.
ALL_OPEN = {
    "same bytes",
    "table of another shape",
    "slots of others",
    "old slot put back",
    "format 1: same bytes",
}
NONE_OPENS = {
    *("cut", "cut, long", "extended", "extended, long", "inserted", "removed", "other context"),
    *(name for name in NAMES if name.startswith("format 1: ") and name != "format 1: same bytes"),
    *("segments", "several in segments", "several", "moved", "key holder: format 1, zeros behind a key"),
    *("some bytes, long", "a number off", "key holder: forbidden preamble", "key holder: forbidden slot"),
}


@pytest.fixture(scope="module")
def tally() -> Tally:
    return run(SEED, range(MUTANTS))


def test_a_short_campaign_finds_nothing(tally):
    assert "\n".join(campaign.told(SEED, tally)) == ""
    assert tally.counts.total() == MUTANTS


@pytest.mark.parametrize("name", NAMES)
def test_each_class_occurs(tally, name):
    opened = tally.counts[name, "opened"]
    rejected = sum(count for (of, outcome), count in tally.counts.items() if of == name) - opened
    assert opened or name in NONE_OPENS
    assert rejected or name in ALL_OPEN
    assert opened + rejected >= 8


def test_each_reason_occurs_to_those_with_a_key_and_without(tally):
    for names in (set(KEYLESS), set(NAMES) - set(KEYLESS)):
        outcomes = {outcome for name, outcome in tally.counts if name in names}
        reasons = {
            "bad_header",
            "commitment_mismatch",
            "tag_mismatch",
            "truncated",
            "unknown_key",
            "not_encrypted",
        }
        assert outcomes >= {"opened", *reasons}


def digest(seed: int, indices: range) -> str:
    maker, hashed = Maker(seed), hashlib.sha256()
    for index in indices:
        mutant, dice = maker.make(index)
        hashed.update(repr((mutant, dice.below(2**32))).encode())
    return hashed.hexdigest()


def test_a_seed_decides_the_mutants():
    """In any process and in any order. Another seed gives others."""
    first = digest(SEED, range(300))
    path = os.pathsep.join(map(str, (PROGRAM.parents[2], PROGRAM.parents[1], PROGRAM.parent)))
    program = f"import test_torture; print(test_torture.digest({SEED}, range(300)))"
    for hashing in "1", "2":
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": hashing}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )
        assert done.stdout.decode().strip() == first
    assert digest(SEED + 1, range(300)) != first
    alone = Maker(SEED).make(299)[0]
    together = [Maker(SEED).make(index)[0] for index in (5000, 299)][1]
    assert alone == together


def test_the_number_of_processes_changes_nothing():
    together = campaign.campaign(SEED, 240, 2, part=50)
    assert together == run(SEED, range(240))


def test_a_mutant_that_hangs_is_a_finding():
    program = (
        "import time; from torture import campaign; campaign._prepare()\n"
        "campaign.Judge.judge = lambda self, mutant, dice: time.sleep(60)\n"
        "print(campaign.run(1, range(2), limit=0.05).findings)"
    )
    path = os.pathsep.join(map(str, (PROGRAM.parents[2], PROGRAM.parents[1])))
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=True,
    )
    assert done.stdout.decode().count("too slow") >= 1
    assert time.monotonic() - began < 30


def test_the_program_ends_with_0_where_nothing_is_found():
    command = [sys.executable, PROGRAM, "--mutants", "60", "--seed", str(SEED)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "60 mutants of seed 7, each read by five readers" in done.stdout
    assert "nothing found" in done.stdout
    assert "FINDING" not in done.stdout


def test_a_finding_is_printed_with_what_replays_it(monkeypatch, capsys, tmp_path):
    def one_process(seed, mutants, processes):
        return run(seed, range(mutants))

    monkeypatch.setattr(campaign, "campaign", one_process)
    monkeypatch.setattr(campaign, "FOLDER", tmp_path)
    never_compare_tags(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["campaign.py", "--mutants", "150", "--seed", "7"])
    assert campaign.main() == 1
    output = capsys.readouterr().out
    assert "FINDING, " in output
    assert "opened, and must be rejected" in output
    lines = [line.split() for line in output.splitlines() if "--replay" in line]
    seed, index = map(int, lines[0][-1].split(":"))
    mutant = Maker(seed).make(index)[0]
    here = base64.b64encode(mutant.data).decode() in output
    assert here or (tmp_path / f"{seed}-{index}.bin").read_bytes() == mutant.data
    monkeypatch.setattr(sys, "argv", ["campaign.py", "--replay", f"{seed}:{index}"])
    assert campaign.main() == 1
    again = capsys.readouterr().out
    assert f"mutant {index} of seed {seed}: {mutant.name}" in again
    assert "FINDING: " in again


# The sealer and the pool of files.


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("size", [0, 5, 16, 20_000, 65_536, 140_000])
def test_the_sealer_writes_what_the_library_writes(suite, size):
    dice = Dice("sealer", size)
    plan = Plan.of(dice, suite.value, size)
    plan.context, wrap_salt, ivs = b"tenant 7", dice.bytes(32), [dice.bytes(16) for _ in range(9)]
    plan.slots[0] = sealer.wrap(plan.ring[0], plan.dek, wrap_salt, 1, plan.start)
    random = Randomness(plan.file_id, plan.dek, wrap_salt, plan.salt, iter(ivs).__next__)
    ring = keyring(plan.ring)
    options = {"context": plan.context, "metadata_text": plan.text}
    theirs = seal_with(random, plan.plaintext, ring, suite, LIBRARIES[0], **options)
    drawn = iter(ivs)
    assert plan.seal(SimpleNamespace(bytes=lambda size: next(drawn))) == theirs


def test_the_sealer_writes_format_1_as_the_library_does():
    theirs = seal_1(b"some text", bytes(range(24)))
    assert sealer.seal_format_1(bytes(range(24)), theirs[:16], sealer.padded(b"some text")) == theirs


def test_files_of_all_shapes_occur():
    pool, dice = Pool("shapes"), Dice("shapes")
    families = [pool.family(dice, kind) for kind in ("small", "large") for _ in range(80)]
    files = [file for family in families for file in family.files]
    assert {file.suite for file in files} == {1, 2}
    assert {len(file.segments) for file in files} == {1, 2, 3, 4}
    assert {len(file.slots) for file in files} == set(range(1, 9))
    assert {slot[0] for file in files for slot in file.slots if slot} == {1, 2, 3}
    assert {len(file.ring) for file in files} == {1, 2, 4}
    assert {bool(file.sealed_text) for file in files} == {False, True}


# Sabotage.


def never_compare_tags(patch):
    patch.setattr(
        suites, "hmac", SimpleNamespace(new=suites.hmac.new, compare_digest=lambda one, other: True)
    )


def never_compare_gcm_tags(patch):
    def open_(self, nonce, sealed):
        return AES.new(self._key, AES.MODE_GCM, nonce=nonce).decrypt(bytes(sealed)[:-16])

    patch.setattr(_PyCryptodomeGcm, "open", open_)


def never_compare_commitments(patch):
    patch.setattr(stream, "hmac", SimpleNamespace(compare_digest=lambda one, other: True))


def never_compare_tags_of_format_1(patch):
    real = format1.hmac
    patch.setattr(format1, "hmac", SimpleNamespace(new=real.new, compare_digest=lambda one, other: True))


def take_any_trailer_in_streams(patch):
    real = Decryptor.finalize

    def finalize(self):
        self._buffer[-1:] = stream.TRAILER
        return real(self)

    patch.setattr(Decryptor, "finalize", finalize)


def ignore_the_final_flag(patch):
    real = suites._CbcHmac._tag

    def both(self, index, final, covered):
        return real(self, index, False, covered) + real(self, index, True, covered)

    def compare(one, other):
        return bytes(other) in (one[:32], one[32:])

    patch.setattr(suites._CbcHmac, "_tag", both)
    patch.setattr(suites, "hmac", SimpleNamespace(new=suites.hmac.new, compare_digest=compare))


def never_check_padding(patch):
    for module in suites, format1_reader:
        patch.setattr(module, "unpadded_size", lambda padded: max(0, len(padded) - padded[-1]))


def let_segments_hold_too_much(patch):
    patch.setattr(
        suites._CbcHmac, "_size", lambda self, index, final, sealed, padded: suites.unpadded_size(padded)
    )


def never_check_the_filling_of_slots(patch):
    real = header._parse_slot

    def parse(index, data):
        end = 24 + int.from_bytes(data[2:4], "big")
        return real(index, data[:end].ljust(len(data), b"\0"))

    patch.setattr(header, "_parse_slot", parse)


def never_check_empty_slots(patch):
    real = header._parse_slot
    patch.setattr(
        header, "_parse_slot", lambda index, data: real(index, data if data[0] else bytes(len(data)))
    )


def never_check_flags(patch):
    real = header.header_length
    for module in header, format2_reader, stream:
        patch.setattr(module, "header_length", lambda start: real(start[:10] + b"\0\0" + start[12:]))


def never_check_the_reserved_byte_of_slots(patch):
    real = header._parse_slot

    def parse(index, data):
        slot = real(index, data[:1] + b"\0" + data[2:])
        return slot and replace(slot, head=data[:24])

    patch.setattr(header, "_parse_slot", parse)


def try_the_oldest_slot_first(patch):
    patch.setattr(slots, "sorted", lambda slots, key, reverse: sorted(slots, key=key), raising=False)


def try_equal_slots_from_the_last_on(patch):
    def other(slots, key, reverse):
        return sorted(slots, key=key)[::-1]

    patch.setattr(slots, "sorted", other, raising=False)


def stop_at_the_first_slot(patch):
    real = stream.claimed_slots
    patch.setattr(stream, "claimed_slots", lambda *arguments: list(real(*arguments))[:1])


def read_any_json(patch):
    patch.setattr("securefs.metadata.decode_metadata", json.loads)


def take_names_twice(patch):
    rules = {"parse_int": metadata._integer, "parse_float": metadata._number}
    patch.setattr(metadata, "_DECODER", json.JSONDecoder(**rules, parse_constant=metadata._constant))


def let_an_error_escape(patch):
    def parse(index, data):
        raise KeyError(data[0])

    patch.setattr(header, "_parse_slot", parse)


def let_an_error_of_the_second_decryptor_escape(patch):
    patch.setattr(second_decryptor, "InvalidTag", KeyError)


def forget_the_commitment_in_the_second_decryptor(patch):
    patch.setattr(second_decryptor, "bytes_eq", lambda one, other: len(one) == 32)


def verify_nothing(patch):
    patch.setattr(format2_reader.Format2File, "check", lambda self, start=0, stop=None: None)


def give_out_what_does_not_hold(patch):
    """The error comes one call late."""
    real = Decryptor._open_full_segments

    def open_(self, unlocked):
        self.late = getattr(self, "late", None)
        if self.late:
            raise self.late
        try:
            return real(self, unlocked)
        except IntegrityError as error:
            self.late = error
            return bytes(self._buffer[:100])

    patch.setattr(Decryptor, "_open_full_segments", open_)


def read_from_a_wrong_place(patch):
    real = format2_reader.Format2File._run

    def run_(self, index, count):
        return real(self, index, count) if index == self._last else real(self, index, count)[::-1]

    patch.setattr(format2_reader.Format2File, "_run", run_)


def name_another_reason(patch):
    real = Decryptor.update

    def update(self, data):
        try:
            return real(self, data)
        except IntegrityError as error:
            raise IntegrityError(str(error), suites.Reason.TRUNCATED) from None

    patch.setattr(Decryptor, "update", update)


def take_a_cut_header_for_a_bad_one(patch):
    real = header.header_length

    def length(start):
        try:
            return real(start)
        except header.FormatError as error:
            raise header.FormatError(str(error)) from None

    for module in header, format2_reader, stream:
        patch.setattr(module, "header_length", length)


def end_well_after_an_error(patch):
    real = Decryptor.update

    def update(self, data):
        try:
            return real(self, data)
        except IntegrityError:
            self.finalize = lambda: b""
            raise

    patch.setattr(Decryptor, "update", update)


def bind_no_context(patch):
    real = stream.body_context
    patch.setattr(stream, "body_context", lambda preamble, context: real(preamble, b""))


def open_with_short_keys(patch):
    def unwrap(self, slot, bound):
        keys = [slots.FileKey(key, LIBRARIES[0]) for key in self._file_keys.values()]
        return next((dek for key in keys if (dek := key.unwrap(slot, bound)) is not None), None)

    patch.setattr("securefs.keys.Keyring.unwrap", unwrap)


def guess_format_1(patch):
    """Tell the format by the content and not by what the caller said."""
    real = open_encrypted

    def guess(file, *arguments, format_1=False, **options):
        return real(file, *arguments, format_1=file.getvalue()[:8] != header.MAGIC, **options)

    patch.setattr("torture.readers.open_encrypted", guess)


SABOTAGES = [
    (never_compare_tags, "one bit", "opened, and must be rejected"),
    (never_compare_gcm_tags, "slots", "ours differ"),
    (never_compare_commitments, "other context", "not commitment_mismatch"),
    (never_compare_commitments, "key holder: commitment", "opened, and must be rejected"),
    (never_compare_tags_of_format_1, "format 1: one bit", "opened, and must be rejected"),
    (take_any_trailer_in_streams, "cut", "ours differ"),
    (ignore_the_final_flag, "key holder: one segment", "opened, and must be rejected"),
    (never_check_padding, "key holder: one segment", "opened, and must be rejected"),
    (never_check_padding, "key holder: format 1", "opened, and must be rejected"),
    (let_segments_hold_too_much, "key holder: many segments", "opened, and must be rejected"),
    (never_check_the_filling_of_slots, "slots", "opened, and must be rejected"),
    (never_check_empty_slots, "slots", "opened, and must be rejected"),
    (never_check_flags, "key holder: forbidden preamble", "opened, and must be rejected"),
    (never_check_the_reserved_byte_of_slots, "key holder: forbidden slot", "opened, and must be rejected"),
    (try_the_oldest_slot_first, "key holder: slots", "opened with other contents"),
    (try_equal_slots_from_the_last_on, "key holder: slots", "opened with other contents"),
    (stop_at_the_first_slot, "key holder: slots", "and must open"),
    (read_any_json, "key holder: metadata", "opened, and must be rejected"),
    (read_any_json, "key holder: any JSON", "second differs"),
    (take_names_twice, "key holder: metadata", "opened, and must be rejected"),
    (let_an_error_escape, "one bit", "escaped KeyError"),
    (let_an_error_of_the_second_decryptor_escape, "one bit", "escaped InvalidTag"),
    (forget_the_commitment_in_the_second_decryptor, "key holder: commitment", "second differs: opened"),
    (verify_nothing, "several in segments", "verify passes what does not open"),
    (give_out_what_does_not_hold, "segments", "partial release"),
    (read_from_a_wrong_place, "key holder: many segments", "partial release"),
    (name_another_reason, "one bit", "ours differ"),
    (take_a_cut_header_for_a_bad_one, "cut", "outcome is bad_header, not truncated"),
    (end_well_after_an_error, "one bit", "after an error"),
    (bind_no_context, "other context", "opened, and must be rejected"),
    (open_with_short_keys, "key holder: slots", "opened, and must be rejected"),
    (guess_format_1, "other format", "ours differ"),
]


def first_found(name: str, kind: str) -> int | None:
    """Return the first of 400 mutants of a class that has a finding of this kind."""
    judge, maker = Judge(), Maker(SEED, [name])
    for index in range(400):
        _, findings = judge.judge(*maker.make(index))
        if any(kind.lower() in finding.kind.lower() for finding in findings):
            return index
    return None


@pytest.mark.parametrize(
    ("sabotage", "name", "kind"),
    [pytest.param(*row, id=f"{row[0].__name__}: {row[2]}") for row in SABOTAGES],
)
def test_what_is_broken_on_purpose_is_found(sabotage, name, kind, monkeypatch):
    with monkeypatch.context() as patch:
        sabotage(patch)
        index = first_found(name, kind)
    assert index is not None
    assert Judge().judge(*Maker(SEED, [name]).make(index))[1] == []
