"""Journals of which two verifiers must say the same: honest ones, and what attackers leave of them.

Each case is built by hand (:mod:`support.made_logs`), has the keys that are pinned and the time of
its verification, and the exit code that both verifiers must give. ``codes`` are the findings.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from support.made_logs import Checkpoint, Key, Made, MadeJournal, Witness, chain_id, encode

STABLE = Key("stable")
WITNESS = Witness("witness.example/1")
CASES: dict[str, Case] = {}


@dataclass(frozen=True)
class Case:
    """One journal.

    :ivar build: makes it. :ivar exit: the exit code. :ivar codes: of the findings.
    """

    name: str
    build: Callable[[], MadeJournal]
    exit: int
    codes: frozenset[str]


def case(exit_code: int, *codes: str):
    """Make a case of a function, under its name with hyphens."""

    def add(build):
        name = build.__name__.strip("_").replace("_", "-")
        CASES[name] = Case(name, build, exit_code, frozenset(codes))
        return build

    return add


# --- what honest servers leave ---


def sealed(*, stable: Key | None = None) -> MadeJournal:
    """Two workers and a sealer at work: three checkpoints."""
    made = MadeJournal(stable=stable)
    first = made.chain("first", 5)
    made.seal()
    second = made.chain("second", 3)
    made.work(first, 4)
    made.seal()
    made.work(second, 6)
    made.work(first, 2)
    made.seal()
    return made


def ended() -> MadeJournal:
    """The same, after all processes have ended in order."""
    made = sealed()
    for chain in made.chains.values():
        chain.add("server.stop")
    made.seal(stop=True)
    return made


@case(0)
def _running():
    return sealed()


@case(0)
def _ended_years_ago():
    made = ended()
    made.later(days=2000)
    return made


@case(0)
def _started_again():
    made = ended()
    made.start_sealer()
    made.chain("third", 4)
    made.seal()
    return made


@case(0)
def _young_records_are_not_sealed_yet():
    made = sealed()
    made.work(made.chains["first"], 3)
    return made


@case(0)
def _a_writer_died_and_was_adopted():
    made = sealed()
    made.chains["second"].torn = b'{"chain":"half of a rec'
    made.adopt(made.chains["second"])
    made.seal()
    return made


@case(0)
def _a_writer_died_before_its_first_record():
    made = sealed()
    dead = Made(chain_id("dead"), made.clock)
    made.chains["dead"] = dead
    made.adopt(dead)
    made.seal()
    return made


@case(0)
def _adopted_by_a_sealer_that_died_before_its_first_seal():
    made = sealed()
    made.start_sealer(epoch=True)
    made.chains["second"].torn = b'{"chain":"half of a rec'
    made.adopt(made.chains["second"])
    made.adopt(made.sealers[0])
    made.start_sealer(epoch=True)
    made.adopt(made.sealers[1])
    made.seal()
    made.pins.append(made.key(3).vkey())
    return made


@case(4)
def _a_writer_died_and_nobody_adopted_it():
    made = sealed()
    made.chains["second"].torn = b'{"chain":"half of a rec'
    return made


@case(0)
def _a_chain_replaced_another():
    made = sealed()
    left = made.chains["first"]
    left.torn = b"{"
    made.chain("third", 1)
    obj = {
        "replaces": left.id,
        "replaces_seq": len(left.lines) - 1,
        "replaces_hash": left.head,
        "why": "short_write",
    }
    made.chains["third"].change(0, obj=obj, sev=4)
    made.chains["third"].link()
    made.seal()
    return made


@case(0)
def _older_than_the_log():
    made = MadeJournal(log=False)
    old = made.chain("old", 3, version=1)
    made.clock.wait(3600)
    made.log, made.pins = True, [Key("0 0").vkey()]
    made.start_sealer()
    made.cut_over(old)
    made.seal()
    made.chain("new", 3)
    made.clock.wait(120)
    made.seal()
    return made


# --- chains of several files, and files that were retired ---


def several_files() -> MadeJournal:
    """A chain of four files, another one of one, and a sealer with two; all of it sealed."""
    made = MadeJournal()
    first = made.chain("first", 3)
    made.seal()
    for _ in range(3):
        made.work(first, 1)
        first.next_file()
        made.work(first, 2)
        made.seal()
    made.chain("second", 3).add("server.stop")
    made.sealer.next_file()
    made.seal()
    return made


def retired(files: int = 2) -> MadeJournal:
    """The same, after the oldest files of the chain were removed for good."""
    made = several_files()
    made.retire(made.chains["first"], files)
    made.seal()
    made.work(made.chains["first"], 2)
    made.seal()
    return made


@case(0)
def _a_chain_of_several_files():
    return several_files()


@case(0)
def _files_are_compressed():
    made = several_files()
    made.chains["first"].packed |= {0, 2}
    made.sealer.packed |= {0}
    return made


@case(0)
def _files_were_retired():
    return retired()


@case(0)
def _files_were_retired_and_the_rest_is_compressed():
    made = retired()
    made.chains["first"].packed |= {2}
    return made


@case(0)
def _files_were_retired_twice():
    made = retired(1)
    made.retire(made.chains["first"], 3)
    made.seal()
    return made


@case(0)
def _removing_what_was_retired_was_cut_short():
    made = retired()
    made.chains["first"].gone = {0}
    return made


@case(0)
def _a_whole_chain_was_retired():
    made = several_files()
    made.retire(made.chains["second"], 1)
    made.seal()
    return made


@case(0)
def _a_chain_replaced_one_that_was_retired():
    made = several_files()
    left = made.chains["first"]
    obj = {
        "replaces": left.id,
        "replaces_seq": len(left.lines) - 1,
        "replaces_hash": left.head,
        "why": "short_write",
    }
    made.chain("third", 1)
    made.chains["third"].change(0, obj=obj, sev=4)
    made.chains["third"].link()
    made.adopt(left)
    made.seal()
    made.retire(left, 4)
    made.seal()
    return made


def _without(number: int) -> MadeJournal:
    made = several_files()
    made.chains["first"].gone = {number}
    return made


@case(1, "log", "segment")
def _the_first_file_is_removed():
    return _without(0)


@case(1, "link", "log", "segment", "sequence")
def _a_file_in_the_middle_is_removed():
    return _without(1)


@case(1, "log")
def _the_last_file_is_removed():
    return _without(3)


@case(1, "log")
def _a_whole_chain_is_removed_that_was_not_retired():
    made = retired()
    made.chains["second"].gone = {0}
    return made


@case(1, "log", "segment")
def _more_is_removed_than_was_retired():
    made = retired()
    made.chains["first"].gone |= {2}
    return made


@case(1, "segment")
def _the_first_file_is_removed_without_a_log():
    made = _without(0)
    made.log = False
    return made


@case(1, "segment")
def _what_retired_files_is_not_sealed():
    made = several_files()
    made.retire(made.chains["first"], 2)
    return made


@case(1, "log", "segment")
def _the_tiles_of_retired_records_are_changed():
    made = retired()
    leaf = made.leaves[0]
    made.leaves[0] = bytes([leaf[0] ^ 1]) + leaf[1:]
    return made


@case(1, "log", "segment")
def _the_tiles_of_retired_records_are_removed():
    made = retired()
    made.tiles = False
    return made


@case(1, "log", "segment")
def _the_tiles_of_retired_records_are_cut():
    made = retired()
    del made.leaves[5:]
    return made


@case(1, "log")
def _a_record_behind_retired_ones_is_written_anew():
    made = retired()
    left = made.chains["first"]
    left.change(left.begins[1] + 1, outcome="failure", sev=2)
    left.link(left.begins[1] + 1)
    return made


@case(1, "log")
def _files_that_were_retired_came_back_changed():
    made = retired()
    left = made.chains["first"]
    left.gone.clear()
    left.change(2, outcome="failure", sev=2)
    left.link()
    return made


def _says(made: MadeJournal, chain: str, files: int, **other) -> MadeJournal:
    """Have the sealer retire files of a chain in other words, and seal that."""
    made.retire(made.chains[chain], files)
    made.sealer.change(-1, obj=json.loads(made.sealer.lines[-1])["obj"] | other)
    made.seal()
    return made


@case(1, "segment")
def _what_retired_files_names_another_record():
    return _says(several_files(), "first", 2, hash="e" * 64)


@case(0)
def _less_is_retired_later():
    made = retired(3)
    first = made.chains["first"]
    made.sealer.add("audit.retired", obj={"chain": first.id, "upto": 3, "hash": "e" * 64, "files": 1})
    made.seal()
    return made


@case(1, "log")
def _far_too_much_is_retired_and_taken():
    made = _says(several_files(), "second", 1, upto=2**53 - 1)
    seal = json.loads(made.sealer.lines[-1])["seal"]
    seal["runs"].insert(0, [made.chains["second"].id, 5, 2**53 - 1])
    made.sealer.change(-1, seal=seal)
    return made


@case(1, "log", "missing_chain")
def _a_chain_replaced_a_retired_one_that_ended_otherwise():
    made = _a_chain_replaced_one_that_was_retired()
    third = made.chains["third"]
    obj = json.loads(third.lines[0])["obj"]
    third.change(0, obj=obj | {"replaces_seq": obj["replaces_seq"] - 1})
    third.link()
    return made


@case(3)
def _a_sealer_that_was_away_has_not_taken_everything_yet():
    made = ended()
    left = made.chain("left", 3)
    made.clock.wait(7200)
    made.start_sealer()
    made.seal(without=left)
    made.clock.wait(10)
    made.seal(without=left)
    return made


@case(3)
def _started_again_and_then_killed():
    made = _started_again()
    made.later(hours=1)
    return made


@case(3)
def _torn_and_stale():
    made = _a_writer_died_and_nobody_adopted_it()
    made.later(hours=1)
    return made


@case(3)
def _stale():
    made = sealed()
    made.later(hours=1)
    return made


@case(3)
def _from_the_future():
    made = sealed()
    made.later(hours=-1)
    return made


@case(3)
def _no_key_is_pinned():
    made = sealed()
    made.pins = []
    return made


@case(3)
def _another_key_is_pinned():
    made = sealed()
    made.pins = [Key("of another log").vkey()]
    return made


@case(3)
def _the_same_key_of_another_origin_is_pinned():
    made = sealed()
    made.pins = [Key("0 0").vkey("other.example/log")]
    return made


@case(0)
def _the_stable_key_is_pinned():
    made = sealed(stable=STABLE)
    made.pins = [STABLE.vkey()]
    return made


@case(0)
def _a_later_key_is_pinned():
    made = sealed()
    made.pins = [Key("0 2").vkey()]
    return made


@case(3)
def _no_log():
    made = MadeJournal(log=False, version=1)
    made.chain("first", 5).add("server.stop")
    made.chain("second", 5)
    return made


@case(4)
def _no_log_and_torn():
    made = MadeJournal(log=False, version=1)
    made.chain("first", 5).torn = b'{"ch'
    return made


@case(4)
def _an_empty_chain():
    made = MadeJournal(log=False, version=1)
    made.chain("first", 1)
    made.chains["dead"] = Made(chain_id("dead"), made.clock)
    return made


def _replaced(change) -> MadeJournal:
    made = MadeJournal(log=False, version=1)
    left, heir = made.chain("left", 3), made.chain("heir", 1)
    obj = {"replaces": left.id, "replaces_seq": len(left.lines) - 1, "replaces_hash": left.head}
    heir.change(0, obj=obj)
    heir.link()
    change(made, left)
    return made


@case(3)
def _a_replaced_chain_has_one_record_more():
    return _replaced(lambda made, left: made.work(left, 1))


@case(1, "cut_chain")
def _a_replaced_chain_has_two_records_more():
    return _replaced(lambda made, left: made.work(left, 2))


@case(1, "cut_chain")
def _the_end_of_a_replaced_chain_is_edited():
    return _replaced(lambda made, left: left.change(-1, obj={"size": 99}))


@case(3)
def _no_log_in_version_2():
    made = MadeJournal(log=False)
    made.chain("first", 5)
    return made


@case(2)
def _empty():
    return MadeJournal(log=False)


@case(3)
def _nothing_is_sealed_yet():
    made = MadeJournal()
    made.chain("first", 3)
    return made


# --- crashes of the sealer ---


def broken(*, stable: Key | None = None) -> MadeJournal:
    """A sealer was killed, and the next one begins a line of keys."""
    made = sealed(stable=stable)
    made.start_sealer(epoch=True)
    made.work(made.chains["first"], 2)
    made.adopt(made.sealers[0])
    made.seal()
    made.work(made.chains["first"], 2)
    made.seal()
    return made


@case(3)
def _a_break():
    return broken()


@case(0)
def _a_break_that_a_second_pin_vouches_for():
    made = broken()
    made.pins.append(Key("1 3").vkey())
    return made


@case(0)
def _a_break_that_a_later_pin_vouches_for():
    made = broken()
    made.pins = [Key("1 4").vkey()]
    return made


@case(0)
def _a_break_that_the_stable_key_vouches_for():
    made = broken(stable=STABLE)
    made.pins.append(STABLE.vkey())
    return made


@case(3)
def _killed_between_record_and_checkpoint():
    made = sealed()
    made.work(made.chains["first"], 2)
    made.seal(checkpoint=False)
    made.start_sealer(epoch=True)
    made.adopt(made.sealers[0])
    made.work(made.chains["first"], 2)
    made.seal()
    return made


@case(0)
def _the_last_checkpoint_is_not_written_yet():
    made = sealed()
    made.work(made.chains["first"], 2)
    made.seal(checkpoint=False)
    return made


@case(0)
def _the_last_checkpoint_is_torn():
    made = sealed()
    made.work(made.chains["first"], 2)
    made.seal()
    whole = b"".join(one.note() for one in made.checkpoints)
    made.files["log/checkpoints"] = whole[:-40]
    return made


@case(3)
def _the_sealer_is_dead_for_an_hour():
    made = sealed()
    made.clock.wait(3600)
    made.work(made.chains["first"], 5)
    return made


# --- attacks on chains ---


@case(1, "link", "log")
def _edited():
    made = ended()
    made.chains["first"].change(4, obj={"size": 99})
    return made


@case(1, "link", "sequence", "log")
def _deleted():
    made = ended()
    del made.chains["first"].lines[4]
    return made


@case(1, "link", "sequence", "start", "log")
def _the_first_record_is_deleted():
    made = ended()
    del made.chains["first"].lines[0]
    return made


@case(1, "start")
def _a_second_start():
    made = MadeJournal(log=False, version=1)
    made.chain("first", 2).add("server.start")
    return made


@case(1, "stop")
def _a_record_after_the_end():
    made = MadeJournal(log=False, version=1)
    made.chain("first", 2).add("server.stop")
    made.work(made.chains["first"], 1)
    return made


@case(1, "too_long", "link", "sequence")
def _a_very_long_line_is_inserted():
    made = MadeJournal(log=False, version=1)
    made.chain("first", 3).lines.insert(2, b"x" * 2_500_000)
    return made


@case(1, "too_long")
def _a_very_long_line_is_torn():
    made = MadeJournal(log=False, version=1)
    made.chain("first", 3).torn = b"x" * 2_500_000
    return made


@case(1, "link", "sequence", "log")
def _moved():
    made = ended()
    lines = made.chains["first"].lines
    lines[4], lines[5] = lines[5], lines[4]
    return made


@case(1, "link", "sequence", "log")
def _repeated():
    made = ended()
    lines = made.chains["first"].lines
    lines.insert(5, lines[4])
    return made


@case(1, "log")
def _inserted_and_linked_anew():
    made = ended()
    chain = made.chains["first"]
    chain.lines.insert(5, chain.lines[4])
    chain.link()
    made.clock.wait(3600)
    made.start_sealer()
    made.seal()
    made.clock.wait(120)
    made.seal()
    return made


@case(1, "log")
def _edited_and_linked_anew():
    made = ended()
    made.chains["first"].change(4, obj={"size": 99})
    made.chains["first"].link()
    return made


@case(1, "log")
def _the_last_record_is_edited():
    made = sealed()
    made.chains["first"].change(-1, obj={"size": 99})
    return made


@case(1, "log")
def _a_whole_chain_is_written_anew():
    made = ended()
    chain = made.chains["first"]
    for number in range(1, len(chain.lines) - 1):
        chain.change(number, obj={"size": 1})
    chain.link()
    return made


@case(1, "log")
def _cut_at_a_line_end():
    made = ended()
    del made.chains["first"].lines[-3:]
    return made


@case(1, "log")
def _cut_in_a_line():
    made = ended()
    chain = made.chains["first"]
    chain.torn = chain.lines.pop()[:50]
    return made


@case(1, "log")
def _a_chain_is_removed():
    made = ended()
    del made.chains["second"]
    return made


@case(1, "unlogged")
def _a_chain_is_added():
    made = MadeJournal()
    made.chain("first", 5)
    made.seal()
    invented = Made(chain_id("invented"), made.clock)
    invented.add("server.start")
    invented.add("server.stop")
    made.clock.wait(120)
    made.seal()
    made.clock.wait(120)
    made.seal()
    made.chains["invented"] = invented
    return made


@case(1, "unlogged")
def _a_chain_is_added_and_cut_over_after_the_first_seal():
    made = MadeJournal()
    made.chain("first", 5)
    made.seal()
    invented = Made(chain_id("invented"), made.clock)
    invented.add("server.start")
    made.chains["invented"] = invented
    made.cut_over(invented)
    made.clock.wait(120)
    made.seal()
    made.clock.wait(120)
    made.seal()
    return made


@case(1, "second_file")
def _a_chain_is_copied_into_the_log():
    made = sealed()
    chain = made.chains["first"]
    made.files[f"log/{chain.id}-0.jsonl"] = chain.data()
    return made


@case(1, "chain")
def _a_chain_is_copied_under_another_name():
    made = MadeJournal(log=False, version=1)
    chain = made.chain("first", 3)
    made.files[f"{chain_id('other')}-0.jsonl"] = chain.data()
    return made


@case(1, "missing_chain")
def _a_replaced_chain_is_gone():
    made = MadeJournal(log=False, version=1)
    made.chain("first", 3)
    made.chains["first"].change(0, obj={"replaces": "0" * 32, "replaces_seq": 1, "replaces_hash": "0" * 64})
    made.chains["first"].link()
    return made


@case(1, "log")
def _more_bytes_are_torn_than_were_adopted():
    made = _a_writer_died_and_was_adopted()
    made.chains["second"].torn += b"s"
    return made


@case(1, "log")
def _an_adopted_chain_goes_on():
    made = _a_writer_died_and_was_adopted()
    made.chains["second"].torn = b""
    made.work(made.chains["second"], 1)
    return made


@case(1, "log")
def _a_chain_of_before_the_log_was_edited():
    made = _older_than_the_log()
    made.chains["old"].change(2, obj={"size": 99})
    made.chains["old"].link()
    return made


@case(1, "stop")
def _bytes_after_the_end():
    made = MadeJournal(log=False, version=1)
    chain = made.chain("first", 3)
    chain.add("server.stop")
    chain.torn = b"x"
    return made


# --- lines that are no records ---


def _odd(
    name: str, code: str, change: Callable[[bytes], bytes], exit_code: int = 1, versions: tuple = (1, 2)
) -> None:
    """Make a case of a last line that was changed, in each version of records."""
    for version in versions:

        def build(version: int = version) -> MadeJournal:
            made = MadeJournal(log=False, version=version)
            made.work(made.chain("first", 3), 1)
            lines = made.chains["first"].lines
            lines[-1] = change(lines[-1])
            return made

        codes = frozenset({code} - {""})
        CASES[f"line-{name}-{version}"] = Case(f"line-{name}-{version}", build, exit_code, codes)


def _with(**more):
    return lambda line: encode(json.loads(line) | more)


_odd("empty", "not_json", lambda line: b"")
_odd("space", "not_canonical", lambda line: line.replace(b":", b": ", 1))
_odd("space-at-the-end", "not_canonical", lambda line: line + b" ")
_odd("carriage-return", "not_canonical", lambda line: line + b"\r")
_odd("byte-order-mark", "not_json", lambda line: b"\xef\xbb\xbf" + line)
_odd("nul", "not_json", lambda line: line.replace(b".pdf", b".\0df"))
_odd("delete-character", "not_canonical", lambda line: line.replace(b".pdf", b".\x7fdf"))
_odd("raw-utf-8", "not_json", lambda line: line.replace(b"\\u00e9", "\u00e9".encode(), 1))
_odd("latin-1", "not_json", lambda line: line.replace(b"\\u00e9", b"\xe9", 1))
_odd("upper-case-escape", "not_canonical", lambda line: line.replace(b"\\u00e9", b"\\u00E9", 1))
_odd("needless-escape", "not_canonical", lambda line: line.replace(b".pdf", b".\\u0070df"))
_odd("escaped-slash", "not_canonical", lambda line: line.replace(b".pdf", b"\\/pdf"))
_odd("float", "not_json", lambda line: line.replace(b'"size":0', b'"size":0.0'))
_odd("exponent", "not_json", lambda line: line.replace(b'"size":0', b'"size":1e2'))
_odd("not-a-number", "not_json", lambda line: line.replace(b'"size":0', b'"size":NaN'))
_odd("minus-zero", "not_canonical", lambda line: line.replace(b'"size":0', b'"size":-0'))
_odd("leading-zero", "not_json", lambda line: line.replace(b'"size":0', b'"size":00'))
_odd("negative", "bad_field", lambda line: line.replace(b'"size":0', b'"size":-1'))
_odd("huge", "bad_field", lambda line: line.replace(b'"size":0', b'"size":9007199254740992'))
_odd("null", "bad_field", lambda line: line.replace(b'"size":0', b'"size":null'))
_odd("true", "bad_field", lambda line: line.replace(b'"size":0', b'"size":true'))
_odd("array", "bad_field", lambda line: line.replace(b'"size":0', b'"size":[0]'))
_odd("is-an-array", "not_json", lambda line: b"[" + line + b"]")
_odd("is-a-string", "not_json", lambda line: b'"x"')
_odd("two-objects", "not_json", lambda line: line + line)
_odd("a-key-twice", "not_canonical", lambda line: line.replace(b'"size":0', b'"size":0,"size":0'))
_odd("a-key-twice-at-the-top", "not_canonical", lambda line: line.replace(b'"v":', b'"v":1,"v":'))
_odd("keys-out-of-order", "not_canonical", lambda line: b'{"v":' + line[-2:-1] + b"," + line[1:-7] + b"}")
_odd("proto", "bad_field", lambda line: line.replace(b'"size":0', b'"__proto__":{},"size":0'))
_odd("constructor", "bad_field", lambda line: line.replace(b'"size":0', b'"constructor":"x","size":0'))
_odd("unknown-key", "bad_field", _with(more="x"))
_odd("unknown-member", "bad_field", _with(obj={"colour": "red"}))
_odd("empty-section", "bad_field", _with(obj={}))
_odd("long-string", "bad_field", _with(obj={"name": "x" * 257}))
_odd("length-of-what-was-not-cut", "bad_field", _with(obj={"name": "x", "name_len": 300}))
_odd("length-below-the-cut", "bad_field", _with(obj={"name": "x" * 256, "name_len": 256}))
_odd("length-of-nothing", "bad_field", _with(obj={"name_len": 300}))
_odd("unknown-event", "bad_field", _with(event="file.burn"))
_odd("unknown-outcome", "bad_field", _with(outcome="perhaps"))
_odd("severity-0", "bad_field", _with(sev=0))
_odd("reason-of-a-success", "bad_field", _with(reason="limit"))
_odd("unknown-reason", "bad_field", _with(outcome="failure", reason="mood"))
_odd("version-9", "version", _with(v=9))
_odd("version-is-a-string", "version", _with(v="1"))
_odd("version-is-true", "version", _with(v=True))
_odd("thirteenth-month", "bad_field", _with(time="2026-13-01T00:00:00.000000000Z"))
_odd("time-with-a-line-end", "bad_field", _with(time="2026-11-01T00:00:00.000000000Z\n"))
_odd("chain-with-a-line-end", "bad_field", _with(chain="0" * 32 + "\n"))
_odd("upper-case-hash", "bad_field", _with(prev="A" * 64))
_odd("too-long", "too_long", lambda line: line + b" " * 200_000)
_odd("sequence-is-negative", "bad_field", _with(seq=-1))
_odd("sequence-is-a-string", "bad_field", _with(seq="4"))
_odd("no-process-id", "bad_field", lambda line: line.replace(b'"pid":4711,', b""))
_odd("short-string-that-was-cut", "bad_field", _with(obj={"name": "x" * 64, "name_len": 65}))
_odd("seal-of-nobody", "bad_field", _with(seal={}))


def _full(line: bytes) -> bytes:
    """Return a record in which many strings are as long as they may be."""
    record, most = json.loads(line), "\U0001f600" * 256
    names = "id key_id suite digest name field role rule names sync on_failure places replaces why error"
    record |= {"obj": dict.fromkeys(names.split(), most), "actor": {"id": most}, "req": most}
    record |= {"http": {"method": most, "path": most}}
    if record["v"] != 1:
        record |= {"client": {"addr": most, "peer": most}, "client_req": most}
    return encode(record)


_odd("long-in-version-1", "", _full, 3, versions=(1,))
_odd("too-long-for-version", "too_long", _full, versions=(2,))
_odd("short-path-that-was-cut", "", _with(http={"path": "x" * 64, "path_len": 65}), 3, versions=(2,))

_SEAL = {"index": 0, "key": "a" * 64, "next": "b" * 64, "runs": [["0" * 32, 0, 3]], "size": 4}


def _sealing(**more):
    return _with(event="audit.seal", seal=_SEAL | more)


_odd("seal", "", _sealing(), 3, versions=(2,))
_odd("seal-of-another-event", "bad_field", _with(seal=_SEAL), versions=(2,))
_odd("seal-is-missing", "bad_field", _with(event="audit.seal"), versions=(2,))
_odd("seal-with-more", "bad_field", _sealing(more=1), versions=(2,))
_odd("seal-without-a-run", "bad_field", _sealing(runs=[]), versions=(2,))
_odd("seal-with-512-runs", "", _sealing(runs=[["0" * 32, 0, 3]] * 512), 3, versions=(2,))
_odd("seal-with-513-runs", "bad_field", _sealing(runs=[["0" * 32, 0, 3]] * 513), versions=(2,))
_odd("seal-with-a-run-backwards", "bad_field", _sealing(runs=[["0" * 32, 3, 0]]), versions=(2,))
_odd("seal-with-a-short-run", "bad_field", _sealing(runs=[["0" * 32, 0]]), versions=(2,))
_odd("seal-with-an-upper-case-key", "bad_field", _sealing(key="A" * 64), versions=(2,))
_odd("seal-with-a-negative-size", "bad_field", _sealing(size=-1), versions=(2,))


_odd("every-escape", "", _with(obj={"name": '"\\\n\r\t\b\f\0\x1f /\x7f\xa0\u2028\U0001f600\ud800'}), 3)
_odd("256-characters-above-the-plane", "", _with(obj={"name": "\U0001f600" * 256, "name_len": 257}), 3)
_odd("largest-integer", "", _with(obj={"size": 2**53 - 1}), 3)
_odd("day-that-there-is-not", "", _with(time="2026-02-31T00:00:00.000000000Z"), 3)


# --- attacks on the log ---


@case(1, "log")
def _forged_with_all_checkpoints_kept():
    """Everything is made anew but the checkpoints, which nobody can sign any more."""
    made = ended()
    made.chains["first"].change(4, obj={"size": 99})
    made.chains["first"].link()
    roots = [one.root for one in made.checkpoints]
    made.forge()
    for one, root in zip(made.checkpoints, roots, strict=True):
        one.root = root
    return made


@case(1, "signature")
def _forged_with_the_live_key():
    made = sealed()
    made.chains["first"].change(4, obj={"size": 99})
    made.chains["first"].link()
    made.forge()
    for one in made.checkpoints:
        one.keys = [made.key(3)]
    return made


@case(1, "signature")
def _forged_with_the_stable_key():
    made = sealed(stable=STABLE)
    made.pins.append(STABLE.vkey())
    made.chains["first"].change(4, obj={"size": 99})
    made.chains["first"].link()
    made.forge()
    for one in made.checkpoints:
        one.keys = [STABLE]
    return made


def forged(first: int, *, stable: Key | None = None) -> MadeJournal:
    """From checkpoint ``first`` on, everything is made anew under keys of the attacker's own."""
    made = sealed(stable=stable)
    made.chains["first"].change(7, obj={"size": 99})
    made.chains["first"].link()
    line = made.sealer.lines
    for number, text in enumerate(line):
        record = json.loads(text)
        if "seal" in record and record["seal"]["index"] >= first:
            index = record["seal"]["index"]
            own = {"key": Key(f"9 {index}").public.hex(), "next": Key(f"9 {index + 1}").public.hex()}
            made.sealer.change(number, seal=record["seal"] | own)
    made.forge()
    for index, one in enumerate(made.checkpoints):
        if index >= first:
            one.keys = [Key(f"9 {index}"), *([stable] if stable else [])]
    return made


@case(3)
def _forged_under_fresh_keys():
    return forged(0)


@case(3)
def _forged_under_fresh_keys_from_the_second_on():
    return forged(1)


@case(3)
def _forged_under_fresh_keys_and_the_stable_key():
    return forged(1, stable=STABLE)


@case(3)
def _an_end_that_nobody_sealed():
    made = sealed()
    made.sealer.add("server.stop")
    made.later(hours=1)
    return made


@case(3)
def _cut_to_an_older_checkpoint():
    made = ended()
    older = sealed()
    older.clock.now = made.clock.now
    older.later(hours=1)
    return older


def _checkpoints(name: str, exit_code: int, *codes: str):
    def add(change):
        def build() -> MadeJournal:
            made = ended()
            notes = [one.note() for one in made.checkpoints]
            made.files["log/checkpoints"] = b"".join(change(notes, made) or notes)
            return made

        CASES[f"checkpoints-{name}"] = Case(f"checkpoints-{name}", build, exit_code, frozenset(codes))
        return change

    return add


@_checkpoints("one-is-removed", 1, "checkpoint")
def _(notes, made):
    del notes[1]


@_checkpoints("first-is-removed", 1, "checkpoint")
def _(notes, made):
    del notes[0]


@_checkpoints("one-is-repeated", 1, "checkpoint")
def _(notes, made):
    notes.insert(1, notes[1])


@_checkpoints("two-are-exchanged", 1, "checkpoint")
def _(notes, made):
    notes[0], notes[1] = notes[1], notes[0]


@_checkpoints("one-more", 1, "checkpoint")
def _(notes, made):
    notes.append(Checkpoint(made.checkpoints[-1].size + 9, bytes(32), [made.key(9)]).note())


@_checkpoints("another-origin", 1, "checkpoint")
def _(notes, made):
    one = made.checkpoints[1]
    notes[1] = Checkpoint(one.size, one.root, one.keys, "other.example/log").note()


@_checkpoints("another-root", 1, "log")
def _(notes, made):
    one = made.checkpoints[1]
    notes[1] = Checkpoint(one.size, bytes(32), one.keys).note()


@_checkpoints("signature-is-changed", 1, "signature")
def _(notes, made):
    at = notes[1].rindex(b" ") + 20
    notes[1] = notes[1][:at] + (b"A" if notes[1][at : at + 1] != b"A" else b"B") + notes[1][at + 1 :]


@_checkpoints("signed-twice-by-one-key", 1, "signature")
def _(notes, made):
    one = made.checkpoints[1]
    notes[1] = Checkpoint(one.size, one.root, one.keys * 2).note()


@_checkpoints("further-signature", 0)
def _(notes, made):
    one = made.checkpoints[1]
    notes[1] = Checkpoint(one.size, one.root, [Key("of somebody else"), *one.keys]).note()


@_checkpoints("no-signature", 1, "checkpoint")
def _(notes, made):
    notes[1] = notes[1].partition(b"\n\n")[0] + b"\n\n\n"


@_checkpoints("extension-line", 1, "checkpoint")
def _(notes, made):
    notes[1] = notes[1].replace(b"\n\n", b"\nmore\n\n", 1)


@_checkpoints("leading-zero", 1, "checkpoint")
def _(notes, made):
    origin, size, rest = notes[1].split(b"\n", 2)
    notes[1] = b"\n".join([origin, b"0" + size, rest])


@_checkpoints("line-end-of-windows", 1, "checkpoint")
def _(notes, made):
    notes[1] = notes[1].replace(b"\n", b"\r\n", 1)


def _other_spelling(line: bytes) -> bytes:
    """Return base64 that decodes to the same bytes: bits behind the last one are set."""
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = letters.index(line[-2])
    return line[:-2] + letters[last + 1 : last + 2] + b"="


@_checkpoints("root-in-another-spelling", 1, "checkpoint")
def _(notes, made):
    origin, size, root, rest = notes[1].split(b"\n", 3)
    notes[1] = b"\n".join([origin, size, _other_spelling(root), rest])


@_checkpoints("signature-in-another-spelling", 1, "checkpoint")
def _(notes, made):
    notes[1] = _other_spelling(notes[1][:-2]) + b"\n\n"


@_checkpoints("not-utf-8", 1, "checkpoint")
def _(notes, made):
    notes[1] = b"\xff" + notes[1]


@_checkpoints("nothing-but-bytes", 1, "checkpoint")
def _(notes, made):
    return [b"\xff" * 1000]


@_checkpoints("all-are-gone", 1, "checkpoint")
def _(notes, made):
    return [b"\n"]


def _cosigned(name: str, exit_code: int, *codes: str):
    """Have a pinned witness cosign what the function returns, in a log of four checkpoints that ended."""

    def add(change):
        def build() -> MadeJournal:
            made = ended()
            made.pins.append(WITNESS.vkey())
            made.files["log/cosignatures"] = change(made)
            return made

        CASES[f"cosigned-{name}"] = Case(f"cosigned-{name}", build, exit_code, frozenset(codes))
        return change

    return add


@_cosigned("by-a-witness", 0)
def _(made):
    return b"".join(map(WITNESS.cosigned, made.checkpoints))


@_cosigned("by-another-witness-too", 0)
def _(made):
    return Witness("other.example").cosigned(Checkpoint(99, bytes(32), [])) + WITNESS.cosigned(
        made.checkpoints[0]
    )


@_cosigned("and-torn", 0)
def _(made):
    return b"".join(map(WITNESS.cosigned, made.checkpoints))[:-5]


@_cosigned("a-larger-log", 1, "log")
def _(made):
    return WITNESS.cosigned(Checkpoint(99, bytes(32), [made.key(9)]))


@_cosigned("another-root", 1, "log")
def _(made):
    return WITNESS.cosigned(Checkpoint(made.checkpoints[1].size, bytes(32), [made.key(9)]))


@_cosigned("a-size-without-a-checkpoint", 1, "log")
def _(made):
    return WITNESS.cosigned(Checkpoint(made.checkpoints[1].size - 1, made.checkpoints[1].root, [made.key(9)]))


@_cosigned("another-log", 1, "log")
def _(made):
    one = made.checkpoints[1]
    return WITNESS.cosigned(Checkpoint(one.size, one.root, one.keys, "other.example/log"))


@_cosigned("with-a-changed-time", 1, "signature")
def _(made):
    note, other = (WITNESS.cosigned(made.checkpoints[0], time) for time in (1_800_000_000, 1_900_000_000))
    at = note.rindex(b" ") + 1
    return note[:at] + other[at : at + 16] + note[at + 16 :]


@_cosigned("what-is-no-note", 1, "checkpoint")
def _(made):
    return WITNESS.cosigned(made.checkpoints[0]) + b"a\n\nb\n\n"


def _seal(name: str, exit_code: int, *codes: str):
    """Change the second seal, and sign everything anew with the right keys."""

    def add(change):
        def build() -> MadeJournal:
            made = ended()
            for number, line in enumerate(made.sealer.lines):
                record = json.loads(line)
                if record.get("seal", {}).get("index") == 1:
                    change(record["seal"])
                    made.sealer.change(number, seal=record["seal"])
            made.sealer.link()
            made.forge()
            return made

        CASES[f"seal-{name}"] = Case(f"seal-{name}", build, exit_code, frozenset(codes))
        return change

    return add


@_seal("number-is-left-out", 1, "log")
def _(seal):
    seal["index"] = 7


@_seal("size-is-wrong", 1, "log", "checkpoint")
def _(seal):
    seal["size"] += 1


@_seal("leaves-records-out", 1, "log")
def _(seal):
    seal["runs"][0][1] += 1


@_seal("takes-records-twice", 1, "log")
def _(seal):
    seal["runs"][0][1] -= 1


@_seal("takes-what-is-not-there", 1, "log")
def _(seal):
    seal["runs"][0][2] += 1000


@_seal("takes-a-chain-that-is-not-there", 1, "log")
def _(seal):
    seal["runs"].insert(0, ["0" * 32, 0, 3])


@_seal("takes-far-too-much", 1, "log", "checkpoint")
def _(seal):
    seal["runs"][0][2] = 2**53 - 1
    seal["size"] = 2**53 - 1


@_seal("does-not-end-with-itself", 1, "log")
def _(seal):
    seal["runs"].insert(0, seal["runs"].pop())


@case(1, "checkpoint")
def _the_sealers_chain_is_removed():
    made = ended()
    made.sealers.clear()
    return made


@case(1, "checkpoint")
def _the_sealers_chain_is_cut():
    made = sealed()
    made.sealer.lines.pop()
    return made


@case(3)
def _the_log_is_removed():
    made = ended()
    made.log = False
    return made
