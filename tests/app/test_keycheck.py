"""A wrong key is noticed at start and by /readyz, before a file is sealed under it."""

from __future__ import annotations

import base64
import os
import threading

import pytest
from support.reference_app import Site
from werkzeug.test import Client

from securefs import ConfigurationError, Keyring, verify
from securefs.app import create_app
from securefs.app.keycheck import KeyCheck
from securefs.keys import generate_key


def ring(text):
    return Keyring(base64.b64decode(text))


def with_keys(site, primary, *previous):
    kept = {name: value for name, value in site.environ.items() if not name.startswith("FILE_KEY_")}
    return {**kept, "FILE_KEY_BASE64": primary, "FILE_KEY_BASE64_PREVIOUS": ",".join(previous)}


@pytest.fixture
def key(site):
    return (site.folder / "file.key").read_text().strip()


@pytest.fixture
def path(site):
    return site.data / "key-check.enc"


def readiness(app):
    with Client(app).get("/readyz") as response:
        return response.status_code, response.json["failed"]


def test_the_first_start_makes_a_private_file_that_stays(site, path):
    content = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    create_app(site.environ)
    assert path.read_bytes() == content
    assert site.stored() == []


@pytest.mark.parametrize("age", ["new", "upgraded"])
def test_other_keys_are_refused_at_start_with_one_line(site, path, key, age):
    """Upgraded: there are files from before, and no key check yet."""
    site.upload(("a", b"1"))
    if age == "upgraded":
        path.unlink()
    other = generate_key()
    before = sorted(site.data.rglob("*"))
    with pytest.raises(ConfigurationError) as caught:
        create_app(with_keys(site, other))
    line = str(caught.value)
    assert line.startswith("FILE_KEY_BASE64: no key of the keyring opens ")
    assert ring(key).primary_id.hex() in line
    assert "FILE_KEY_BASE64_PREVIOUS" in line
    assert "\n" not in line
    assert other not in line
    assert sorted(site.data.rglob("*")) == before


def test_a_damaged_file_does_not_hide_that_the_keys_are_others(site, path):
    site.upload(("a", b"1"))
    (newest,) = site.upload(("b", b"1")).json["files"]
    (site.files / f"{newest['id']}.enc").write_bytes(b"damaged")
    path.unlink()
    with pytest.raises(ConfigurationError, match="no key of the keyring opens the newest files"):
        create_app(with_keys(site, generate_key()))
    assert not path.exists()


def test_an_upgrade_with_the_right_key_makes_the_file(site, path, key):
    site.upload(("a", b"1"))
    (newest,) = site.upload(("b", b"1")).json["files"]
    (site.files / f"{newest['id']}.enc").write_bytes(b"damaged")
    path.unlink()
    create_app(site.environ)
    assert verify(path, ring(key), b"key-check").size == 0


def test_damaged_files_alone_do_not_keep_the_app_from_starting(site, path):
    site.upload(("a", b"1"))
    path.unlink()
    for file in site.files.iterdir():
        file.unlink()
    create_app(site.environ)
    assert path.exists()


def test_after_a_rotation_the_new_key_opens_it_and_the_old_one_does_not(site, path, key):
    new = generate_key()
    assert readiness(create_app(with_keys(site, new, key))) == (200, [])
    assert verify(path, ring(new), b"key-check").key_id == ring(new).primary_id.hex()
    create_app(with_keys(site, new))
    with pytest.raises(ConfigurationError, match=r"no key of the keyring opens key-check.enc"):
        create_app(with_keys(site, key))


def test_many_processes_may_start_at_a_time(site, path, key):
    """Two of them begin to rotate, and all of them find the file missing or old."""
    new = generate_key()
    for environ in (site.environ, with_keys(site, new, key)):
        if environ is site.environ:
            path.unlink()
        barrier, failures = threading.Barrier(8), []

        def start(barrier=barrier, failures=failures, environ=environ):
            barrier.wait()
            try:
                create_app(environ)
            except ConfigurationError as error:
                failures.append(error)

        threads = [threading.Thread(target=start) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
    assert verify(path, ring(new), b"key-check").size == 0
    assert [file.name for file in site.data.iterdir() if file.name.endswith(".tmp")] == []


def test_readiness_notices_a_key_check_of_other_keys_and_its_return(site, path, capsys):
    own = path.read_bytes()
    (site.folder / "other").mkdir()
    other = Site(site.folder / "other")
    path.write_bytes((other.data / path.name).read_bytes())
    assert readiness(site.app) == (503, ["key"])
    assert "not ready, key: FILE_KEY_BASE64: no key of the keyring opens" in capsys.readouterr().err
    path.write_bytes(own)
    assert readiness(site.app) == (200, [])


def test_readiness_opens_the_file_only_once_while_it_stays_as_it_is(site, path):
    assert readiness(site.app) == (200, [])
    opened = []
    check = KeyCheck(site.data, Keyring.from_env(site.environ))

    def count(original=check._open):
        opened.append(path)
        return original()

    check._open = count
    for _ in range(3):
        check.check()
    assert len(opened) == 1
    os.utime(path)
    check.check()
    assert len(opened) == 2


@pytest.mark.parametrize("fault", ["damaged", "link", "missing", "folder"])
def test_a_file_that_cannot_be_used_is_told(site, path, fault, capsys):
    content = bytearray(path.read_bytes())
    path.unlink()
    if fault == "damaged":
        content[-1] ^= 1
        path.write_bytes(content)
    elif fault == "link":
        (site.folder / "target").write_bytes(content)
        path.symlink_to(site.folder / "target")
    elif fault == "folder":
        path.mkdir()
    assert readiness(site.app) == (503, ["key"])
    assert str(path) in capsys.readouterr().err
    if fault != "missing":
        with pytest.raises(ConfigurationError, match="delete it and start the app"):
            create_app(site.environ)


def test_a_folder_that_cannot_be_used_is_told(site):
    check = KeyCheck(site.data / ("n" * 300), Keyring.from_env(site.environ))
    with pytest.raises(ConfigurationError, match=r"cannot use .*File name too long"):
        check.prepare(site.app._app._storage)


def test_a_database_that_is_gone_is_told_of_as_such(site, path):
    path.unlink()
    (site.data / "securefs.sqlite3").unlink()
    with pytest.raises(ConfigurationError, match="SECUREFS_DATA_DIR: the database"):
        KeyCheck(site.data, Keyring.from_env(site.environ)).prepare(site.app._app._storage)
