"""System checks: each mistake of a project is named, and a project without one is left alone."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from django.core.checks import run_checks
from django.core.files.storage import FileSystemStorage, default_storage, storages
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import models
from django.test import override_settings
from django.test.utils import isolate_apps
from django.urls import path
from support import django_project
from support.django_project import HANDLERS, STATIC, project

from securefs.integrations.django import (
    PlainStorage,
    SealedStorage,
    checks,
    config,
    get_wsgi_application,
    serve,
)

SEALED = {"BACKEND": "securefs.integrations.django.SealedStorage"}
LOCAL = {"BACKEND": "django.core.files.storage.FileSystemStorage"}


@pytest.fixture(autouse=True)
def media(tmp_path, monkeypatch):
    with project(tmp_path, monkeypatch, WSGI_APPLICATION="wsgi_of_test.application") as folder:
        django_project.urlpatterns.append(path("media/<path:path>", serve))
        module = ModuleType("wsgi_of_test")
        module.application = get_wsgi_application()
        monkeypatch.setitem(sys.modules, "wsgi_of_test", module)
        yield folder


def found(**settings):
    """Return the messages of our checks, by id."""
    with override_settings(**settings):
        messages = run_checks(tags=["security"])
    ours = [message for message in messages if message.id.startswith("securefs.")]
    return {message.id.removeprefix("securefs."): str(message) for message in ours}


def aliases(**more):
    return {"default": SEALED, "staticfiles": STATIC, **more}


def test_a_project_as_the_page_describes_it_has_no_message():
    assert found() == {}


def test_a_setting_that_can_not_be_used_is_one_message():
    assert list(found(SECUREFS_MAX_FILES="many")) == ["E001"]
    assert list(found(SECUREFS_UNKNOWN="many")) == ["E001"]


def test_a_key_that_is_missing_is_named(monkeypatch):
    monkeypatch.delenv("FILE_KEY_BASE64")
    assert "FILE_KEY_BASE64 is not set" in found(SECUREFS_MAX_FILES=7)["E001"]


def test_an_error_stops_a_command_unless_it_is_silenced(monkeypatch):
    monkeypatch.delenv("FILE_KEY_BASE64")
    config.forget()
    with pytest.raises(SystemCheckError, match=r"securefs\.E001"):
        call_command("check")
    with override_settings(SILENCED_SYSTEM_CHECKS=["securefs.E001"]):
        call_command("check")


def test_a_handler_that_shows_ciphertext_is_named():
    djangos = "django.core.files.uploadhandler.TemporaryFileUploadHandler"
    messages = found(FILE_UPLOAD_HANDLERS=[HANDLERS[0], djangos])
    assert list(messages) == ["E002"]
    assert djangos in messages["E002"]


def test_an_alias_that_does_not_seal_is_named():
    messages = found(STORAGES=aliases(exports=LOCAL))
    assert list(messages) == ["E003"]
    assert "STORAGES['exports']" in messages["E003"]
    assert "PlainStorage" in messages["E003"]


@pytest.mark.parametrize("kind", [models.FileField, models.ImageField])
def test_a_field_that_does_not_seal_is_named(kind, tmp_path):
    with isolate_apps("securefs.integrations.django") as registry:
        sealed, plain, leaking = (
            SealedStorage(),
            PlainStorage(location=str(tmp_path / "p")),
            FileSystemStorage(),
        )

        class Document(models.Model):  # noqa: DJ008  # nobody sees it
            one = models.FileField(storage=sealed)
            two = models.FileField(storage=plain)
            three = models.FileField()
            four = kind(storage=leaking)
            five = models.FileField()
            five.thumbnail_storage = leaking
            six = models.FileField()
            six.storages = {"public": sealed, "private": leaking}  # noqa: RUF012  # as django-filer does

            class Meta:
                app_label = "securefs"

        registry.get_models.cache_clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checks, "apps", registry)
            messages = found()
            found_fields = sorted(message.obj.name for message in checks.check_fields())
    assert list(messages) == ["E004"]
    assert found_fields == ["five", "four", "six"]


def test_storages_on_the_wrong_side_of_the_stores_are_named(media, tmp_path):
    plain = {
        "BACKEND": "securefs.integrations.django.PlainStorage",
        "OPTIONS": {"location": str(media / "logos")},
    }
    outside = {**SEALED, "OPTIONS": {"location": str(tmp_path / "outside")}}
    remote = {**SEALED, "OPTIONS": {"storage": {"BACKEND": "django.core.files.storage.InMemoryStorage"}}}
    media.mkdir(exist_ok=True)
    messages = found(STORAGES=aliases(logos=plain, outside=outside, remote=remote), SECUREFS_STORES=[media])
    assert sorted(messages) == ["E005", "E006"]
    assert "STORAGES['outside']" in messages["E005"]
    assert "STORAGES['logos']" in messages["E006"]


def test_an_application_without_the_middleware_is_named(monkeypatch):
    assert "runserver" in found(WSGI_APPLICATION=None)["W007"]
    sys.modules["wsgi_of_test"].application = lambda *_: []
    assert "wsgi_of_test.application is no SecureFS" in found()["W007"]
    for name in ("wsgi_of_test.nothing", "no_module_of_this_name.application"):
        assert name in found(WSGI_APPLICATION=name)["E008"]


def test_an_application_whose_settings_can_not_be_used_is_told_once(monkeypatch, tmp_path):
    (tmp_path / "wsgi_that_fails.py").write_text(
        "from securefs.integrations.django import get_wsgi_application\napplication = get_wsgi_application()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert list(found(WSGI_APPLICATION="wsgi_that_fails.application", SECUREFS_MAX_FILES="many")) == ["E001"]


@pytest.mark.parametrize("url", ["https://cdn.example/", "", "/elsewhere/"])
def test_a_media_url_that_hands_out_ciphertext_is_named(url):
    messages = found(MEDIA_URL=url)
    assert list(messages) == ["W009"]
    assert "ciphertext" in messages["W009"]


def test_a_project_without_sealed_aliases_needs_no_media_url(tmp_path):
    plain = {
        "BACKEND": "securefs.integrations.django.PlainStorage",
        "OPTIONS": {"location": str(tmp_path / "p")},
    }
    assert found(STORAGES={"default": plain, "staticfiles": STATIC}, MEDIA_URL="/elsewhere/") == {}


@pytest.mark.parametrize(
    "setting", ["STATIC_ROOT", "STATICFILES_DIRS", "STATICFILES_DIRS with a prefix", "WHITENOISE_ROOT"]
)
def test_a_folder_that_is_served_as_it_is_is_named(setting, media):
    name, _, prefix = setting.partition(" ")
    parent = str(media.parent)
    value = parent if name != "STATICFILES_DIRS" else [("prefix", parent) if prefix else parent]
    messages = found(**{name: value})
    assert name in messages["W010"]


def test_compression_of_responses_is_named():
    assert "GZipMiddleware" in found(MIDDLEWARE=["django.middleware.gzip.GZipMiddleware"])["W011"]


def test_the_default_storage_of_a_field_is_the_one_behind_it():
    assert checks._real(default_storage) is storages["default"]
