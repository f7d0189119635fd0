"""The database: made private, never replaced, and every transaction whole."""

from __future__ import annotations

import sqlite3

import pytest
from support.servers import app_environ

from securefs import ConfigurationError
from securefs.app import create_app
from securefs.app.database import StorageError, open_database, transaction


def test_a_data_folder_that_others_can_write_to_is_refused(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        create_app(app_environ(tmp_path))


def test_a_newer_or_foreign_database_is_refused(tmp_path):
    environ = app_environ(tmp_path)
    create_app(environ)
    path = tmp_path / "data" / "securefs.sqlite3"
    assert path.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(ConfigurationError, match="newer release"):
        create_app(environ)
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        create_app(environ)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigurationError, match="is a folder, not a regular file"):
        create_app(environ)


@pytest.fixture
def database(tmp_path):
    return open_database(tmp_path)


def test_a_full_database_is_told_as_a_full_disk(database):
    def fill():
        with transaction(database) as connection:
            connection.execute("PRAGMA max_page_count = 1")
            connection.execute("CREATE TABLE more (x)")
            connection.executemany("INSERT INTO more VALUES (?)", [(bytes(100_000),)] * 10)

    with pytest.raises(StorageError) as caught:
        fill()
    assert caught.value.full
    with transaction(database, write=False) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (0,)


def test_a_transaction_that_raises_is_undone(database):
    def fail():
        with transaction(database) as connection:
            connection.execute("INSERT INTO files (object_id, owner, size, created) VALUES ('a', 'b', 1, 1)")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with transaction(database, write=False) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (0,)


def test_a_database_that_vanished_is_an_error_and_no_new_one(database):
    database.unlink()
    with pytest.raises(StorageError, match="unable to open"), transaction(database):
        pass
    assert not database.exists()


def test_opening_twice_keeps_what_is_there(tmp_path, database):
    with transaction(database) as connection:
        connection.execute("INSERT INTO files (object_id, owner, size, created) VALUES ('a', 'b', 1, 1)")
    assert open_database(tmp_path) == database
    with sqlite3.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM files").fetchone() == (1,)
    connection.close()


def test_a_link_in_the_place_of_the_database_is_not_followed(tmp_path):
    (tmp_path / "securefs.sqlite3").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="is a symbolic link, not a regular file"):
        open_database(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_database_in_a_folder_that_is_gone_is_told(tmp_path):
    with pytest.raises(ConfigurationError, match=r"securefs\.sqlite3: No such file"):
        open_database(tmp_path / "gone")
