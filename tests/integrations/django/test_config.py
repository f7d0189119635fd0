"""The settings of a project: what is taken from where, and what is refused."""

from __future__ import annotations

import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.test import override_settings
from support.django_project import STATIC, project
from support.journals import all_records

from securefs import ConfigurationError, Suite
from securefs.integrations.django import config


@pytest.fixture(autouse=True)
def media(tmp_path, monkeypatch):
    with project(tmp_path, monkeypatch) as folder:
        yield folder


def test_the_folders_of_the_sealed_storages_are_the_stores(media):
    assert not media.exists()
    assert config.policy().stores == (str(media),)
    assert media.is_dir()
    sealed = {
        "BACKEND": "securefs.integrations.django.SealedStorage",
        "OPTIONS": {"location": str(media / "a")},
    }
    plain = {
        "BACKEND": "securefs.integrations.django.PlainStorage",
        "OPTIONS": {"location": str(media / "b")},
    }
    remote = {
        "BACKEND": sealed["BACKEND"],
        "OPTIONS": {"storage": {"BACKEND": "django.core.files.storage.InMemoryStorage"}},
    }
    aliases = {"default": sealed, "again": sealed, "public": plain, "remote": remote, "staticfiles": STATIC}
    with override_settings(STORAGES=aliases):
        assert config.policy().stores == (str(media / "a"),)


def test_settings_come_before_the_environment(media, monkeypatch):
    monkeypatch.setenv("SECUREFS_STORES", str(media))
    monkeypatch.setenv("SECUREFS_SUITE", "aes-256-cbc-hmac-sha256")
    monkeypatch.setenv("SECUREFS_PLAIN_FIELDS", "logo")
    with override_settings(
        SECUREFS_STORES=[media.parent], SECUREFS_SUITE="aes-256-gcm", SECUREFS_MAX_FILES=3
    ):
        found = config.policy()
        assert (found.stores, found.suite, found.max_files) == ((str(media.parent),), Suite.GCM, 3)
        assert found.plain_fields == ("logo",)
    assert config.policy().stores == (str(media),)


def test_the_journal_of_the_settings_is_written(media, tmp_path):
    with override_settings(SECUREFS_AUDIT_DIR=tmp_path / "other", SECUREFS_AUDIT_NAMES="clear"):
        default_storage.save("a", ContentFile(b"x"))
        told = [record["event"] for record in all_records(tmp_path / "other")]
        assert told.count("file.encrypt") == 2


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("SECUREFS_STORE", ["a"], "settings.SECUREFS_STORE is no setting"),
        ("SECUREFS_MAX_FILES", "many", "max_files must be a whole number"),
        ("SECUREFS_SUITE", "rot13", "Django's settings or the environment: .*rot13"),
        ("SECUREFS_STORES", ["/nonexistent/folder"], "which is no folder"),
        ("SECUREFS_STORES", "/srv", "must be a tuple"),
    ],
)
def test_a_setting_that_can_not_be_used_is_named(setting, value, message):
    with override_settings(**{setting: value}), pytest.raises(ConfigurationError, match=message):
        config.means()


def test_settings_are_read_anew_where_they_change():
    first = config.means()
    assert config.means() is first
    with override_settings(LANGUAGE_CODE="de"):
        assert config.means() is first
    with override_settings(SECUREFS_MAX_FILES=3):
        assert config.means().policy.max_files == 3


def test_the_request_is_known_while_it_lasts():
    exchange = object()
    config.follow({"securefs": exchange}, signal=None)
    assert config.current() is exchange
    config.leave(signal=None)
    assert config.current() is None
    config.follow(scope={})
    assert config.current() is None
    with pytest.raises(ConfigurationError, match="SecureFS is not in front of Django"):
        config.exchange_of({})
