"""Journals with a log, made by hand: no code of the journal is used, so that two verifiers can be held against it.

Everything follows from fixed seeds and times: the same calls give the same bytes.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)
ORIGIN = "files.example/securefs-0a1b2c3d"
SEVERITIES = {
    "audit.adopted": 2,
    "audit.cutover": 2,
    "audit.epoch": 3,
    "audit.retired": 2,
    "server.stop": 4,
}


def leaf_of(line: bytes) -> bytes:
    """Return the hash of a line without its line end."""
    return hashlib.sha256(b"\0" + line).digest()


def chain_id(name: str) -> str:
    """Return 32 hex digits that follow from a name."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def encode(record: dict) -> bytes:
    """Return the line of a record, without its line end."""
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode("ascii")


class Tree:
    """The roots of whole subtrees, from the largest to the smallest."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []

    def add(self, leaf: bytes) -> None:
        """Append a leaf."""
        self.size += 1
        level = 0
        while self._peaks and self._peaks[-1][0] == level:
            leaf = hashlib.sha256(b"\1" + self._peaks.pop()[1] + leaf).digest()
            level += 1
        self._peaks.append((level, leaf))

    def root(self) -> bytes:
        """Return the root of RFC 6962."""
        *left, (_, root) = self._peaks
        for _, peak in reversed(left):
            root = hashlib.sha256(b"\1" + peak + root).digest()
        return root


class Key:
    """An Ed25519 key that follows from a name."""

    def __init__(self, name: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, text: str) -> bytes:
        """Return the signature of a text."""
        return self._key.sign(text.encode())

    def id(self, origin: str = ORIGIN) -> bytes:
        """Return the four bytes that name the key."""
        return hashlib.sha256(origin.encode() + b"\n\x01" + self.public).digest()[:4]

    def vkey(self, origin: str = ORIGIN) -> str:
        """Return the verification key, as it is pinned."""
        key = base64.b64encode(b"\x01" + self.public).decode()
        return f"{origin}+{self.id(origin).hex()}+{key}"


class Witness:
    """A witness (C2SP tlog-cosignature), whose key follows from its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._key = Key(name)
        self._data = b"\x04" + self._key.public
        self._id = hashlib.sha256(name.encode() + b"\n" + self._data).digest()[:4]

    def vkey(self) -> str:
        """Return the verification key, as it is pinned."""
        return f"{self.name}+{self._id.hex()}+{base64.b64encode(self._data).decode()}"

    def cosigned(self, checkpoint: Checkpoint, time: int = 1_800_000_000) -> bytes:
        """Return the note with a cosignature, and the empty line behind it."""
        note = checkpoint.note()[:-1]
        text = note.partition(b"\n\n")[0].decode() + "\n"
        signature = self._key.sign(f"cosignature/v1\ntime {time}\n{text}")
        line = base64.b64encode(self._id + time.to_bytes(8, "big") + signature).decode()
        return note + f"\u2014 {self.name} {line}\n\n".encode()


@dataclass
class Made:
    """One chain: its lines, without line ends, and what stands behind the last of them.

    :ivar begins: the first records of its further files. :ivar gone: the files that are removed.
    :ivar packed: the files that are compressed.
    """

    id: str
    clock: Clock
    version: int = 2
    lines: list[bytes] = field(default_factory=list)
    torn: bytes = b""
    begins: list[int] = field(default_factory=list)
    gone: set[int] = field(default_factory=set)
    packed: set[int] = field(default_factory=set)

    @property
    def head(self) -> str:
        """The hash that the next line names."""
        return leaf_of(self.lines[-1]).hex() if self.lines else "0" * 64

    def add(self, event: str, outcome: str = "success", **more) -> None:
        """Append a record."""
        self.lines.append(encode(self.record(event, outcome, **more)))

    def record(self, event: str, outcome: str = "success", **more) -> dict:
        """Return the next record."""
        writer = {"pid": 4711, "version": "0.1.0"}
        if self.version == 1:
            about = {"src": {"host": "files-1", **writer}}
        else:
            about = {"host": {"name": "files-1", **writer}}
        return {
            "v": self.version,
            "time": self.clock.next(),
            "chain": self.id,
            "seq": len(self.lines),
            "prev": self.head,
            "event": event,
            "outcome": outcome,
            "sev": SEVERITIES.get(event, 1),
            **about,
            **more,
        }

    def change(self, number: int, **more) -> None:
        """Change a record, and nothing after it."""
        self.lines[number] = encode(json.loads(self.lines[number]) | more)

    def link(self, start: int = 0) -> None:
        """Number and link all lines anew, as somebody would who can write the file."""
        for number in range(start, len(self.lines)):
            prev = leaf_of(self.lines[number - 1]).hex() if number else "0" * 64
            self.change(number, seq=number, prev=prev)

    def data(self) -> bytes:
        """Return the content of all files, one after the other."""
        return b"".join(line + b"\n" for line in self.lines) + self.torn

    def next_file(self) -> None:
        """Go on in another file."""
        self.begins.append(len(self.lines))
        start = sum(len(line) + 1 for line in self.lines)
        self.add("audit.segment", obj={"segment": len(self.begins), "start": start, "names": "pseudonym"})

    def files(self) -> dict[str, bytes]:
        """Return the content of its files, by their names."""
        starts, found = [0, *self.begins], {}
        for number, (start, end) in enumerate(zip(starts, [*self.begins, len(self.lines)], strict=True)):
            data = b"".join(line + b"\n" for line in self.lines[start:end])
            data += self.torn if number == len(self.begins) else b""
            name = f"{self.id}-{number}.jsonl"
            if number in self.packed:
                name, data = f"{name}.gz", gzip.compress(data, mtime=0)
            if number not in self.gone:
                found[name] = data
        return found


class Clock:
    """Gives each record a time, a tenth of a second after the one before."""

    def __init__(self) -> None:
        self.now = START

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def next(self) -> str:
        """Return the next time, and go on."""
        self.now += timedelta(milliseconds=100)
        return self.now.strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


@dataclass
class Checkpoint:
    """One signed note."""

    size: int
    root: bytes
    keys: list[Key]
    origin: str = ORIGIN

    def note(self) -> bytes:
        """Return the note, with the empty line behind it."""
        text = f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"
        lines = "".join(
            f"\u2014 {self.origin} {base64.b64encode(key.id(self.origin) + key.sign(text)).decode()}\n"
            for key in self.keys
        )
        return f"{text}\n{lines}\n".encode()


class MadeJournal:
    """A journal of several chains, and its log.

    :ivar now: when it is to be verified. :ivar pins: the keys that are pinned.
    """

    def __init__(self, *, log: bool = True, version: int = 2, stable: Key | None = None) -> None:
        self.clock = Clock()
        self.version = version
        self.chains: dict[str, Made] = {}
        self.sealers: list[Made] = []
        self.checkpoints: list[Checkpoint] = []
        self.pins = [Key("0 0").vkey()] if log else []
        self.stable = stable
        self.log = log
        self.tiles = True
        self.files: dict[str, bytes] = {}  # further ones, and others in place of those above
        self.leaves: list[bytes] = []  # as they were sealed: what the tiles hold
        self._taken: dict[str, int] = {}
        self._tree = Tree()
        self.epoch, self.index = 0, 0
        self._now: datetime | None = None
        if log:
            self.start_sealer()

    @property
    def now(self) -> datetime:
        """When it is to be verified: two seconds after the last record, unless it was set."""
        return self._now or self.clock.now + timedelta(seconds=2)

    def later(self, **time: float) -> None:
        """Verify it so much later than the last record."""
        self._now = self.clock.now + timedelta(**time)

    # --- what writers do ---

    def chain(self, name: str, records: int = 0, *, version: int | None = None) -> Made:
        """Begin a worker's chain."""
        made = Made(chain_id(name), self.clock, version or self.version)
        self.chains[name] = made
        made.add("server.start", obj={"names": "pseudonym", "sync": "buffered", "on_failure": "closed"})
        self.work(made, records)
        return made

    def work(self, made: Made, records: int) -> None:
        """Append records of an upload."""
        for number in range(records):
            made.add("file.encrypt", obj={"size": number, "name": f"r\u00e9sum\u00e9 {number}\n.pdf"})

    # --- what a sealer does ---

    @property
    def sealer(self) -> Made:
        """The sealer's present chain."""
        return self.sealers[-1]

    def start_sealer(self, *, epoch: bool = False) -> None:
        """Begin a sealer's chain; with ``epoch``, its line of keys too."""
        made = Made(chain_id(f"sealer {len(self.sealers)}"), self.clock)
        self.sealers.append(made)
        made.add("server.start", obj={"sync": "record", "on_failure": "closed"})
        if epoch:
            self.epoch += 1
            made.add("audit.epoch", obj={"why": "no_key"})

    def adopt(self, made: Made) -> None:
        """Close a dead writer's chain."""
        obj = {"chain": made.id, "size": len(made.torn), "boot": "a" * 32}
        if made.lines:
            obj |= {"upto": len(made.lines) - 1, "hash": made.head}
        self.sealer.add("audit.adopted", obj=obj)

    def retire(self, made: Made, files: int) -> None:
        """Say that the oldest files of a chain are removed, and remove them."""
        upto = [*made.begins, len(made.lines)][files - 1] - 1
        digest = leaf_of(made.lines[upto]).hex()
        self.sealer.add("audit.retired", obj={"chain": made.id, "upto": upto, "hash": digest, "files": files})
        made.gone |= set(range(files))

    def cut_over(self, made: Made) -> None:
        """Name a chain that is older than the log."""
        self.sealer.add(
            "audit.cutover", obj={"chain": made.id, "upto": len(made.lines) - 1, "hash": made.head}
        )
        self._taken[made.id] = len(made.lines)

    def key(self, index: int) -> Key:
        """Return the key of a checkpoint in the present line of keys."""
        return Key(f"{self.epoch} {index}")

    def seal(self, *, stop: bool = False, checkpoint: bool = True, without: Made | None = None) -> None:
        """Take all that is there, and sign it; with ``stop``, the sealer's server.stop too.

        :param without: a chain that is left for later.
        """
        runs = []
        for made in [*self.sealers[:-1], *self.chains.values(), self.sealer]:
            taken = self._taken.get(made.id, 0)
            count = len(made.lines) + (1 + stop if made is self.sealer else 0)
            if count > taken and made is not without:
                runs.append([made.id, taken, count - 1])
                self._grow(made.lines[taken:])
                self._taken[made.id] = count
        size = self._tree.size + 1 + stop
        keys = {"key": self.key(self.index).public.hex(), "next": self.key(self.index + 1).public.hex()}
        self.sealer.add("audit.seal", seal={"index": self.index, "runs": runs, "size": size, **keys})
        if stop:
            self.sealer.add("server.stop")
        self._grow(self.sealer.lines[-1 - stop :])
        if checkpoint:
            signers = [self.key(self.index), *([self.stable] if self.stable else [])]
            self.checkpoints.append(Checkpoint(size, self._tree.root(), signers))
        self.index += 1

    def _grow(self, lines: list[bytes]) -> None:
        for line in lines:
            self._tree.add(leaf_of(line))
            self.leaves.append(leaf_of(line))

    def forge(self) -> None:
        """Make the whole log anew over what the chains hold now, with the keys that it had.

        The seal records keep their numbers, runs and times. Nobody can do this who has not got all
        keys; attacks that have fewer change the keys after this.
        """
        order, tree, index = [], Tree(), 0
        by_id = {made.id: made for made in [*self.sealers, *self.chains.values()]}
        for sealer in self.sealers:
            sealer.link()
            for line in sealer.lines:
                for chain, first, last in json.loads(line).get("seal", {}).get("runs", []):
                    lines = by_id[chain].lines if chain in by_id else []
                    order += lines[first : last + 1]
        for line in order:
            tree.add(leaf_of(line))
            if index < len(self.checkpoints) and self.checkpoints[index].size == tree.size:
                self.checkpoints[index].root = tree.root()
                index += 1

    # --- the files ---

    def contents(self) -> dict[str, bytes]:
        """Return the files of the journal's folder, by their paths in it."""
        files = {"pseudonym.key": bytes(32)}
        for made in self.chains.values():
            files |= made.files()
        if self.log:
            for made in self.sealers:
                files |= {f"log/{name}": data for name, data in made.files().items()}
            files |= {"log/origin": f"{ORIGIN}\n".encode(), "log/vkey": f"{Key('0 0').vkey()}\n".encode()}
            files["log/lock"] = b""
            if self.tiles:
                files["log/tiles/0"] = b"".join(self.leaves)
            if self.checkpoints:
                files["log/checkpoints"] = b"".join(one.note() for one in self.checkpoints)
        return files | self.files

    def write(self, folder: Path) -> None:
        """Write the journal's folder."""
        folder.mkdir()
        for name, data in self.contents().items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
