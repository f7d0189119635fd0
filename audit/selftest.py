"""The self-test: attacks on a copy of a journal, and what the verifier finds of each.

Guarantees: the journal is only read, and none of its private keys is. The copy is in a temporary
folder that only this user can enter, and is removed at the end. Each attack is verified with the
keys that were given, and has a weakest outcome that is good enough; whether one is worse is told.
Refuses: a journal of more than :data:`MOST` bytes, one whose verification finds tampering (nothing
could be told apart there), and what :func:`verify_journal` refuses.

Implements the section on attacks of ``docs/verifying.md``.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.audit import attack, attack_log
from securefs.audit.attack import Chain, Copy, seals
from securefs.audit.folder import open_regular
from securefs.audit.follow import chain_names
from securefs.audit.log_files import CHECKPOINTS, COSIGNATURES, ORIGIN, TILES, VKEY
from securefs.audit.report import TAMPERED
from securefs.audit.segments import CHAIN_FILE
from securefs.audit.signing import SigningKey
from securefs.audit.sink import chain_file_name
from securefs.audit.verify_journal import LogTerms, verify_journal
from securefs.disk import explain
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from securefs.audit.note import VerificationKey
    from securefs.audit.report import Report

    Change = Callable[[Copy], Copy | None]

__all__ = ["MOST", "Attack", "Bench", "Outcome", "Result", "read_copy", "self_test"]

MOST: Final = 64 * 1024 * 1024  # bytes of a journal and its log that are copied

# In this order, and before the chains: a sealer writes a record before its checkpoint.
_FILES: Final = (CHECKPOINTS, COSIGNATURES, ORIGIN, VKEY, f"{TILES}/0")
_LAYERS: Final = {name: name for name in ("log", "checkpoint", "signature", "unlogged")}
_CHAIN: Final = frozenset({"chain"})
_LOG: Final = frozenset({"log"})
_NUMBER: Final = re.compile(r"[0-9]+")


class Outcome(Enum):
    """What became of an attack."""

    CAUGHT = "caught"  # tampering
    UNPROVEN = "not proven"  # no tampering, but the verdict names a reason that was not there before
    UNDETECTED = "not detected"  # as documented: something is needed that was not given
    MISSED = "MISSED"
    SKIPPED = "not run"


@dataclass(frozen=True, slots=True)
class Result:
    """One attack: what was done, what became of it, and which layers found it.

    :ivar note: why, if it was not caught.
    """

    name: str
    done: str
    outcome: Outcome
    layers: tuple[str, ...] = ()
    note: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the result as objects that :mod:`json` can write."""
        return {
            "attack": self.name,
            "done": self.done,
            "outcome": self.outcome.value,
            "layers": list(self.layers),
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Attack:
    """An attack. :ivar layers: one of these must find it; any if there are none.

    :ivar least: the weakest outcome that is good enough. :ivar note: why it is, if it is weaker
        than tampering. :ivar anchored: the last checkpoint was kept elsewhere.
    """

    name: str
    done: str
    change: Change
    layers: frozenset[str] = frozenset()
    least: Outcome = Outcome.CAUGHT
    note: str = ""
    anchored: bool = False


def _chain_attacks() -> Iterator[Attack]:
    yield Attack("edit", "the time of one record is changed", attack.edit, _CHAIN)
    yield Attack("delete", "one record is deleted", attack.delete, _CHAIN)
    yield Attack("reorder", "two records are exchanged", attack.reorder, _CHAIN)
    yield Attack("repeat", "one record is there twice", attack.repeat, _CHAIN)
    yield Attack("insert", "one record is inserted that fits the one before it", attack.insert, _CHAIN)


def _log_attacks(*, pinned: bool) -> Iterator[Attack]:
    """Yield the attacks that only a log can tell; ``pinned``: the auditor pinned a key of it."""
    yield Attack("relink", "one record is changed, all later links fit again", attack.relink_from, _LOG)
    yield Attack("rewrite", "a whole chain is written anew with old times", attack.rewrite, _LOG)
    yield Attack("cut", "a chain is cut before its last sealed record", attack.cut, _LOG)
    yield Attack("remove-chain", "a chain is deleted", attack.remove, _LOG)
    yield Attack(
        *("add-chain", "a chain with old times is added", attack.add_chain, frozenset({"unlogged"})),
        *(Outcome.UNPROVEN, "its times are of the last minute of the log: its records are not sealed"),
    )
    yield Attack(
        *("sign-anew", "relink, and all checkpoints are signed by a key that no seal names"),
        *(lambda copy: attack_log.sign_with_one_key(copy, SigningKey), frozenset({"signature"})),
    )
    yield Attack(
        *("fresh-keys", "relink, and the log is made anew under fresh keys"),
        *(lambda copy: attack_log.sign_with_fresh_keys(copy, SigningKey), frozenset()),
        *((Outcome.UNPROVEN, "no pinned key signed it") if pinned else (Outcome.UNDETECTED, _NO_PIN)),
    )
    yield from _checkpoint_attacks()


def _checkpoint_attacks() -> Iterator[Attack]:
    found = frozenset({"checkpoint", "signature"})
    yield Attack("remove-checkpoint", "a checkpoint is removed", attack_log.remove_checkpoint, found)
    yield Attack(
        "exchange-checkpoints", "two checkpoints are exchanged", attack_log.exchange_checkpoints, found
    )
    yield Attack(
        *("remove-log", "the log is deleted", attack_log.remove_log, frozenset()),
        *(Outcome.UNPROVEN, "there is no log; with --since it is tampering"),
    )
    yield Attack(
        *("unseal", "the log alone is cut to an older checkpoint", attack_log.unseal, frozenset()),
        *(Outcome.UNPROVEN, "records are not sealed"),
    )
    cut = "chains and log are cut to an older checkpoint"
    yield Attack("go-back", cut, attack_log.go_back, frozenset(), Outcome.UNDETECTED, _NO_WITNESS)
    yield Attack(
        *("go-back-anchored", f"{cut}, and you kept the last one (--anchor)", attack_log.go_back, _LOG),
        anchored=True,
    )


_NO_PIN: Final = "whoever can write the files can make a whole log anew: pin a key of it (--pin)"
_NO_WITNESS: Final = "only a witness, a checkpoint that you kept (--anchor), --since or reconcile tells"
_TOO_SMALL: Final = "the journal has too few sealed records or checkpoints for it"
_NO_LOG: Final = "there is no log, so nothing could tell: securefs audit init begins one"


def self_test(folder: Path, log: Path | None, pins: Sequence[VerificationKey], now: float) -> list[Result]:
    """Attack a copy of this journal in each way; return what became of each.

    :param log: the log's folder, None if there is none. :param now: POSIX seconds, the clock's.
    :raises ConfigurationError: see above.
    """
    copy = _settled(read_copy(folder, log))
    terms = LogTerms(pins=pins, now=now)
    try:
        with tempfile.TemporaryDirectory(prefix="securefs-selftest-") as name:
            bench = Bench(copy, Path(name), terms)
            return [bench.run(one) for one in (*_chain_attacks(), *_log_attacks(pinned=bench.pinned))]
    except OSError as error:
        raise ConfigurationError(
            f"cannot write a copy of the journal: {explain(error)}; TMPDIR names another folder for it"
        ) from None


class Bench:
    """Runs attacks on one copy, each in a new folder."""

    def __init__(self, copy: Copy, folder: Path, terms: LogTerms) -> None:
        self._copy, self._folder, self._terms = copy, folder, terms
        self._before = self._verify(copy, terms)
        if self._before.exit_code == TAMPERED:
            raise ConfigurationError(
                "the journal does not verify as it is, so no attack could be told: run securefs audit verify"
            )

    @property
    def pinned(self) -> bool:
        """Whether a pinned key has signed the log."""
        log = self._before.log
        return log is not None and any(str(pin) in log.state.keys for pin in self._terms.pins)

    def run(self, one: Attack) -> Result:
        """Run one attack."""
        if self._copy.files is None and one.layers != _CHAIN:
            return Result(one.name, one.done, Outcome.SKIPPED, note=_NO_LOG)
        changed = one.change(self._copy)
        if changed is None:
            return Result(one.name, one.done, Outcome.SKIPPED, note=_TOO_SMALL)
        report = self._verify(changed, replace(self._terms, anchors=self._anchors(one)))
        layers = tuple(sorted({_LAYERS.get(found.code, "chain") for found in report.findings}))
        if one.layers.intersection(layers) if one.layers else layers:
            return Result(one.name, one.done, Outcome.CAUGHT, layers)
        reached = Outcome.UNPROVEN if self._is_told(report) else Outcome.UNDETECTED
        # A finding of another layer than the one that must find it is not good enough.
        if layers or one.least not in {reached, Outcome.UNDETECTED}:
            return Result(one.name, one.done, Outcome.MISSED, layers)
        return Result(one.name, one.done, reached, note=one.note)

    def _anchors(self, one: Attack) -> list[Path]:
        if not one.anchored:
            return []
        path = self._folder / "anchor"
        path.write_bytes(attack_log.last_checkpoint(self._copy))
        return [path]

    def _is_told(self, report: Report) -> bool:
        """Return whether the verdict has a new reason, or more records are unsealed."""
        before, after = self._before, report
        unsealed = [0 if one.log is None else one.log.unsealed for one in (before, after)]
        return not _kinds(after) <= _kinds(before) or unsealed[1] > unsealed[0]

    def _verify(self, copy: Copy, terms: LogTerms) -> Report:
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            journal, log = Path(name) / "journal", Path(name) / "sealed"
            _write(journal, copy.chains)
            if copy.files is None:
                return verify_journal(journal, None, terms)
            _write(log, copy.sealers)
            (log / TILES).mkdir()
            for file, data in copy.files.items():
                (log / file).write_bytes(data)
            return verify_journal(journal, log, terms)


def _kinds(report: Report) -> frozenset[str]:
    """Return the reasons why it is not proven, without their times and counts."""
    return frozenset(_NUMBER.sub("", reason) for reason in report.reasons)


def _write(folder: Path, chains: Mapping[str, Chain]) -> None:
    folder.mkdir()
    for name, chain in chains.items():
        (folder / chain_file_name(name)).write_bytes(chain.data())


def read_copy(folder: Path, log: Path | None) -> Copy:
    """Return the copy of a journal, as of now.

    :raises ConfigurationError: it is too large, or cannot be read.
    """
    reader, files = _Reader(), None
    if log is not None:
        there = [name for name in _FILES if os.path.lexists(log / name)]
        files = {name: reader.file(log / name) for name in there}
    sealers = {} if log is None else reader.chains(log)
    copy = Copy(reader.chains(folder), sealers, files)
    if not copy.chains:
        raise ConfigurationError(
            f"there is no chain of a journal in {str(folder)!a}; name the journal's folder"
        )
    return copy


def _settled(copy: Copy) -> Copy:
    """Return a copy without the seals that a sealer wrote after its last checkpoint was read."""
    size = attack_log.last_size(copy)
    late = [(name, number) for seal, name, number in seals(copy) if seal.size > size]
    if not late or (not size and len(late) > 1):  # all checkpoints are missing: a finding
        return copy
    name, number = late[0]
    return replace(copy, sealers={**copy.sealers, name: copy.sealers[name].upto(number)})


class _Reader:
    """Reads files as long as they are not too large together."""

    def __init__(self) -> None:
        self._left = MOST

    def chains(self, folder: Path) -> dict[str, Chain]:
        """Return the chains in a folder."""
        try:
            names = chain_names(folder)
            files = [entry.name for entry in os.scandir(folder) if CHAIN_FILE.fullmatch(entry.name)]
        except OSError as error:
            raise _unread(folder, explain(error)) from None
        if more := sorted({*files} - {*map(chain_file_name, names)}):
            raise ConfigurationError(
                f"a chain has another file, {str(folder / more[0])!a}; only chains of one file, not "
                f"compressed, are attacked: run it on the journal of a test server"
            )
        return {name: Chain.split(self.file(folder / chain_file_name(name))) for name in names}

    def file(self, path: Path) -> bytes:
        """Return the bytes of a regular file."""
        try:
            file = open_regular(path)
        except OSError as error:
            raise _unread(path, explain(error)) from None
        if file is None:
            raise _unread(path, "it is not a regular file")
        with file:
            size = os.fstat(file.fileno()).st_size
            if size > self._left:
                raise ConfigurationError(
                    f"the journal and its log have more than {MOST} bytes, which is the most that is copied; "
                    f"run it on the journal of a test server"
                )
            self._left -= size
            return file.read(size)


def _unread(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"cannot read {str(path)!a}: {why}; run it as a user who can read the journal and its log"
    )
