"""The files of a log: what is there after each method, and what is refused."""

import os
import stat

import pytest
from support.journals import finish, start_script, unprivileged

from securefs import ConfigurationError
from securefs.audit.log_folder import Disk, LogDamagedError, LogFolder, Position, default_log
from securefs.audit.note import Checkpoint, Note, Signature, VerificationKey
from securefs.audit.signing import SigningKey

ORIGIN = "files-1/securefs-0a1b2c3d"


@pytest.fixture
def log(tmp_path):
    return LogFolder.begin(tmp_path / "log", ORIGIN, SigningKey(), None)


def note(size, origin=ORIGIN, signatures=1):
    text = Checkpoint(origin, size, bytes(32)).text()
    return Note(text, (Signature(origin, b"1234", bytes(64)),) * signatures).encode()


def test_a_log_is_begun_once_and_privately(tmp_path):
    key, stable = SigningKey(), SigningKey()
    log = LogFolder.begin(tmp_path / "log", ORIGIN, key, stable)
    assert log.origin == ORIGIN
    assert log.vkey() == str(VerificationKey(ORIGIN, key.public))
    assert log.handed_over().public == key.public
    assert log.stable_key().public == stable.public
    for path in (log.path, *log.path.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    with pytest.raises(ConfigurationError, match=r"there is a log in .* already"):
        LogFolder.begin(tmp_path / "log", ORIGIN, key, None)
    assert default_log(tmp_path) == tmp_path / "log"


def test_one_that_was_interrupted_is_begun_again(log):
    (log.path / "origin").unlink()
    with pytest.raises(ConfigurationError, match=r"there is no log in .* securefs audit init"):
        LogFolder(log.path)
    key = SigningKey()
    assert LogFolder.begin(log.path, ORIGIN, key, None).handed_over().public == key.public


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb", "x" * 256])
def test_an_origin_that_no_checkpoint_can_have(tmp_path, origin):
    with pytest.raises(ConfigurationError, match="--origin"):
        LogFolder.begin(tmp_path / "log", origin, SigningKey(), None)
    assert not (tmp_path / "log").exists()


def test_a_log_has_one_sealer(log):
    assert not log.is_held()
    log.lock()
    other = LogFolder(log.path)
    assert other.is_held()
    with pytest.raises(ConfigurationError, match=rf"another sealer \(process {os.getpid()}\) holds the log"):
        other.lock()
    log.unlock()
    log.unlock()
    assert not other.is_held()
    other.lock()
    other.unlock()


def test_a_sealer_that_was_killed_leaves_no_lock(log):
    code = "import os, sys; from pathlib import Path; from securefs.audit.log_folder import LogFolder\n"
    code += "LogFolder(Path(sys.argv[1])).lock(); os._exit(0)"
    finish(start_script(code, log.path))
    log.lock()
    log.unlock()


def test_a_key_is_handed_over_once(log):
    first = log.handed_over().public
    log.forget_key()
    assert log.handed_over() is None
    assert not (log.path / "first.key").exists()
    key = SigningKey()
    log.hand_over(key.pem())
    assert stat.S_IMODE((log.path / "next.key").stat().st_mode) == 0o600
    assert log.handed_over().public == key.public != first
    log.forget_key()
    log.forget_key()


def test_a_key_that_was_overwritten_and_not_yet_removed_is_none(log):
    path = log.path / "first.key"
    path.write_bytes(bytes(path.stat().st_size))
    assert log.handed_over() is None


def test_a_key_file_is_overwritten_before_it_is_removed(tmp_path):
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    with path.open("rb") as held:
        Disk().remove(path)
        assert held.read() == bytes(6)
    assert not path.exists()


@pytest.mark.parametrize("name", ["next.key", "stable.key"])
def test_a_key_file_that_holds_something_else_is_named(log, name):
    (log.path / name).write_bytes(b"secret?")
    with pytest.raises(ConfigurationError, match=rf"{name} is not an Ed25519 private key") as caught:
        log.handed_over() if name == "next.key" else log.stable_key()
    assert "secret?" not in str(caught.value)


def test_a_file_that_this_user_cannot_read_is_one_sentence(open_folder):
    log = LogFolder.begin(open_folder / "log", ORIGIN, SigningKey(), None)
    log.path.chmod(0o711)
    with (
        unprivileged(open_folder),
        pytest.raises(ConfigurationError, match=r"cannot read .*: Permission denied"),
    ):
        LogFolder(log.path)


def test_the_last_whole_checkpoint_counts(log):
    assert log.last_checkpoint() == (None, 0)
    for size in (1, 5, 9):
        log.publish(note(size, signatures=2))
        assert log.last_checkpoint() == (Checkpoint(ORIGIN, size, bytes(32)), 0)


def test_each_torn_tail_is_cut_off(log):
    path = log.path / "checkpoints"
    log.publish(note(5))
    whole = path.read_bytes()
    added = note(9, signatures=2) + b"\n"
    for size in range(1, len(added)):
        path.write_bytes(whole + added[:size])
        assert log.last_checkpoint() == (Checkpoint(ORIGIN, 5, bytes(32)), size)
        assert path.read_bytes() == whole
        path.write_bytes(added[:size])
        assert log.last_checkpoint() == (None, size)
        assert path.read_bytes() == b""


def test_what_no_crash_leaves_is_not_cut_off(log):
    path = log.path / "checkpoints"
    path.write_bytes(note(5) + b"\n" + b"x" * 70_000)
    with pytest.raises(LogDamagedError, match="does not end with a checkpoint"):
        log.last_checkpoint()
    path.write_bytes("no\n\n— x y\n\n".encode())
    with pytest.raises(LogDamagedError, match=r"the last checkpoint in .* is none"):
        log.last_checkpoint()


def test_positions_are_kept_and_anything_else_is_none(log):
    assert log.positions() == {}
    positions = {"a" * 32: Position(3, 400, b"\1" * 32)}
    log.save_positions(positions)
    assert log.positions() == positions
    path = log.path / "positions"
    for bad in (
        b"",
        b"[]",
        b'{"a": 1}',
        b'{"a": [1, 2]}',
        b'{"a": [1, 2, "x"]}',
        b'{"a": [[], 2, ""]}',
        b"\xff",
    ):
        path.write_bytes(bad)
        assert log.positions() == {}
    path.unlink()
    path.symlink_to("origin")
    assert log.positions() == {}


def test_a_disk_appends_cuts_and_rewrites(tmp_path):
    disk, path = Disk(), tmp_path / "x"
    disk.append(path, b"one")
    disk.append(path, b"two")
    disk.append(path, b"")
    disk.cut(path, 4)
    inode = path.stat().st_ino
    disk.rewrite(path)
    assert path.read_bytes() == b"onet"
    assert path.stat().st_ino != inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o700, 0o2750])
def test_whoever_may_list_the_folder_may_read_all_but_keys(tmp_path, mode):
    (tmp_path / "log").mkdir()
    (tmp_path / "log").chmod(mode)
    log = LogFolder.begin(tmp_path / "log", ORIGIN, SigningKey(), SigningKey())
    log.publish(note(1))
    log.disk.rewrite(log.path / "checkpoints")
    log.hand_over(b"x")
    log.save_positions({})
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in log.path.iterdir()}
    keys = {"first.key", "next.key", "stable.key"}
    assert {modes[name] for name in keys} == {0o600}
    assert {modes[name] for name in modes.keys() - keys} == {0o600 if mode == 0o700 else 0o640}
