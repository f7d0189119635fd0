"""What is told of each file, and the table of it in docs/cli.md."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from support.commands import KEY, OTHER_KEY, sealed
from support.journals import NOBODY, ROOT, unprivileged
from support.sealing import slot_of
from support.special import bind

THIRD_KEY = bytes(range(2, 34))


@pytest.fixture
def open_folder(monkeypatch):
    """A folder that another user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    monkeypatch.chdir(folder)
    yield folder
    for path in folder.rglob("locked*"):
        path.chmod(0o700)
    shutil.rmtree(folder)


def changed(path, at, data):
    """Write ``data`` into a file; a negative offset counts from its end."""
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        file.write(data)
    return path


def cut(path, size):
    os.truncate(path, size)
    return path


def with_planted_slot(path):
    return changed(path, 216, slot_of(OTHER_KEY, path.read_bytes()[:48], bytes(range(9, 41)), 9))


def joined(path):
    """Make what an app makes of two encrypted chunks."""
    both = b"".join(sealed(content, name=path, overwrite=True).read_bytes() for content in (b"1", b"2"))
    path.write_bytes(both)
    return path


def linked(path, target):
    path.symlink_to(target)
    return path


def special(path):
    os.mkfifo(path)
    bind(path.with_name(f"{path.name}-socket"))
    return path


def locked(path):
    """Make what its owner can't read. Where this is root, it stays root's while the rest is nobody's."""
    path.chmod(0)
    return path


def folder_of(path):
    path.mkdir()
    sealed(name=path / "1.enc")
    return path


# What is made for each row of the table.
KINDS = {
    "an encrypted file": lambda path: sealed(name=path),
    "one whose contents were changed": lambda path: changed(sealed(bytes(1000), name=path), -200, b"?"),
    "one that was cut within its header": lambda path: cut(sealed(name=path), 300),
    "one under a key that is not in the keyring": lambda path: sealed(name=path, key=THIRD_KEY),
    "one that was written in another context": lambda path: sealed(name=path, context=b"owner:ann"),
    "one with a slot that somebody planted": lambda path: with_planted_slot(sealed(name=path)),
    "one whose first bytes were damaged": lambda path: changed(sealed(name=path), 0, b"\x88"),
    "several, one behind another": joined,
    "a Format 1 file": lambda path: sealed(name=path, format_1=True),
    "a file that is not encrypted": lambda path: path.write_bytes(b"plaintext") and path,
    "one that is not encrypted, and whose name ends in `.enc`": lambda path: path.rename(f"{path}.enc"),
    "an empty file": lambda path: path.touch() or path,
    "a link to something under the same paths": lambda path: linked(path, "."),
    "a link that leads elsewhere, or to nothing": lambda path: linked(path, "nowhere"),
    "a pipe, a socket or a device": special,
    "a file that this user can't read": lambda path: locked(sealed(name=path)),
    "a folder that this user can't list": lambda path: locked(folder_of(path)),
}
COMMANDS = ("verify", "verify --all", "keys in-use", "rewrap")  # in this order: the last one changes files


def table():
    """Return {kind: {command: word}} as docs/cli.md has it."""
    text = (ROOT / "docs/cli.md").read_text("utf-8")
    head, rest = re.search(
        r"^\| in a folder \| (.+) \|\n\| --- .*\n((?:\|.*\n)+)", text, re.MULTILINE
    ).groups()
    commands = [command.strip("`") for command in head.split(" | ")]
    rows = [line.strip("| ").split(" | ") for line in rest.splitlines()]
    return {kind: dict(zip(commands, words, strict=True)) for kind, *words in rows}


def make_all(folder):
    """Make one of each kind in ``folder``; return {kind: path}."""
    folder.mkdir()
    made = {}
    for number, (kind, make) in enumerate(KINDS.items()):
        name = f"locked-{number:02}" if "can't" in kind else f"{number:02}"
        path = folder / name
        if "whose name ends" in kind:
            path.write_bytes(b"plaintext")
        made[kind] = make(path)
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            if not any(part.startswith("locked") for part in path.parts):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    return made


def words_of(result, made):
    """Return {kind: the word that the line on its path begins with}; of two lines the last one."""
    kinds = {str(path): kind for kind, path in made.items()}
    found = {}
    for line in result.out.decode().splitlines():
        word, _, rest = line.partition(" ")
        if (kind := kinds.get(rest.strip().split(": ")[0])) is not None:
            found[kind] = word
    return found


@pytest.mark.timeout(60)
def test_the_table_says_what_is_told_of_each_kind(run, open_folder, monkeypatch):
    expected = table()
    assert list(expected) == list(KINDS)
    made = make_all(Path("d"))
    keys = {"": KEY, "_PREVIOUS": OTHER_KEY}
    with unprivileged(open_folder):
        for command in COMMANDS:
            if command == "keys in-use":
                keys = {"": OTHER_KEY, "_PREVIOUS": KEY}
            for name, key in keys.items():
                monkeypatch.setenv(f"FILE_KEY_BASE64{name}", base64.b64encode(key).decode())
            result = run(*command.split(), "d")
            assert (result.code, result.err) == (1, "")
            assert words_of(result, made) == {kind: words[command] for kind, words in expected.items()}, (
                command
            )


@pytest.mark.timeout(60)
@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_left_out_of_the_counts(run, rotating, open_folder, command):
    make_all(Path("d"))
    with unprivileged(open_folder):
        told = run(*command.split(), "d").out.decode().splitlines()[-1]
        document = json.loads(run(*command.split(), "d", "--json").out)
    files = document.pop("files")
    for name in ("planted", "previous", "keys"):
        document.pop(name, None)
    assert sum(document.values()) == len(files) == len(list(Path("d").iterdir()))
    if command != "rewrap":  # the second run found what the first one had changed
        counts = sum(map(int, re.findall(r"(\d+) (?!with planted|under)", told)))
        assert counts == len(files)
    assert {file["kind"] for file in files} <= set(document)
    assert all(("error" in file) is (file["kind"] in {"failed", "joined"}) for file in files)


def test_quiet_prints_failures_and_the_summary_alone(run, rotating):
    Path("d").mkdir()
    sealed(name="d/1.enc")
    Path("d/2").write_bytes(b"plain")
    Path("d/3.enc").write_bytes(b"plain")
    assert [line[:15] for line in run("verify", "d", "--quiet").out.decode().splitlines()] == [
        "FAILED  d/3.enc",
        "1 verified, 1 f",
    ]
    assert len(run("rewrap", "d", "--quiet").out.splitlines()) == 2


@pytest.mark.parametrize("command", ["verify", "rewrap", "keys in-use"])
def test_nothing_encrypted_is_no_success(run, rotating, command):
    Path("d").mkdir()
    for content in (None, b"x"):
        if content:
            Path("d/x").write_bytes(content)
        result = run(*command.split(), "d")
        assert (result.code, result.line) == (2, "no encrypted file found in d")
    assert run("verify", "d", "--all").code == 1
