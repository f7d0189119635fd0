"""``securefs recover``."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import pytest
from support.commands import KEY, OTHER_KEY, names, sealed
from support.journals import ROOT, only_chain, records
from support.sealing import pattern

from securefs import Keyring, open_encrypted

RING = Keyring(KEY)
PLAIN = [pattern(100_000, "1"), pattern(100_000, "2"), pattern(1000, "3")]


def joined(name="video.mp4", plain=PLAIN, **options):
    """Make what an app makes that joins encrypted chunks; return the offsets of the containers."""
    offsets, data = [], b""
    for content in plain:
        offsets.append(len(data))
        path = sealed(content, name="chunk", **options)
        data += path.read_bytes()
        path.unlink()
    Path(name).write_bytes(data)
    return offsets


def content(name, ring=RING, context=b""):
    with open_encrypted(name, ring, context) as file:
        return file.read()


def test_joined_chunks_become_one_file_again(run):
    joined()
    result = run("recover", "video.mp4", "-o", "whole")
    assert (result.code, result.err) == (0, "")
    assert result.out.decode() == (
        "recovered whole: 3 containers, 201000 bytes, in the order in which they were stored; "
        "whether it is the right one, and none is missing, can't be told\n"
    )
    assert content("whole") == b"".join(PLAIN)
    assert run("verify", "video.mp4").code == 1
    assert run("recover", "video.mp4", "--in-place").code == 0
    assert content("video.mp4") == b"".join(PLAIN)
    assert run("verify", "--all", ".").code == 0
    result = run("recover", "video.mp4", "--in-place")
    assert (result.code, result.line) == (
        2,
        "it is one container, and it verifies: there is nothing to recover",
    )


def test_json_has_each_container_and_the_new_file(run):
    offsets = joined()
    document = json.loads(run("recover", "video.mp4", "-o", "whole", "--json").out)
    info = json.loads(run("verify", "whole", "--json").out)["files"][0]
    listed = document.pop("containers")
    assert document == {
        "path": "video.mp4",
        "output": "whole",
        "object_id": info["object_id"],
        "key_id": info["key_id"],
        "size": 201_000,
    }
    assert [one["offset"] for one in listed] == offsets
    assert [one["number"] for one in listed] == [1, 2, 3]
    assert [one["size"] for one in listed] == [100_000, 100_000, 1000]
    assert all(len(one["object_id"]) == 64 and one["key_id"] == info["key_id"] for one in listed)


def damaged():
    offsets = joined()
    data = bytearray(Path("video.mp4").read_bytes())
    data[offsets[1] + 50_000] ^= 1
    data[-2] = 0  # what is last then is not by chance a trailer
    Path("video.mp4").write_bytes(data[:-1])
    return offsets


@pytest.mark.parametrize("target", [["-o", "whole"], ["--in-place"]])
def test_what_does_not_verify_is_named_and_nothing_is_written(run, target):
    offsets = damaged()
    before = Path("video.mp4").read_bytes()
    result = run("recover", "video.mp4", *target)
    assert result.code == 1
    second = f"container 2, at byte {offsets[1]}: segment 0: a segment's tag does not match"
    third = f"container 3, at byte {offsets[2]}: the file was cut or extended"
    assert result.out.decode().splitlines() == [
        f"FAILED  video.mp4: {second}",
        f"FAILED  video.mp4: {third}",
    ]
    assert result.line == f"{second}; nothing was written"
    result = run("recover", "video.mp4", *target, "--json")
    document = json.loads(result.out)
    assert (result.code, document["reason"]) == (1, "tag_mismatch")
    assert document["error"] == result.line
    assert [one.get("reason") for one in document["containers"]] == [None, "tag_mismatch", "truncated"]
    assert Path("video.mp4").read_bytes() == before
    assert names() == ["video.mp4"]


def test_containers_are_written_apart_and_damaged_ones_left_out(run):
    offsets = damaged()
    Path("parts").mkdir()
    result = run("recover", "video.mp4", "--apart", "parts")
    assert (result.code, result.err) == (1, "")
    assert result.out.decode().splitlines() == [
        "written parts/video.mp4.1.enc: container 1, at byte 0",
        f"FAILED  video.mp4: container 2, at byte {offsets[1]}: segment 0: a segment's tag does not match",
        f"FAILED  video.mp4: container 3, at byte {offsets[2]}: the file was cut or extended",
        "1 written, 2 failed",
    ]
    assert content("parts/video.mp4.1.enc") == PLAIN[0]
    assert [path.name for path in Path("parts").iterdir()] == ["video.mp4.1.enc"]
    assert run("recover", "video.mp4", "--apart", "parts").code == 2
    document = json.loads(run("recover", "video.mp4", "--apart", "parts", "--force", "--json").out)
    assert (document["written"], document["failed"]) == (1, 2)
    assert document["containers"][0]["output"] == "parts/video.mp4.1.enc"
    assert document["containers"][1]["reason"] == "tag_mismatch"
    joined()
    result = run("recover", "video.mp4", "--apart", "parts", "--force", "--quiet")
    assert (result.code, result.out) == (0, b"3 written, 0 failed\n")


def test_the_new_file_is_under_the_current_key_and_in_the_same_context(run, rotating):
    joined(context=b"owner:ann")
    assert run("recover", "video.mp4", "--in-place").code == 1
    assert run("recover", "video.mp4", "--in-place", "--context", "owner:ann", "--quiet").code == 0
    assert content("video.mp4", Keyring(OTHER_KEY), b"owner:ann") == b"".join(PLAIN)


def test_a_target_is_named_and_replaced_only_on_demand(run):
    joined()
    result = run("recover", "video.mp4")
    assert (result.code, "required" in result.line) == (2, True)
    assert run("recover", "video.mp4", "-o", "x", "--in-place").code == 2
    for arguments in (["-", "-o", "x"], ["video.mp4", "-o", "-"]):
        result = run("recover", *arguments)
        assert (result.code, "name files" in result.line) == (2, True)
    assert run("recover", "missing", "-o", "x").line == "missing: No such file or directory"
    Path("x").write_bytes(b"old")
    assert "x exists already" in run("recover", "video.mp4", "-o", "x").line
    assert run("recover", "video.mp4", "-o", "x", "--force").code == 0
    assert content("x") == b"".join(PLAIN)
    os.link("video.mp4", "other")
    assert "hard links" in run("recover", "video.mp4", "--in-place").line
    assert run("recover", "video.mp4", "--in-place", "--break-links").code == 0


def test_it_is_journalled(run, monkeypatch):
    joined()
    Path("journal").mkdir(mode=0o700)
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    monkeypatch.setenv("SECUREFS_AUDIT_NAMES", "clear")
    document = json.loads(run("recover", "video.mp4", "--in-place", "--json").out)
    _, done, _ = records(only_chain(Path("journal")))
    assert (done["event"], done["outcome"]) == ("file.import", "success")
    assert done["obj"] == {
        "id": document["object_id"],
        "key_id": RING.primary_id.hex(),
        "suite": "aes-256-cbc-hmac-sha256",
        "format": 2,
        "size": 201_000,
        "name": "video.mp4",
    }


def test_a_failure_is_journalled_and_without_a_journal_nothing_is_written(run, monkeypatch, full_journal):
    damaged()
    Path("journal").mkdir(mode=0o700)
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    monkeypatch.setenv("SECUREFS_AUDIT_NAMES", "clear")
    assert run("recover", "video.mp4", "-o", "x").code == 1
    _, failed, _ = records(only_chain(Path("journal")))
    assert (failed["outcome"], failed["reason"]) == ("failure", "tag_mismatch")
    assert failed["obj"] == {"name": "video.mp4"}
    joined()
    full_journal()
    result = run("recover", "video.mp4", "-o", "x")
    assert (result.code, "journal cannot be written" in result.line) == (2, True)
    assert names() == ["journal", "video.mp4"]


def test_a_joined_file_is_no_success_of_any_command(run, rotating):
    joined()
    before = Path("video.mp4").read_bytes()
    for command in (
        "verify",
        "rewrap",
        "rewrap --any-context",
        "keys in-use",
        "reencrypt",
        "reencrypt --again",
    ):
        result = run(*command.split(), "video.mp4")
        assert result.code == 1, command
        assert result.out.startswith(b"JOINED "), command
        document = json.loads(run(*command.split(), "video.mp4", "--json").out)
        assert (document["joined"], document["failed"]) == (1, 0)
        (file,) = document["files"]
        assert (file["kind"], file["containers"], file["reason"]) == ("joined", 3, "chunked_upload")
        assert file.get("broken") == (0 if command == "verify" else None)
        assert "3 containers one behind another" in file["error"]
    assert Path("video.mp4").read_bytes() == before


def test_verify_says_how_many_are_broken_and_which_comes_first(run):
    offsets = damaged()
    result = run("verify", "video.mp4")
    assert result.out.decode().splitlines() == [
        (
            "JOINED  video.mp4: 3 containers one behind another: an app joined encrypted chunks; 2 are broken, first container 2, "
            f"at byte {offsets[1]}: segment 0: a segment's tag does not match; see securefs recover"
        ),
        "0 verified, 0 failed, 1 joined from chunks",
    ]
    assert json.loads(run("verify", "video.mp4", "--json").out)["files"][0]["broken"] == 2
    data = Path("video.mp4").read_bytes()
    Path("video.mp4").write_bytes(b"\x88" + data[1:])
    assert run("verify", "video.mp4").out.startswith(b"JOINED  video.mp4: 3 containers")


def test_without_a_context_the_containers_are_counted_alone(run):
    joined()
    Path("contexts.py").write_text("def of(path):\n    raise LookupError\n")
    result = run("verify", "video.mp4", "--context-from", "contexts:of", "--json")
    (file,) = json.loads(result.out)["files"]
    assert (file["kind"], file["containers"], "broken" in file) == ("joined", 3, False)


def test_the_page_says_what_the_commands_do(run):
    page = (ROOT / "docs/chunked-uploads.md").read_text("utf-8")
    (block,) = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    (line,) = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    joined()
    assert run("verify", "video.mp4").out.decode().startswith(line)
    Path("pieces").mkdir()
    commands = [shlex.split(text, comments=True) for text in block.splitlines()]
    # What replaces the file comes last.
    for name, *arguments in sorted(commands, key=lambda command: "--in-place" in command):
        assert name == "securefs"
        assert run(*arguments).code == 0
    assert content("whole.mp4") == content("video.mp4") == b"".join(PLAIN)
    # In another order, by hand.
    for number in (1, 2, 3):
        assert run("decrypt", f"pieces/video.mp4.{number}.enc").code == 0
        assert Path(f"pieces/video.mp4.{number}").read_bytes() == PLAIN[number - 1]
