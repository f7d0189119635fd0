"""What a sealer wrote, read by a second implementation: every rule of a log, and nothing of ours."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


@dataclass
class Sealed:
    """A log that holds: ``taken`` counts the records of each chain that it has."""

    taken: dict
    seals: list
    breaks: int
    checkpoints: list
    leaves: list
    adopted: dict
    keys: list


class Growing:
    """A tree whose root is known at each size: complete subtrees, as (height, hash)."""

    def __init__(self):
        self.size, self.parts = 0, []

    def append(self, leaf):
        self.size += 1
        part = (0, leaf)
        while self.parts and self.parts[-1][0] == part[0]:
            part = (part[0] + 1, node(self.parts.pop()[1], part[1]))
        self.parts.append(part)

    def root(self):
        root = self.parts[-1][1]
        for _, left in self.parts[-2::-1]:
            root = node(left, root)
        return root


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def lines_of(path):
    """The whole lines of a file, without their ends."""
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def events(log, event):
    """The records of one event in the sealers' chains."""
    found = [json.loads(line) for path in sorted(log.glob("*.jsonl")) for line in lines_of(path)]
    return [record for record in found if record["event"] == event]


def read_sealed(journal, log=None):
    """Check every rule; return what the log has. An AssertionError says which does not hold."""
    log = log or journal / "log"
    files = {}
    found = [path for folder in (journal, log) for path in folder.glob("*.jsonl")]
    for path in sorted(found, key=lambda path: int(path.stem[33:])):
        files.setdefault(path.name[:32], []).extend(lines_of(path))
    records = {chain: [json.loads(line) for line in lines] for chain, lines in files.items()}
    order = sorted(
        (record["seal"]["index"], chain, record["seq"])
        for chain, found in records.items()
        if (log / f"{chain}-0.jsonl").exists()
        for record in found
        if record["event"] == "audit.seal"
    )
    taken, leaves, adopted, keys = {}, [], {}, []
    notes = checkpoints_of(log)
    signed = {size: (root, text, lines) for size, root, text, lines in notes}
    assert len(signed) == len(notes), "two checkpoints of one size"
    seals, missing, breaks, expected = [], None, 0, None
    done, tree = {}, Growing()
    for index, chain, seq in order:
        for record in records[chain][done.get(chain, 0) : seq]:
            if record["event"] == "audit.cutover" and not index:
                taken[record["obj"]["chain"]] = record["obj"]["upto"] + 1
            if record["event"] == "audit.adopted":
                assert record["obj"]["chain"] not in adopted, "adopted twice"
                adopted[record["obj"]["chain"]] = record["obj"]
        done[chain] = seq
        seal = records[chain][seq]["seal"]
        if (
            (index, chain, seq) == order[-1]
            and seal["size"] not in signed
            and seal["runs"][-1][2] == len(files[chain])
        ):
            missing = index  # killed before its server.stop
            break
        assert index == len(seals), "seals are numbered without a gap"
        broken = expected is not None and seal["key"] != expected
        assert missing is None or broken, f"checkpoint {missing} is missing without a break"
        breaks += broken
        for name, first, last in seal["runs"]:
            assert first == taken.get(name, 0), "runs follow each other"
            assert last < len(files[name]), f"record {last} of {name} was sealed, and is not there"
            leaves += [hashlib.sha256(b"\x00" + line).digest() for line in files[name][first : last + 1]]
            taken[name] = last + 1
        assert seal["runs"][-1][0] == chain
        assert taken[chain] in {seq + 1, seq + 2}
        assert seal["size"] == len(leaves)
        expected, missing = seal["next"], None
        seals.append(seal)
        keys.append(seal["key"])
        if len(leaves) in signed:
            root, text, lines = signed.pop(len(leaves))
            for leaf in leaves[tree.size :]:
                tree.append(leaf)
            assert root == tree.root()
            check_signature(text, lines[0], bytes.fromhex(seal["key"]))
        else:
            missing = index
    assert not signed, "a checkpoint belongs to no seal"
    for chain, obj in adopted.items():
        raw = max(
            (path for folder in (journal, log) for path in folder.glob(f"{chain}-*.jsonl")),
            key=lambda path: int(path.stem[33:]),
        )
        lines, torn = files[chain], raw.read_bytes().rpartition(b"\n")[2]
        assert obj.get("upto", -1) == len(lines) - 1
        assert obj.get("hash") == (hashlib.sha256(b"\x00" + lines[-1]).hexdigest() if lines else None)
        assert obj["size"] == len(torn)
    tiles = log / "tiles" / "0"
    if missing is None and tiles.exists():
        assert tiles.read_bytes()[: 32 * len(leaves)] == b"".join(leaves)
    return Sealed(taken, seals, breaks, notes, leaves, adopted, keys)


def checkpoints_of(log):
    """(size, root, text, signature lines) of each checkpoint; a torn one at the end is left out."""
    data = (log / "checkpoints").read_bytes().decode() if (log / "checkpoints").exists() else ""
    parts = data.split("\n\n")
    found = []
    for text, signatures in zip(parts[0::2], parts[1::2], strict=False):
        if signatures is parts[-1]:
            break  # its empty line is not there
        _, size, root = text.split("\n")
        found.append((int(size), base64.b64decode(root), text + "\n", signatures.split("\n")))
    return found


def check_signature(text, line, public):
    """Verify one signature line of a note."""
    dash, name, data = line.split(" ")
    assert dash == "—"
    data = base64.b64decode(data)
    assert data[:4] == hashlib.sha256(name.encode() + b"\n\x01" + public).digest()[:4]
    Ed25519PublicKey.from_public_bytes(public).verify(data[4:], text.encode())


def all_sealed(journal, sealed):
    """Assert that each record of each chain is in the log."""
    counts = Counter()
    for path in journal.glob("*.jsonl"):
        counts[path.name[:32]] += len(lines_of(path))
    for chain, count in counts.items():
        assert sealed.taken.get(chain, 0) == count, f"{chain}: {count} records"
