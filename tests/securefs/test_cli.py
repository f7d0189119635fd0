"""The command line: what it does, and that every error is one line and the promised exit code."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sealing import slot_of
from servers import app_environ, python_environ, wait_until

from securefs import Keyring, Suite, __version__, encrypt_file, verify
from securefs.audit import Journal
from securefs.cli import main
from securefs.cli.terminal import BAR_WIDTH, Progress, complain, shown
from securefs.keys import key_id

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))


@pytest.fixture(autouse=True)
def _environment(tmp_path, monkeypatch):
    """Every test runs in its own folder, with one key and no other setting."""
    for name in list(os.environ):
        if name.startswith(("SECUREFS_", "FILE_KEY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(KEY).decode())
    monkeypatch.chdir(tmp_path)


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err.decode()

    @property
    def line(self):
        """The one line on standard error."""
        assert self.err.startswith("securefs: "), self.err
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        return self.err.removeprefix("securefs: ").rstrip("\n")


@pytest.fixture
def run(capsysbinary, monkeypatch):
    """Run a command in this process: run("verify", ".", stdin=b"...") -> Result."""

    def run_command(*arguments, stdin=None):
        if stdin is not None:
            monkeypatch.setattr(
                "sys.stdin", stdin if hasattr(stdin, "buffer") else io.TextIOWrapper(io.BytesIO(stdin))
            )
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        return Result(code, *capsysbinary.readouterr())

    return run_command


@pytest.fixture
def pipe():
    """Make a standard input that cannot seek, as a pipe cannot."""
    opened = []

    def make(data):
        read, write = os.pipe()
        writer = threading.Thread(target=_feed, args=(write, data))
        writer.start()
        opened.append((writer, os.fdopen(read, "r")))
        return opened[-1][1]

    yield make
    for writer, file in opened:
        file.close()
        writer.join()


def _feed(descriptor, data):
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        pass


def sealed(content=b"the content", name="a.txt.enc", **options):
    Path("plain").write_bytes(content)
    encrypt_file("plain", name, Keyring(options.pop("key", KEY)), **options)
    Path("plain").unlink()
    return Path(name)


def names():
    return sorted(path.name for path in Path().iterdir())


# --- keygen, help, version ----------------------------------------------------------------------------------------


def test_keygen_prints_a_fresh_key_of_32_bytes(run):
    first, second = run("keygen"), run("keygen")
    assert (first.code, first.err) == (0, "")
    assert len(base64.b64decode(first.out)) == 32
    assert first.out != second.out


def test_keygen_writes_a_private_file_and_never_over_one(run):
    assert run("keygen", "--output", "key").code == 0
    path = Path("key")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Keyring.from_env({"FILE_KEY_BASE64_FILE": "key"})
    before = path.read_bytes()
    result = run("keygen", "--output", "key")
    assert (result.code, result.line) == (2, "key exists already: a key is never overwritten")
    assert path.read_bytes() == before


def test_keygen_leaves_no_part_of_a_key(run, monkeypatch):
    def fail(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    result = run("keygen", "--output", "key")
    assert (result.code, result.line) == (2, "key: No space left on device")
    assert names() == []


def test_help_and_version(run):
    assert b"demo" in run("--help").out
    result = run("--version")
    assert (result.code, result.out) == (0, f"securefs {__version__}\n".encode())


def test_help_needs_neither_the_server_extra_nor_time():
    """Importing the command line loads no server, no database, no journal."""
    code = (
        "import sys; before = set(sys.modules); import securefs.cli; "
        "names = ('werkzeug', 'gunicorn', 'sqlite3', 'securefs.audit', 'securefs.app.database'); "
        "print([n for n in set(sys.modules) - before if n.startswith(names)])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=python_environ(), capture_output=True, check=True)
    assert done.stdout == b"[]\n"


def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "securefs", "keygen"], env=python_environ(), capture_output=True, check=True
    )
    assert len(base64.b64decode(done.stdout)) == 32


# --- encrypt and decrypt ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--suite", "aes-256-gcm"], ["--format-1"]], ids=" ".join)
@pytest.mark.parametrize("size", [0, 1, 65_536, 300_000])
def test_a_file_goes_to_enc_and_back(run, options, size):
    content = os.urandom(size)
    Path("a.txt").write_bytes(content)
    assert run("encrypt", "a.txt", *options).code == 0
    assert size < 16 or content not in Path("a.txt.enc").read_bytes()
    Path("a.txt").unlink()
    result = run("decrypt", "a.txt.enc", *[o for o in options if o == "--format-1"])
    assert (result.code, result.out, result.err) == (0, b"", "")
    assert Path("a.txt").read_bytes() == content
    assert stat.S_IMODE(Path("a.txt").stat().st_mode) == 0o600


def test_what_the_options_say_is_sealed(run):
    Path("a").write_bytes(b"x")
    options = ["--context", "tenant", "--name", "ü.txt", "--type", "text/plain", "--suite", "aes-256-gcm"]
    assert run("encrypt", "a", "-o", "b", *options).code == 0
    info = verify("b", Keyring(KEY), b"tenant")
    assert (info.metadata, info.suite) == ({"name": "ü.txt", "type": "text/plain"}, Suite.GCM.label)
    assert run("decrypt", "b", "-o", "c", "--context-hex", b"tenant".hex()).code == 0
    assert run("decrypt", "b", "-o", "d").code == 1
    assert names() == ["a", "b", "c"]


def test_standard_streams(run, pipe):
    encrypted = run("encrypt", "-", stdin=b"hello")
    assert encrypted.code == 0
    assert run("decrypt", "-", stdin=encrypted.out).out == b"hello"
    assert run("decrypt", "-", stdin=pipe(encrypted.out)).out == b"hello"
    assert run("decrypt", "-", "-o", "f", stdin=pipe(encrypted.out)).code == 0
    assert Path("f").read_bytes() == b"hello"
    old = run("encrypt", "-", "--format-1", stdin=b"hello").out
    assert run("decrypt", "-", "--format-1", stdin=old).out == b"hello"
    assert run("decrypt", "-", "--format-1", stdin=pipe(old)).out == b"hello"


def test_a_named_pipe_is_read_like_a_pipe(run):
    data = sealed().read_bytes()
    os.mkfifo("fifo")
    writer = threading.Thread(target=lambda: Path("fifo").write_bytes(data))
    writer.start()
    assert run("decrypt", "fifo", "-o", "-").out == b"the content"
    writer.join()


def test_a_tampered_file_releases_not_one_byte_to_a_stream(run):
    path = sealed(bytes(3_000_000))
    raw = bytearray(path.read_bytes())
    raw[-70_000] ^= 1
    path.write_bytes(raw)
    result = run("decrypt", path, "-o", "-")
    assert (result.code, result.out) == (1, b"")
    assert "does not" in result.line or "tag" in result.line
    assert run("decrypt", path).code == 1
    assert names() == ["a.txt.enc"]


def test_a_pipe_that_fails_in_the_middle_says_what_to_discard(run, pipe):
    raw = sealed(bytes(5_000_000)).read_bytes()
    result = run("decrypt", "-", stdin=pipe(raw[:-1]))
    assert result.code == 1
    first, second = result.err.splitlines()
    assert (
        first
        == f"securefs: discard the {len(result.out)} bytes that were written: the rest of the file does not verify"
    )
    assert second.startswith("securefs: ")
    assert result.out
    result = run("decrypt", "-", "-o", "target", stdin=pipe(raw[:-1]))
    assert result.code == 1
    assert result.line
    assert names() == ["a.txt.enc"]
    assert run("decrypt", "-", stdin=pipe(b"no such file")).line.startswith("not a securefs file")


def test_nothing_is_overwritten_without_force(run):
    path = sealed()
    Path("a.txt").write_bytes(b"mine")
    result = run("decrypt", path)
    assert (result.code, result.line) == (
        2,
        "a.txt exists already: name another target with -o, or replace it with --force",
    )
    assert Path("a.txt").read_bytes() == b"mine"
    assert run("decrypt", path, "--force").code == 0
    assert Path("a.txt").read_bytes() == b"the content"


def test_force_replaces_files_only(run):
    path = sealed()
    os.mkfifo("fifo")
    Path("folder").mkdir()
    for target in ("fifo", "folder"):
        result = run("decrypt", path, "-o", target, "--force")
        assert (result.code, result.line) == (2, f"{target} is not a regular file and will not be replaced")
    assert stat.S_ISFIFO(Path("fifo").stat().st_mode)


def test_the_sealed_name_is_used_only_on_demand(run):
    Path("sub").mkdir()
    sealed(name="sub/x.enc", metadata={"name": "bericht ü.pdf"})
    assert run("decrypt", "sub/x.enc", "--sealed-name").code == 0
    assert Path("sub/bericht ü.pdf").read_bytes() == b"the content"
    assert run("decrypt", "-", "--sealed-name", stdin=Path("sub/x.enc").read_bytes()).code == 0
    assert Path("bericht ü.pdf").exists()


@pytest.mark.parametrize(
    "name", ["../up", "/etc/x", "a/b", "a\\b", ".bashrc", "..", "a\nb", "\x1b[2J", "", 7, None]
)
def test_a_sealed_name_that_is_no_plain_name_is_refused(run, name):
    sealed(metadata={"name": name} if name is not None else None)
    result = run("decrypt", "a.txt.enc", "--sealed-name")
    assert result.code == 2
    assert "name the target with -o" in result.line
    assert result.line.isprintable()
    assert names() == ["a.txt.enc"]


def test_a_sealed_name_cannot_be_had_from_a_pipe(run, pipe):
    result = run("decrypt", "-", "--sealed-name", stdin=pipe(sealed().read_bytes()))
    assert (result.code, result.line) == (
        2,
        "--sealed-name needs a file as its source: name the target with -o",
    )


@pytest.mark.parametrize("name", ["a.bin", ".enc"])
def test_without_the_suffix_a_target_must_be_named(run, name):
    path = sealed(name=name)
    result = run("decrypt", path)
    assert (result.code, result.line) == (2, f"{name} does not end in .enc: name the target with -o")


# --- inspect ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suite", "size", "plaintext"),
    [
        (Suite.GCM, 0, 0),
        (Suite.GCM, 16_384, 16_384),
        (Suite.GCM, 20_000, 20_000),
        (Suite.CBC_HMAC, 0, "0 to 15"),
        (Suite.CBC_HMAC, 65_536, "65536 to 65551"),
        (Suite.CBC_HMAC, 65_567, "65552 to 65567"),
    ],
)
def test_inspect_tells_the_header_without_a_key(run, monkeypatch, suite, size, plaintext):
    path = sealed(bytes(size), suite=suite, metadata={"name": "x"})
    monkeypatch.delenv("FILE_KEY_BASE64")
    document = json.loads(run("inspect", path, "--json").out)
    key_id = Keyring(KEY).primary_id.hex()
    assert document["slots"] == [{"kind": "file key", "generation": 1, "key_id": key_id}]
    assert document["suite"] == suite.label
    assert document["object_id"] == path.read_bytes()[16:48].hex()
    assert (document["file_size"], document["plaintext_size"]) == (path.stat().st_size, plaintext)
    assert (document["format"], document["free_slots"]) == (2, 1)
    text = run("inspect", path).out.decode()
    assert f"slots: kind file key, generation 1, key id {key_id}\n" in text
    assert "not verified" in text
    assert run("inspect", "-", stdin=path.read_bytes()).code == 0


def test_inspect_sees_a_cut(run):
    path = sealed()
    path.write_bytes(path.read_bytes()[:-60])
    assert "the file was cut" in run("inspect", path).out.decode()


@pytest.mark.parametrize("data", [b"", b"short", b"x" * 200, bytes.fromhex("89534653320D0A1A") + bytes(100)])
def test_inspect_of_something_else_is_a_finding(run, data):
    Path("x").write_bytes(data)
    result = run("inspect", "x")
    assert result.code == 1
    assert result.line


# --- verify -------------------------------------------------------------------------------------------------------


def test_verify_walks_folders_and_finds_what_is_encrypted(run):
    Path("d/e").mkdir(parents=True)
    sealed(name="d/b.enc")
    sealed(name="d/e/by-magic")
    Path("d/plain.txt").write_bytes(b"not encrypted, not looked at")
    Path("d/link.enc").symlink_to("nowhere")
    os.mkfifo("d/fifo.enc")
    result = run("verify", "d")
    assert (result.code, result.err) == (0, "")
    assert result.out.decode().splitlines() == [
        "ok      d/b.enc",
        "ok      d/e/by-magic",
        "2 verified, 0 failed",
    ]


def test_verify_names_every_finding_and_goes_on(run):
    Path("d").mkdir()
    sealed(name="d/1.enc")
    path = sealed(name="d/2.enc")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    sealed(name="d/3.enc", key=OTHER_KEY)
    Path("d/4.enc").write_bytes(b"not encrypted at all")
    result = run("verify", "d")
    assert result.code == 1
    assert [line[:14] for line in result.out.decode().splitlines()[:4]] == [
        "ok      d/1.en",
        "FAILED  d/2.en",
        "FAILED  d/3.en",
        "FAILED  d/4.en",
    ]
    assert result.out.endswith(b"1 verified, 3 failed\n")
    document = json.loads(run("verify", "d", "--json").out)
    assert (document["verified"], document["failed"]) == (1, 3)
    assert [file.get("reason") for file in document["files"]] == [
        None,
        "truncated",
        "unknown_key",
        "not_encrypted",
    ]
    assert document["files"][0]["size"] == 11


def test_verify_counts_what_cannot_be_read_as_a_finding(run):
    """A test may run as root, whom no mode keeps from reading: a loop of links does."""
    Path("a.enc").symlink_to("b.enc")
    Path("b.enc").symlink_to("a.enc")
    Path("d").mkdir()
    sealed(name="d/1.enc")
    result = run("verify", "a.enc", "d")
    assert (result.code, result.line) == (2, "a.enc: Too many levels of symbolic links")
    sealed(name="fifo-like")
    result = run("verify", "/proc/self/mem")
    assert result.code == 1
    assert result.out.startswith(b"FAILED  /proc/self/mem: ")


def test_verify_of_format_1(run):
    Path("d").mkdir()
    sealed(name="d/1.enc", format_1=True)
    sealed(name="d/2.enc")
    sealed(name="d/by-magic")
    Path("d/other").write_bytes(bytes(64))
    assert run("verify", "d").code == 1
    result = run("verify", "d", "--format-1")
    assert (result.code, result.out.splitlines()[-1]) == (0, b"2 verified, 0 failed")


def test_verify_of_nothing_is_no_success(run):
    Path("d").mkdir()
    Path("d/x").write_bytes(b"x")
    result = run("verify", "d")
    assert (result.code, result.line) == (2, "no encrypted file found in d")


def test_verify_of_a_folder_that_cannot_be_listed_fails(run, monkeypatch):
    def refuse(_path):
        raise PermissionError(13, "Permission denied", "d")

    Path("d").mkdir()
    monkeypatch.setattr("os.scandir", refuse)
    result = run("verify", "d")
    assert (result.code, result.line) == (2, "d: Permission denied")


def test_a_file_that_cannot_be_opened_is_verified_to_say_why(run, monkeypatch):
    from securefs.cli import paths

    Path("d").mkdir()
    path = sealed(name="d/by-magic")
    real = Path.open

    def refuse(self, *arguments, **options):
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    assert paths._looks_encrypted(path, format_1=False)
    result = run("verify", "d")
    assert (result.code, result.out.splitlines()[0]) == (
        1,
        b"FAILED  d/by-magic: cannot be read: Permission denied",
    )


# --- rewrap -------------------------------------------------------------------------------------------------------


@pytest.fixture
def rotating(monkeypatch):
    """FILE_KEY_BASE64 holds a new key, and KEY is the previous one."""
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(OTHER_KEY).decode())
    monkeypatch.setenv("FILE_KEY_BASE64_PREVIOUS", base64.b64encode(KEY).decode())


def test_rewrap_rotates_files_and_folders(run, rotating, monkeypatch):
    Path("d/e").mkdir(parents=True)
    sealed(name="d/a.enc")
    sealed(name="d/e/by-magic")
    sealed(name="d/new.enc", key=OTHER_KEY)
    sealed(name="single")
    Path("d/plain.txt").write_bytes(b"not looked at")
    result = run("rewrap", "d", "single")
    assert (result.code, result.err) == (0, "")
    assert result.out.decode().splitlines() == [
        "rewrapped  d/a.enc",
        "unchanged  d/new.enc",
        "rewrapped  d/e/by-magic",
        "rewrapped  single",
        "3 rewrapped, 1 unchanged, 0 failed",
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
    reasons = ["unknown_key", "tag_mismatch", "not_encrypted", None, None, "io_error"]
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
    (chain,) = Path("journal").glob("*.jsonl")
    records = [json.loads(line) for line in chain.read_bytes().splitlines()]
    assert [record["event"] for record in records] == ["server.start", *["key.rewrap"] * 3, "server.stop"]
    done, unknown, unreadable = records[1:-1]
    assert (done["outcome"], done["sev"]) == ("success", 1)
    new = Keyring(OTHER_KEY).primary_id.hex()
    assert done["obj"] == {"id": files[0]["object_id"], "key_id": new, "name": "1.enc"}
    assert (unknown["outcome"], unknown["reason"], unknown["sev"]) == ("failure", "unknown_key", 3)
    assert unknown["obj"] == {"name": "2.enc"}
    assert (unreadable["reason"], unreadable["sev"]) == ("io_error", 3)
    assert unreadable["obj"] == {"name": "mem"}
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


@pytest.mark.parametrize("command", [["verify", "a.enc"], ["decrypt", "a.enc", "-o", "-"], ["decrypt", "-"]])
def test_a_context_beside_format_1_is_refused_and_not_ignored(run, command):
    sealed(name="a.enc", format_1=True)
    data = Path("a.enc").read_bytes()
    for option in (["--context", "owner:ann"], ["--context-hex", "00"]):
        result = run(*command, "--format-1", *option, stdin=data)
        assert (result.code, result.out) == (2, b"")
        assert "--format-1 has no place for --context" in result.line
    assert run(*command, "--format-1", stdin=data).code == 0


@pytest.mark.parametrize(
    "command",
    [["encrypt", "-"], ["encrypt", "-", "--format-1"], ["decrypt", "-", "--format-1"], ["decrypt", "-"]],
)
def test_standard_input_that_does_not_block_is_told_and_not_taken_for_its_end(run, command):
    """A pipe whose writer is slower than we are: what has come so far is not the file."""

    pieces = [sealed().read_bytes()[:100], None, b"more"]

    class Slow(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            piece = pieces.pop(0) if pieces else b""
            if piece is None:
                return None
            buffer[: len(piece)] = piece
            return len(piece)

    class Stdin:
        buffer = Slow()

    result = run(*command, stdin=Stdin())
    assert result.code in {1, 2}
    assert result.line == "standard input is not blocking and has nothing to read yet"


def test_rewrap_of_nothing_is_no_success(run, rotating):
    Path("d").mkdir()
    assert (run("rewrap", "d").code, run("rewrap", "d").line) == (2, "no encrypted file found in d")


# --- bad input ----------------------------------------------------------------------------------------------------

BAD = [
    pytest.param([], 2, "COMMAND", id="no command"),
    pytest.param(["frobnicate"], 2, "invalid choice", id="unknown command"),
    pytest.param(["encrypt"], 2, "SRC", id="no source"),
    pytest.param(["encrypt", "a", "--suite", "rot13"], 2, "invalid choice", id="unknown suite"),
    pytest.param(["encrypt", "missing"], 2, "missing: No such file", id="missing source"),
    pytest.param(["encrypt", "folder"], 2, "folder: Is a directory", id="folder as source"),
    pytest.param(
        ["encrypt", "a", "-o", "no/such/b"], 2, "no/such/b: No such file", id="missing folder of target"
    ),
    pytest.param(["encrypt", "a", "-o", "a/b"], 2, "a/b: Not a directory", id="file as folder of target"),
    pytest.param(["encrypt", "a", "-o", "folder"], 2, "folder exists already", id="folder as target"),
    pytest.param(["encrypt", "a", "-o", "x" * 300], 2, "File name too long", id="long target"),
    pytest.param(["encrypt", "a", "--format-1", "--name", "n"], 2, "no place for", id="metadata in format 1"),
    pytest.param(
        ["encrypt", "a", "--format-1", "--context", "n"], 2, "no place for", id="context in format 1"
    ),
    pytest.param(
        ["encrypt", "a", "--format-1", "--suite", "aes-256-gcm"], 2, "no place for", id="suite in format 1"
    ),
    pytest.param(["encrypt", "a", "--context-hex", "xyz"], 2, "not hexadecimal", id="bad hex"),
    pytest.param(
        ["encrypt", "a", "--context", "x", "--context-hex", "00"], 2, "not allowed with", id="two contexts"
    ),
    pytest.param(["encrypt", "a", "--context", "x" * 70_000], 2, "65,535|65535", id="long context"),
    pytest.param(["encrypt", "a", "--name", "x" * 70_000], 2, "metadata", id="long name"),
    pytest.param(["decrypt", "missing.enc"], 2, "missing.enc: No such file", id="missing file"),
    pytest.param(["decrypt", "folder", "-o", "x"], 2, "folder: Is a directory", id="folder to decrypt"),
    pytest.param(["decrypt", "a", "-o", "x"], 1, "not a securefs file", id="not encrypted"),
    pytest.param(["decrypt", "other.enc"], 1, "no key of the keyring", id="wrong key"),
    pytest.param(["decrypt", "good.enc", "--context", "no"], 1, "another context", id="wrong context"),
    pytest.param(["decrypt", "cut.enc"], 1, "cut", id="cut"),
    pytest.param(["decrypt", "a", "--format-1", "-o", "x"], 1, "can't be Format 1", id="no format 1"),
    pytest.param(
        ["decrypt", "good.enc", "-o", "x", "--sealed-name"], 2, "not allowed with", id="two targets"
    ),
    pytest.param(["inspect", "missing"], 2, "missing: No such file", id="inspect missing"),
    pytest.param(["verify"], 2, "PATH", id="verify nothing"),
    pytest.param(["verify", "good.enc", "missing"], 2, "missing: No such file", id="verify missing"),
    pytest.param(["verify", ""], 2, "No such file", id="verify empty name"),
    pytest.param(["rewrap"], 2, "PATH", id="rewrap nothing"),
    pytest.param(["rewrap", "missing"], 2, "missing: No such file", id="rewrap missing"),
    pytest.param(["keygen", "--output", "no/such"], 2, "no/such: No such file", id="key in missing folder"),
    pytest.param(["keygen", "--output", "folder"], 2, "exists already", id="key over folder"),
    pytest.param(["token"], 2, "ACTION", id="token without action"),
    pytest.param(["token", "list"], 2, "SECUREFS_DATA_DIR is not set", id="token without folder"),
    pytest.param(["token", "list", "--data-dir", "a"], 2, "cannot use a", id="token folder is a file"),
    pytest.param(
        ["token", "add", "anonymous", "--data-dir", "data"], 2, "cannot be somebody's", id="bad name"
    ),
    pytest.param(["token", "revoke", "nobody", "--data-dir", "data"], 2, "no token has", id="revoke nobody"),
    pytest.param(["audit"], 2, "ACTION", id="audit without action"),
    pytest.param(["audit", "verify", "missing"], 2, "missing", id="audit missing"),
    pytest.param(["audit", "verify", "a"], 2, "Not a directory", id="audit of a file"),
    pytest.param(["audit", "hash", "x"], 2, "--dir", id="hash without folder"),
    pytest.param(["audit", "hash", "x", "--dir", "folder"], 2, "pseudonym key", id="hash without key"),
    pytest.param(["demo", "--port", "x"], 2, "not a port number", id="port of letters"),
    pytest.param(["demo", "--port", "65536"], 2, "not a port number", id="port too high"),
    pytest.param(["demo", "--port", "-1"], 2, "not a port number|expected one", id="port too low"),
    pytest.param(["demo", "--dir", "a"], 2, "a: File exists", id="demo folder is a file"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD)
def test_bad_input_is_one_line_and_the_promised_code(run, arguments, code, message):
    Path("a").write_bytes(b"plaintext that is longer than a header of a file, so that it is read as one" * 9)
    Path("folder").mkdir()
    sealed(name="good.enc")
    sealed(name="other.enc", key=OTHER_KEY)
    cut = sealed(bytes(100_000), name="cut.enc")
    cut.write_bytes(cut.read_bytes()[:-100])
    before = set(names())
    result = run(*arguments)
    assert result.code == code
    assert any(part in result.line for part in message.split("|")), result.line
    assert result.out in {b"", b"ok      good.enc\n"}
    assert set(names()) - before <= {"data"}


@pytest.mark.parametrize(
    "command", [["encrypt", "a"], ["decrypt", "a.enc"], ["verify", "a.enc"], ["rewrap", "a.enc"]]
)
def test_without_a_key_nothing_is_touched(run, monkeypatch, command):
    Path("a").write_bytes(b"x")
    sealed(name="a.enc")
    Path("a").write_bytes(b"x")
    monkeypatch.delenv("FILE_KEY_BASE64")
    result = run(*command)
    assert (result.code, result.line) == (
        2,
        "FILE_KEY_BASE64 is not set: make a good one with: securefs keygen",
    )


def test_what_a_file_is_called_reaches_no_terminal_as_a_command(run):
    name = "a\x1b[2J\n\u202eb.enc"
    Path(name).write_bytes(b"x")
    result = run("verify", name)
    assert result.out.count(b"\n") == 2
    assert b"\x1b" not in result.out
    assert b"a\\x1b[2J\\n\\u202eb.enc" in result.out
    assert b"\\x1b[2J" in run("inspect", name + "missing").line.encode()
    assert shown("ü 日本") == "ü 日本"


def test_a_name_that_is_not_text_is_no_obstacle(run):
    name = os.fsdecode(b"\xff\xfe.enc")
    sealed(name=name)
    assert run("verify", name).code == 0
    assert run("verify", ".").code == 0
    assert run("decrypt", name).code == 0
    assert run("decrypt", name).code == 2


# --- tokens, journal ----------------------------------------------------------------------------------------------


def test_tokens_are_added_listed_and_revoked(run, monkeypatch):
    monkeypatch.setenv("SECUREFS_DATA_DIR", "data")
    added = run("token", "add", "zoë")
    assert added.code == 0
    assert added.out.startswith(b"sfs_")
    assert "only now" in added.line
    token_id = added.out.split(b"_")[1].decode()
    assert run("token", "add", "bob", "--data-dir", "data").code == 0
    listed = run("token", "list")
    assert listed.out.decode().count("\n") == 2
    assert f"{token_id}  " in listed.out.decode()
    assert "zoë" in listed.out.decode()
    assert added.out.strip().split(b"_")[2] not in listed.out
    document = json.loads(run("token", "list", "--json").out)
    assert {token["name"] for token in document["tokens"]} == {"zoë", "bob"}
    assert run("token", "revoke", token_id).out == b"revoked: 1\n"
    assert run("token", "revoke", "bob").out == b"revoked: 1\n"
    assert run("token", "list").out == b""


def test_a_journal_is_verified_and_names_are_found_in_it(run, monkeypatch, tmp_path):
    Path("journal").mkdir(mode=0o700)
    journal = Journal("journal")
    journal.record("file.encrypt", obj={"name": "a.txt"}, actor="alice")
    journal.close()
    (chain,) = Path("journal").glob("*.jsonl")
    assert run("audit", "hash", "a.txt", "--dir", "journal").out.strip() in chain.read_bytes()
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", "journal")
    assert run("audit", "hash", "alice", "--principal").out.strip() in chain.read_bytes()
    result = run("audit", "verify", "journal")
    assert result.code == 3
    assert b"completeness: not proven" in result.out
    assert json.loads(run("audit", "verify", "journal", "--json").out)["integrity"] == "holds"
    chain.write_bytes(chain.read_bytes().replace(b"success", b"failure", 1))
    assert run("audit", "verify", "journal").code == 1


# --- terminals, streams, signals ----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_is_shown_on_a_terminal_and_wiped(run, monkeypatch):
    Path("a").write_bytes(bytes(3_000_000))
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert run("encrypt", "a").code == 0
    assert "100 %" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r" + " " * (BAR_WIDTH + 8) + "\r")
    shown_before = len(terminal.getvalue())
    assert run("decrypt", "a.enc", "-o", "b").code == 0
    assert len(terminal.getvalue()) > shown_before


def test_no_bar_without_a_size_or_without_a_terminal(monkeypatch, capsys):
    with Progress(100) as progress:
        progress.add(50)
    assert capsys.readouterr().err == ""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Progress(0) as progress:
        progress.add(50)
    with Progress(100):
        pass
    assert terminal.getvalue() == ""
    with Progress(1_000_000) as progress:
        progress.add(1)
        seen = terminal.getvalue()
        progress.add(1)
        assert terminal.getvalue() == seen
    monkeypatch.setattr("sys.stderr", None)
    with Progress(100) as progress:
        progress.add(100)


def test_an_error_is_told_to_nobody_where_nobody_listens(monkeypatch):
    monkeypatch.setattr("sys.stderr", None)
    complain("nobody hears this")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stderr", closed)
    complain("nor this")


@pytest.mark.parametrize("command", [["keygen"], ["decrypt", "a.txt.enc", "-o", "-"], ["encrypt", "-"]])
def test_closed_streams_are_told(run, monkeypatch, command):
    sealed()
    monkeypatch.setattr("sys.stdin", None)
    monkeypatch.setattr("sys.stdout", None)
    result = run(*command)
    assert result.code == 2
    assert "is closed" in result.line


def program(*arguments, **options):
    environ = python_environ(FILE_KEY_BASE64=base64.b64encode(KEY).decode())
    return subprocess.Popen([sys.executable, "-m", "securefs", *arguments], env=environ, **options)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [["keygen"], ["decrypt", "a.txt.enc", "-o", "-"], ["verify", "."]])
def test_a_full_disk_behind_standard_output_is_told(monkeypatch, command, unbuffered):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    sealed(bytes(1_000_000))
    with (
        Path("/dev/full").open("wb") as full,
        program(*command, stdout=full, stderr=subprocess.PIPE) as process,
    ):
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (2, b"securefs: standard output: No space left on device\n")


def test_a_reader_that_goes_away_is_told():
    sealed(bytes(10_000_000))
    with program(
        "decrypt", "a.txt.enc", "-o", "-", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(1)
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 2
    assert err == b"securefs: the reader of standard output went away: the output is not complete\n"


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [
        (signal.SIGINT, 130, b"securefs: interrupted: nothing unfinished was left behind\n"),
        (signal.SIGTERM, 143, b"securefs: ended by SIGTERM: nothing unfinished was left behind\n"),
        (signal.SIGHUP, 129, b"securefs: ended by SIGHUP: nothing unfinished was left behind\n"),
    ],
)
def test_a_signal_leaves_no_temporary_file(number, code, line):
    process = program("encrypt", "-", "-o", "target", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        wait_until(lambda: list(Path().glob(".target.*")), "the temporary file")
        process.send_signal(number)
        # Not closed before it ended: an end of input would let it finish.
        err = process.stderr.read()
        process.wait(60)
    assert (process.returncode, err) == (code, line)
    assert names() == []


def test_what_nohup_ignores_stays_ignored(run):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        class Killer(io.BytesIO):
            def read(self, size=-1):
                os.kill(os.getpid(), signal.SIGHUP)
                return super().read(size)

        stdin = type("Stdin", (), {"buffer": Killer(b"data")})()
        assert run("encrypt", "-", "-o", "out", stdin=stdin).code == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_put_back(run):
    before = signal.getsignal(signal.SIGTERM)
    run("keygen")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_may_run_a_command():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(main(["keygen", "--output", "key"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_an_error_of_a_read_names_the_source(run):
    """Reading a process's memory at 0 fails with EIO: a disk that fails, without one."""
    result = run("encrypt", "/proc/self/mem", "-o", "x")
    assert (result.code, result.line) == (2, "/proc/self/mem: Input/output error")
    assert names() == []


def test_an_error_of_a_source_is_not_told_of_the_target(run, monkeypatch):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            raise OSError(5, "Input/output error", "source.tmp")

    result = run("encrypt", "-", "-o", "x", stdin=type("Stdin", (), {"buffer": Failing()})())
    assert (result.code, result.line) == (2, "source.tmp: Input/output error")
    assert names() == []


def test_the_app_and_the_command_line_understand_each_other(run, tmp_path, monkeypatch):
    """Files of the app open on the command line under --context owner:NAME."""
    from securefs.app import owner_context

    environ = app_environ(tmp_path)
    monkeypatch.delenv("FILE_KEY_BASE64")
    monkeypatch.setenv("FILE_KEY_BASE64_FILE", environ["FILE_KEY_BASE64_FILE"])
    Path("plain").write_bytes(b"1")
    encrypt_file("plain", "x.enc", Keyring.from_env(environ), context=owner_context("zoë"))
    assert run("verify", "x.enc", "--context", "owner:zoë").code == 0
