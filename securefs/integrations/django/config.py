"""The project's settings: what its files are sealed with, and where that is recorded.

``settings`` may have each field of :class:`securefs.middleware.Policy` under its name in capitals
after ``SECUREFS_``, and ``SECUREFS_AUDIT_DIR`` and its relatives. What is not there comes from the
environment. If no stores are named, they are the folders of the sealed storages in ``STORAGES``.
Keys never come from ``settings``, which a debug page shows. Refuses: a setting that it does not
know.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from dataclasses import fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.files.storage import storages

from securefs import Suite
from securefs.audit import Journal
from securefs.errors import ConfigurationError
from securefs.middleware import Policy, Vault
from securefs.middleware.means import Means
from securefs.middleware.vault import UNDECLARED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from securefs.middleware import Exchange

__all__ = ["STATICFILES", "current", "exchange_of", "follow", "forget", "leave", "means", "policy", "vault"]

STATICFILES: Final = "staticfiles"  # the alias of a project's own files, which are no uploads
_PREFIX: Final = "SECUREFS_"
_OF_JOURNAL: Final = frozenset({"SECUREFS_AUDIT_DIR", "SECUREFS_AUDIT_SYNC", "SECUREFS_AUDIT_NAMES"})
_CURRENT: ContextVar[Exchange | None] = ContextVar("securefs_exchange", default=None)


def current() -> Exchange | None:
    """Return the middleware's side of the request that is served here, None if none is."""
    return _CURRENT.get()


def follow(environ: Mapping[str, Any] | None = None, **_signal: object) -> None:
    """Note the request that begins: a receiver of ``request_started``."""
    _CURRENT.set(None if environ is None else environ.get("securefs"))


def leave(**_signal: object) -> None:
    """Forget the request that is over: a receiver of ``request_finished``."""
    _CURRENT.set(None)


def exchange_of(environ: Mapping[str, Any]) -> Exchange:
    """Return the middleware's side of a request.

    :raises ConfigurationError: the middleware is not in front of Django.
    """
    exchange: Exchange | None = environ.get("securefs")
    if exchange is None:
        raise ConfigurationError(
            "SecureFS is not in front of Django, so uploads are not encrypted: in wsgi.py, import get_wsgi_application from "
            "securefs.integrations.django, and in tests, Client from securefs.integrations.django.testing"
        )
    return exchange


@lru_cache(maxsize=1)
def means() -> Means:
    """Return the keys, the journal and the policy of this project.

    :raises ConfigurationError: a setting is unusable or not known.
    """
    of_journal = {name: os.fspath(value) for name, value in _given().items() if name in _OF_JOURNAL}
    try:
        journal = Journal.from_env({**os.environ, **of_journal})
        return Means.of(None, None, journal, policy(), None)
    except ConfigurationError as error:
        raise ConfigurationError(f"Django's settings or the environment: {error}") from None


@lru_cache(maxsize=1)
def vault() -> Vault:
    """Return what opens and seals files outside of requests; see :func:`means`."""
    found = means()
    found.announce(UNDECLARED)
    return Vault.of(found, None)


def forget(setting: str = _PREFIX, **_signal: object) -> None:
    """Read the settings anew: a receiver of ``setting_changed``, for tests."""
    if setting.startswith(_PREFIX) or setting in {"STORAGES", "MEDIA_ROOT"}:
        means.cache_clear()
        vault.cache_clear()


def policy() -> Policy:
    """Return the policy of ``settings`` and the environment.

    :raises ConfigurationError: as :func:`means`.
    """
    known = {f"{_PREFIX}{field.name.upper()}": field.name for field in fields(Policy)}
    given = _given()
    if unknown := sorted(given.keys() - known.keys() - _OF_JOURNAL):
        raise ConfigurationError(f"settings.{unknown[0]} is no setting of securefs")
    values: dict[str, Any] = {known[name]: _value(value) for name, value in given.items() if name in known}
    if isinstance(label := values.get("suite"), str):
        values["suite"] = Suite.parse(label)
    if isinstance(stores := values.get("stores"), tuple):
        values["stores"] = tuple(map(os.fspath, stores))
    found = replace(Policy.from_env(), **values)
    return found if found.stores else replace(found, stores=_folders_of_storages())


def _given() -> dict[str, Any]:
    return {name: getattr(settings, name) for name in dir(settings) if name.startswith(_PREFIX)}


def _value(configured: Any) -> Any:
    return tuple(configured) if isinstance(configured, list) else configured


def _folders_of_storages() -> tuple[str, ...]:
    """Return the folders of the sealed storages in ``STORAGES``, which are made where they lack."""
    found = []
    for alias in settings.STORAGES:
        if alias != STATICFILES and (folder := getattr(storages[alias], "store", None)):
            Path(folder).mkdir(parents=True, exist_ok=True)
            found.append(folder)
    return tuple(dict.fromkeys(found))
