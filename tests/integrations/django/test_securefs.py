"""manage.py securefs: import what is there, verify what is stored."""

from __future__ import annotations

import io

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.management import CommandError, call_command
from django.test import override_settings
from support.django_project import STATIC, project
from support.journals import all_records
from support.uploads import CANARY

from securefs.header import MAGIC
from securefs.integrations.django import config


@pytest.fixture(autouse=True)
def media(tmp_path, monkeypatch):
    with project(tmp_path, monkeypatch) as folder:
        default_storage.save("sealed", ContentFile(CANARY))
        yield folder


def run(*arguments):
    out = io.StringIO()
    call_command("securefs", *arguments, stdout=out)
    return out.getvalue().splitlines()


def records(media):
    return [record for record in all_records(media.parent / "audit") if record["event"] == "file.import"]


def test_what_is_there_is_found_imported_and_verified(media):
    (media / "a").mkdir()
    (media / "a" / "old").write_bytes(CANARY)
    with pytest.raises(CommandError, match=r"^1 failed, 1 verified$|^1 verified, 1 failed$"):
        run("verify")
    assert run("import", "--dry-run") == [f"planned  {media}/a/old", "1 unchanged, 1 planned"]
    assert (media / "a" / "old").read_bytes() == CANARY
    assert run("import", str(media / "a")) == [f"imported  {media}/a/old", "1 imported"]
    assert (media / "a" / "old").read_bytes().startswith(MAGIC)
    assert run("verify") == ["2 verified"]
    with default_storage.open("a/old") as file:
        assert file.read() == CANARY
    (told,) = records(media)
    assert (told["outcome"], told["obj"]["name"], told["obj"]["size"]) == ("success", "old", len(CANARY))


def test_a_file_that_can_not_be_imported_is_told(media):
    damaged = bytearray((media / "sealed").read_bytes())
    damaged[0] ^= 1
    (media / "sealed").write_bytes(damaged)
    with pytest.raises(CommandError, match="1 failed"):
        run("import")
    (told,) = records(media)
    assert (told["outcome"], told["obj"]["name"]) == ("failure", "sealed")


def test_what_can_not_be_recorded_is_not_changed(media, tmp_path):
    (media / "old").write_bytes(CANARY)
    (tmp_path / "other").mkdir(mode=0o700)
    with override_settings(SECUREFS_AUDIT_DIR=tmp_path / "other"):
        config.means()
        (tmp_path / "other").rmdir()
        with pytest.raises(CommandError, match="journal"):
            run("import")
    assert (media / "old").read_bytes() == CANARY


def test_where_there_is_nothing_to_do_it_says_so(media, tmp_path):
    (tmp_path / "empty").mkdir()
    assert run("verify", str(tmp_path / "empty")) == ["no files"]
    remote = {
        "BACKEND": "securefs.integrations.django.SealedStorage",
        "OPTIONS": {"storage": {"BACKEND": "django.core.files.storage.InMemoryStorage"}},
    }
    with (
        override_settings(STORAGES={"default": remote, "staticfiles": STATIC}),
        pytest.raises(CommandError, match="SECUREFS_STORES"),
    ):
        run("verify")
    with pytest.raises(CommandError, match="No such file"):
        run("verify", "/nonexistent")
    with override_settings(SECUREFS_MAX_FILES="many"), pytest.raises(CommandError, match="max_files"):
        run("verify")
