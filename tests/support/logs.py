"""A journal with a sealed log, written by a second implementation that knows nothing of ours.

It holds everything in memory, so that an attacker can change it and write it all anew: :meth:`Log.save`.
"""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime, timezone

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from support import trees

BEGIN = 1_790_000_000  # POSIX seconds: 2026-09-21
NANO = 1_000_000_000


def leaf(line):
    return hashlib.sha256(b"\x00" + line).digest()


def b64(data):
    return base64.b64encode(data).decode()


def public(key):
    return key.public_key().public_bytes_raw()


def key_id(name, key, kind=1):
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public(key)).digest()[:4]


def vkey(name, key, kind=1):
    """A verification key as C2SP signed-note.md spells it."""
    return f"{name}+{key_id(name, key, kind).hex()}+{b64(bytes([kind]) + public(key))}"


def signature_line(name, key, text):
    return f"— {name} {b64(key_id(name, key) + key.sign(text.encode()))}\n"


def cosignature_line(name, key, text, time):
    """What a witness adds (C2SP tlog-cosignature.md)."""
    message = f"cosignature/v1\ntime {time}\n{text}".encode()
    return f"— {name} {b64(key_id(name, key, 4) + time.to_bytes(8, 'big') + key.sign(message))}\n"


def new_key():
    return Ed25519PrivateKey.generate()


class Log:
    """Chains in ``folder``, the sealer's in ``folder/log``."""

    def __init__(self, folder, origin="files-1/securefs-0a1b2c3d", stable=None, tiles=True):
        self.folder = folder
        self.origin = origin
        self.stable = stable
        self.tiles = tiles
        self.now = BEGIN * NANO
        self.lines = {}  # chain: its lines
        self.torn = {}  # chain: bytes after its last line
        self.sealers = []
        self.taken = {}  # chain: lines in the log
        self.leaves = []
        self.notes = []
        self.sizes = []  # of each checkpoint
        self.index = 0
        self.key = new_key()
        self.keys = []  # that signed

    # Writers.

    def start(self, **obj):
        """Begin a chain; return its id."""
        chain = f"{len(self.lines) + 1:032x}"
        self.lines[chain] = []
        self.record(chain, "server.start", obj={"names": "clear", "sync": "buffered"} | obj)
        return chain

    def record(self, chain, event="file.encrypt", **members):
        """Append a record."""
        self.now += NANO // 100
        lines = self.lines[chain]
        moment = datetime.fromtimestamp(self.now // NANO, timezone.utc)
        record = {
            "v": 2,
            "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{self.now % NANO:09d}Z",
            "chain": chain,
            "seq": len(lines),
            "prev": leaf(lines[-1]).hex() if lines else "0" * 64,
            "event": event,
            "outcome": "success",
            "sev": 1,
            "host": {"name": "files-1", "pid": 7, "version": "1"},
        } | members
        lines.append(json.dumps(record, sort_keys=True, separators=(",", ":")).encode())

    def records(self, chain, count):
        for number in range(count):
            self.record(chain, obj={"size": number})

    def stop(self, chain):
        self.record(chain, "server.stop", sev=4)

    # The sealer.

    def begin(self, why=None):
        """Begin a sealer's chain; with ``why``, a new line of keys."""
        chain = self.start()
        self.sealers.append(chain)
        if why is not None:
            self.key = new_key()
            self.record(chain, "audit.epoch", sev=3, obj={"why": why})
        return chain

    def adopt(self, chain):
        """Close a chain whose writer died."""
        lines, torn = self.lines[chain], self.torn.get(chain, b"")
        obj = {"chain": chain, "size": len(torn), "boot": "b"}
        if lines:
            obj |= {"upto": len(lines) - 1, "hash": leaf(lines[-1]).hex()}
        self.record(self.sealers[-1], "audit.adopted", sev=2, obj=obj)

    def cut_over(self, chain):
        """Say that a chain is older than the log."""
        lines = self.lines[chain]
        obj = {"chain": chain, "upto": len(lines) - 1, "hash": leaf(lines[-1]).hex()}
        self.record(self.sealers[-1], "audit.cutover", sev=2, obj=obj)
        self.taken[chain] = len(lines)

    def seal(self, *, stop=False, sign=True, key=None, only=None, change=None):
        """Take what is pending (of ``only``, if given), and sign a checkpoint unless a crash comes first.

        ``change`` makes another seal of the one that would be right: a sealer that lies.
        """
        own = self.sealers[-1]
        self.now += NANO
        runs = [
            [chain, self.taken.get(chain, 0), len(lines) - 1]
            for chain, lines in self.lines.items()
            if chain != own and len(lines) > self.taken.get(chain, 0) and (only is None or chain in only)
        ]
        last = len(self.lines[own]) + stop
        runs.append([own, self.taken.get(own, 0), last])
        following = new_key()
        size = len(self.leaves) + sum(last - first + 1 for _, first, last in runs)
        seal = {
            "index": self.index,
            "key": public(key or self.key).hex(),
            "next": public(following).hex(),
            "runs": runs,
            "size": size,
        }
        if change is not None:
            seal = change(seal)
            runs, size, self.index = seal["runs"], seal["size"], seal["index"]
        self.record(own, "audit.seal", seal=seal)
        if stop:
            self.stop(own)
        for chain, first, last in runs:
            self.leaves += [leaf(line) for line in self.lines[chain][first : last + 1]]
            self.taken[chain] = last + 1
        if sign:
            self.sign(size, key or self.key)
        self.index += 1
        self.key = following

    def order(self):
        """Runs of lines, in the order of the leaves."""
        for own in self.sealers:
            for line in self.lines[own]:
                for chain, first, last in json.loads(line).get("seal", {}).get("runs", ()):
                    yield self.lines[chain][first : last + 1]

    def text(self, size):
        """The text of a checkpoint."""
        return f"{self.origin}\n{size}\n{b64(trees.mth(self.leaves[:size]))}\n"

    def sign(self, size, key):
        text = self.text(size)
        note = f"{text}\n{signature_line(self.origin, key, text)}"
        if self.stable is not None:
            note += signature_line(self.origin, self.stable, text)
        self.notes.append(note)
        self.sizes.append(size)
        self.keys.append(key)

    def vkey(self, index=0):
        """The verification key of a checkpoint."""
        return vkey(self.origin, self.keys[index])

    # The disk.

    @property
    def log(self):
        return self.folder / "log"

    def path(self, chain):
        return (self.log if chain in self.sealers else self.folder) / f"{chain}-0.jsonl"

    def save(self):
        """Write everything, in place of what is there."""
        for folder in (self.folder, self.log):
            folder.mkdir(mode=0o700, exist_ok=True)
            for path in folder.glob("*.jsonl"):
                path.unlink()
        for chain, lines in self.lines.items():
            self.path(chain).write_bytes(b"".join(line + b"\n" for line in lines) + self.torn.get(chain, b""))
        (self.log / "checkpoints").write_text("".join(f"{note}\n" for note in self.notes))
        (self.log / "origin").write_text(f"{self.origin}\n")
        if self.tiles:
            self._save_tiles()
        return self

    def _save_tiles(self):
        (self.log / "tiles").mkdir(exist_ok=True)
        level, hashes = 0, self.leaves
        while hashes:
            (self.log / "tiles" / str(level)).write_bytes(b"".join(hashes))
            hashes = [trees.mth(hashes[at : at + 256]) for at in range(0, len(hashes) - 255, 256)]
            level += 1

    @property
    def seconds(self):
        """The present, POSIX seconds."""
        return self.now / NANO


def sealed(folder, *, rounds=3, stop=False, **options):
    """A log of two writers and some checkpoints, saved."""
    log = Log(folder, **options)
    first, second = log.start(), log.start()
    log.begin()
    for number in range(rounds):
        log.records(first, 3)
        log.records(second, 2)
        if stop and number == rounds - 1:
            log.stop(first)
            log.stop(second)
        log.seal(stop=stop and number == rounds - 1)
    return log.save()
