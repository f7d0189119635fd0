"""Names that stay out of the journal."""

import hashlib
import hmac
import os
import stat

import pytest
from support.journals import run_script, unprivileged

from securefs.audit import Entry, Journal, hash_name
from securefs.audit.pseudonym import KEY_FILE, Pseudonyms, _create, load_or_create, random_pseudonyms
from securefs.errors import ConfigurationError

KEY = bytes(range(32))


def test_golden_pseudonym():
    """The formula of the documentation, written out."""
    digest = hmac.new(KEY, b"name\x00r\xc3\xa9sum\xc3\xa9.pdf", hashlib.sha256).hexdigest()
    key_id = hmac.new(KEY, b"key-id\x00", hashlib.sha256).hexdigest()[:16]
    assert Pseudonyms(KEY).of("name", "r\u00e9sum\u00e9.pdf") == f"hmac-sha256:{key_id}:{digest}"


def test_kinds_and_keys_keep_pseudonyms_apart():
    made = {
        Pseudonyms(KEY).of("name", "x"),
        Pseudonyms(KEY).of("principal", "x"),
        random_pseudonyms().of("name", "x"),
    }
    assert len(made) == 3


def test_lone_surrogates_have_a_pseudonym():
    assert Pseudonyms(KEY).of("name", "\ud800") != Pseudonyms(KEY).of("name", "\ud801")


def test_key_is_not_shown():
    assert "key" not in repr(Pseudonyms(KEY))


def test_key_is_made_once_for_its_owner_only(tmp_path):
    first = load_or_create(tmp_path)
    path = tmp_path / KEY_FILE
    assert load_or_create(tmp_path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == first.key
    assert len(first.key) == 32
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_workers_that_race_agree_on_one_key(tmp_path):
    code = """
import os, sys
from pathlib import Path
from securefs.audit.pseudonym import load_or_create
ready, go = os.pipe()
children = []
for _ in range(8):
    if (pid := os.fork()) == 0:
        os.close(go)
        os.read(ready, 1)
        os.write(1, load_or_create(Path(sys.argv[1])).key_id.encode() + b"\\n")
        sys.exit()
    children.append(pid)
os.close(go)
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0
"""
    out, _ = run_script(code, tmp_path)
    assert len(out.split()) == 8
    assert len(set(out.split())) == 1
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_slower_worker_takes_the_key_of_the_faster(tmp_path):
    first = load_or_create(tmp_path)
    _create(tmp_path / KEY_FILE)
    assert load_or_create(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_hash_name_finds_what_was_recorded(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.record(Entry("file.encrypt", obj={"name": "secret-plan.pdf"}, actor="alice"))
    journal.close()
    text = next((tmp_path / "j").glob("*.jsonl")).read_text()
    assert hash_name(tmp_path / "j", "secret-plan.pdf") in text
    assert hash_name(tmp_path / "j", "alice", "principal") in text
    assert "secret-plan" not in text
    assert "alice" not in text


def test_hash_name_makes_no_key(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot read the pseudonym key .*No such file"):
        hash_name(tmp_path, "x")
    assert list(tmp_path.iterdir()) == []


def _mode(path):
    path.write_bytes(KEY)
    path.chmod(0o640)


def _short(path):
    path.write_bytes(KEY[:31])
    path.chmod(0o600)


def _long(path):
    path.write_bytes(KEY + b"\n")
    path.chmod(0o600)


def _link(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(_mode, "others can read", id="others-can-read"),
        pytest.param(_short, "not 32 bytes", id="short"),
        pytest.param(_long, "not 32 bytes", id="long"),
        pytest.param(_link, "not a file", id="symbolic-link"),
        pytest.param(lambda path: path.mkdir(0o700), "not a file", id="folder"),
        pytest.param(lambda path: os.mkfifo(path, 0o600), "not a file", id="pipe"),
    ],
)
def test_unfit_key_is_refused(tmp_path, make, message):
    make(tmp_path / KEY_FILE)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_or_create(tmp_path)
    assert "\n" not in str(caught.value)


def test_folder_that_cannot_be_written_is_a_clear_line(open_folder):
    open_folder.chmod(0o500)
    with unprivileged(open_folder), pytest.raises(ConfigurationError, match="cannot create"):
        load_or_create(open_folder)


@pytest.mark.parametrize("kind", ["name", "principal"])
def test_texts_that_are_equal_to_unicode_have_one_pseudonym(tmp_path, kind):
    """Some systems decompose the names of files; who searches types them composed."""
    Journal(tmp_path / "j").close()
    one, other = (hash_name(tmp_path / "j", text, kind) for text in ("M\u00fcller.pdf", "Mu\u0308ller.pdf"))
    assert one == other != hash_name(tmp_path / "j", "Muller.pdf", kind)
