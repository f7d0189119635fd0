"""``securefs rewrap``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from support.commands import KEY, OTHER_KEY, sealed
from support.journals import only_chain, records
from support.sealing import slot_of

from securefs import Keyring
from securefs.audit import Journal
from securefs.keys import key_id


def test_rewrap_rotates_files_and_folders(run, rotating, monkeypatch):
    Path("d/e").mkdir(parents=True)
    sealed(name="d/a.enc")
    sealed(name="d/e/by-magic")
    sealed(name="d/new.enc", key=OTHER_KEY)
    sealed(name="single")
    Path("d/plain.txt").write_bytes(b"not encrypted")
    result = run("rewrap", "d", "single")
    assert (result.code, result.err) == (0, "")
    assert result.out.decode().splitlines() == [
        "rewrapped  d/a.enc",
        "unchanged  d/new.enc",
        "plain      d/plain.txt",
        "rewrapped  d/e/by-magic",
        "rewrapped  single",
        "3 rewrapped, 1 unchanged, 0 failed, 1 not encrypted",
    ]
    monkeypatch.delenv("FILE_KEY_BASE64_PREVIOUS")
    assert run("verify", "d", "single").code == 0
    document = json.loads(run("rewrap", "d", "--json").out)
    assert (document["rewrapped"], document["unchanged"], document["failed"]) == (0, 3, 0)


def test_rewrap_says_in_json_what_it_did(run, rotating):
    path = sealed()
    object_id = json.loads(run("inspect", "a.txt.enc", "--json").out)["object_id"]
    (file,) = json.loads(run("rewrap", "a.txt.enc", "--json").out)["files"]
    assert file == {
        "path": str(path),
        "kind": "rewrapped",
        "object_id": object_id,
        "key_id": Keyring(OTHER_KEY).primary_id.hex(),
        "removed": [Keyring(KEY).primary_id.hex()],
        "changed": True,
    }


def test_rewrap_names_every_failure_and_goes_on(run, rotating):
    Path("d").mkdir()
    sealed(name="d/1.enc", key=bytes(range(2, 34)))
    path = sealed(name="d/2.enc")
    path.write_bytes(path.read_bytes()[:100] + b"?" + path.read_bytes()[101:])
    sealed(name="d/3.enc", format_1=True)
    sealed(name="d/4.enc")
    os.mkfifo("fifo")
    result = run("rewrap", "d", "fifo", "/proc/self/mem")
    assert result.code == 1
    lines = result.out.decode().splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == [
        "FAILED     d/1.enc",
        "FAILED     d/2.enc",
        "FAILED     d/3.enc",
        "rewrapped  d/4.enc",
        "FAILED     fifo",
        "FAILED     /proc/self/mem",
    ]
    assert lines[-1] == "1 rewrapped, 0 unchanged, 5 failed"
    assert lines[-2].startswith("FAILED     /proc/self/mem: cannot be rewrapped: ")
    files = json.loads(run("rewrap", "d", "fifo", "/proc/self/mem", "--json").out)["files"]
    reasons = ["unknown_key", "tag_mismatch", "not_encrypted", None, "io_error", "io_error"]
    assert [file.get("reason") for file in files] == reasons
    assert "Format 1 names no key" in files[2]["error"]


def test_rewrap_is_journalled(run, rotating, monkeypatch):
    sealed(name="1.enc")
    sealed(name="2.enc", key=bytes(range(2, 34)))
    sealed(name="3.enc", key=OTHER_KEY)
    Path("journal").mkdir(mode=0o700)
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    monkeypatch.setenv("SECUREFS_AUDIT_NAMES", "clear")
    result = run("rewrap", "1.enc", "2.enc", "3.enc", "/proc/self/mem", "--json")
    assert result.code == 1
    files = json.loads(result.out)["files"]
    found = records(only_chain(Path("journal")))
    assert [record["event"] for record in found] == ["server.start", *["key.rewrap"] * 3, "server.stop"]
    done, unknown, unreadable = found[1:-1]
    assert done["outcome"] == "success"
    new = Keyring(OTHER_KEY).primary_id.hex()
    assert done["obj"] == {"id": files[0]["object_id"], "key_id": new, "name": "1.enc"}
    assert (unknown["outcome"], unknown["reason"], unknown["sev"]) == ("failure", "unknown_key", 3)
    assert unknown["obj"] == {"name": "2.enc"}
    assert (unreadable["reason"], unreadable["obj"]) == ("io_error", {"name": "mem"})
    assert run("audit", "verify", "journal").code == 3


def test_rewrap_changes_nothing_that_the_journal_cannot_record(run, rotating, monkeypatch):
    path = sealed()
    before = path.read_bytes()
    Path("journal").mkdir(mode=0o700)
    Journal("journal").close()  # which makes the key of its pseudonyms, while there is room
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    real = os.open

    def full(name, flags, *arguments, **options):
        if str(name).endswith(".jsonl"):
            raise OSError(28, "No space left on device", name)
        return real(name, flags, *arguments, **options)

    monkeypatch.setattr("os.open", full)
    result = run("rewrap", str(path))
    assert result.code == 2
    assert "journal cannot be written" in result.line
    assert path.read_bytes() == before


def test_rewrap_verifies_the_context_unless_it_is_told_not_to(run, rotating):
    for name in ("1.enc", "2.enc", "3.enc"):
        sealed(name=name, context=b"owner:ann")
    before = Path("1.enc").read_bytes()
    result = run("rewrap", "1.enc")
    assert result.code == 1
    assert b"written in another context; nothing was written" in result.out
    assert run("rewrap", "1.enc", "--context", "owner:bob").code == 1
    assert Path("1.enc").read_bytes() == before
    assert run("rewrap", "1.enc", "--context", "owner:ann").out.endswith(
        b"1 rewrapped, 0 unchanged, 0 failed\n"
    )
    assert run("rewrap", "2.enc", "--context-hex", b"owner:ann".hex()).code == 0
    result = run("rewrap", "3.enc", "--any-context")
    assert (result.code, result.err) == (0, "")
    assert result.out.endswith(
        b"1 rewrapped, 0 unchanged, 0 failed; --any-context: commitments were not verified\n"
    )
    assert run("verify", "1.enc", "2.enc", "3.enc", "--context", "owner:ann").code == 0
    assert run("rewrap", "1.enc", "--any-context", "--context", "x").code == 2


def with_planted_slot(path):
    data = bytearray(path.read_bytes())
    slot = slot_of(KEY, bytes(data[:48]), bytes(range(9, 41)), 9)
    data[216 : 216 + len(slot)] = slot
    path.write_bytes(data)


def test_a_planted_slot_is_a_finding_of_verify_and_refused_by_rewrap(run, rotating):
    with_planted_slot(sealed(name="1.enc", key=OTHER_KEY))
    sealed(name="2.enc", key=OTHER_KEY)
    result = run("verify", "1.enc", "2.enc")
    assert result.code == 1
    name = key_id(KEY).hex()
    assert result.out.decode().splitlines() == [
        "ok      1.enc",
        f"PLANTED 1.enc: slot 1 (key {name}) and the contents (key {key_id(OTHER_KEY).hex()}) do not fit: somebody else has one of these keys",
        "ok      2.enc",
        "2 verified, 0 failed, 1 with planted slots",
    ]
    document = json.loads(run("verify", "1.enc", "2.enc", "--json").out)
    assert (document["verified"], document["failed"], document["planted"]) == (2, 0, 1)
    assert [file.get("planted") for file in document["files"]] == [[{"slot": 1, "key_id": name}], None]
    before = Path("1.enc").read_bytes()
    result = run("rewrap", "1.enc", "--json")
    (file,) = json.loads(result.out)["files"]
    assert (result.code, file["reason"]) == (1, "commitment_mismatch")
    assert file["error"].startswith(f"slot 1 (key {name}, generation 9) was planted")
    assert Path("1.enc").read_bytes() == before
    result = run("decrypt", "1.enc", "-o", "-")
    assert (result.code, result.out) == (0, b"the content")
    assert "1.enc: slot 1 (key" in result.line
