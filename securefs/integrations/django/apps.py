"""The app for ``INSTALLED_APPS``: its checks, its command, and which request is served."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.core.signals import request_finished, request_started, setting_changed

from securefs.integrations.django import checks as ours
from securefs.integrations.django import config

__all__ = ["SecureFSConfig"]


class SecureFSConfig(AppConfig):
    """securefs in a Django project."""

    name = "securefs.integrations.django"
    label = "securefs"
    verbose_name = "SecureFS"

    def ready(self) -> None:
        """Connect to the signals of requests, and register the checks."""
        request_started.connect(config.follow, dispatch_uid="securefs")
        request_finished.connect(config.leave, dispatch_uid="securefs")
        setting_changed.connect(config.forget, dispatch_uid="securefs")
        for check in ours.CHECKS:
            checks.register(check, checks.Tags.security)
