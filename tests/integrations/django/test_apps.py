"""The app for INSTALLED_APPS."""

from __future__ import annotations

from django.apps import apps
from django.core import checks
from django.core.signals import request_finished, request_started
from support.django_project import project

from securefs.integrations.django import config
from securefs.integrations.django.checks import CHECKS


def test_the_app_follows_requests_and_brings_its_checks(tmp_path, monkeypatch):
    with project(tmp_path, monkeypatch):
        assert apps.get_app_config("securefs").verbose_name == "SecureFS"
        assert set(CHECKS) <= set(checks.registry.registry.get_checks())
        exchange = object()
        request_started.send(None, environ={"securefs": exchange})
        assert config.current() is exchange
        request_finished.send(None)
        assert config.current() is None
