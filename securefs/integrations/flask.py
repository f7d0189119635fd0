"""Flask: an app that looks at its uploads, and stores ciphertext.

::

    from securefs.integrations.flask import SecureFS, send_sealed

    app = Flask(__name__)
    app.config["SECUREFS_STORES"] = ["uploads"]
    securefs = SecureFS(app)  # FILE_KEY_BASE64 holds the key

The extension puts the middleware in front of ``app.wsgi_app``. ``request.files`` then reads as
plaintext and saves ciphertext (:class:`securefs.integrations.werkzeug.SealedFile`), and
:attr:`SecureFS.vault` opens and seals files outside of a request.

``app.config`` may have each field of :class:`securefs.middleware.Policy` under its name in capitals
after ``SECUREFS_``, as a value of that field's type (a list will do for a tuple, a label for a
suite), and ``SECUREFS_AUDIT_DIR`` and its relatives. What is not there comes from the environment.
A relative store is looked for in ``app.root_path``, as Flask does. Keys never come from
``app.config``, which a debug page shows. Refuses: a setting that it does not know. docs/looking.md
has a whole program.
"""

from __future__ import annotations

import os
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Final, cast

import click
from flask import current_app, request
from flask.cli import AppGroup

from securefs import Suite, middleware
from securefs.audit import Journal
from securefs.errors import ConfigurationError
from securefs.integrations import werkzeug
from securefs.integrations.werkzeug import SealedFile, SealedRequest
from securefs.middleware import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Flask, Response

    from securefs.middleware import Vault

__all__ = ["SealedFile", "SealedRequest", "SecureFS", "send_sealed"]

_NAME: Final = "securefs"  # of the extension, and of its commands
_PREFIX: Final = "SECUREFS_"
_OF_JOURNAL: Final = frozenset(
    {"SECUREFS_AUDIT_DIR", "SECUREFS_AUDIT_SYNC", "SECUREFS_AUDIT_NAMES", "SECUREFS_AUDIT_NAMES_KEY"}
)


class SecureFS:
    """The extension. ``SecureFS(app)``, or ``init_app(app)`` for each app of a factory.

    :param options: ``keyring``, ``journal``, ``policy``, ``context``, ``authorize``, ``inspect``,
        ``on_refusal``, ``on_event``, as :class:`securefs.middleware.SecureFS` takes them.
    :raises ConfigurationError: a setting is unusable, or not known.
    """

    def __init__(self, app: Flask | None = None, **options: Any) -> None:
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Put the middleware in front of ``app``, with the settings of ``app.config``."""
        if _NAME in app.extensions:
            raise ConfigurationError("SecureFS is in front of this app already: call init_app() once")
        front = middleware.SecureFS(app.wsgi_app, **_configured(app, self._options))
        app.extensions[_NAME] = front
        app.wsgi_app = front  # type: ignore[method-assign]  # as Flask's documentation does
        if not issubclass(app.request_class, SealedRequest):
            app.request_class = type("Request", (SealedRequest, app.request_class), {})
        app.cli.add_command(_commands())

    @property
    def vault(self) -> Vault:
        """The vault of the current app; it needs an app context.

        :raises ConfigurationError: :meth:`init_app` was not called for it.
        """
        return _vault()


def _vault() -> Vault:
    front: middleware.SecureFS | None = current_app.extensions.get(_NAME)
    if front is None:
        raise ConfigurationError("SecureFS is not in front of this app: call init_app(app)")
    return front.vault


def send_sealed(path: str | os.PathLike[str], **options: Any) -> Response:
    """Return the response that is a stored file: verified first, served in ranges, recorded.

    :param path: a file of a declared store; relative to ``app.root_path``, as Flask's
        ``send_file``. If there is none, the response is 404.
    :param options: ``object_id``, ``download_name``, ``mimetype``, ``as_attachment``, ``max_age``:
        see :func:`securefs.integrations.werkzeug.send_sealed`.
    """
    path = os.path.join(current_app.root_path, path)  # noqa: PTH118  # as Flask does
    response = werkzeug.send_sealed(path, request.environ, **options)
    return cast("Response", current_app.response_class.force_type(response, request.environ))


def _configured(app: Flask, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``options`` with the policy and the journal that ``app.config`` asks for."""
    given = {name: value for name, value in app.config.items() if name.startswith(_PREFIX)}
    known = {f"{_PREFIX}{field.name.upper()}": field.name for field in fields(Policy)}
    if unknown := sorted(given.keys() - known.keys() - _OF_JOURNAL):
        raise ConfigurationError(f"app.config has {unknown[0]}, which is no setting of securefs")
    journal = {name: os.fspath(given.pop(name)) for name in _OF_JOURNAL & given.keys()}
    values: dict[str, Any] = {known[name]: _value(value) for name, value in given.items()}
    try:
        if isinstance(stores := values.get("stores"), tuple):
            # As Flask does for the paths of send_file.
            values["stores"] = tuple(os.path.join(app.root_path, store) for store in stores)  # noqa: PTH118
        if isinstance(label := values.get("suite"), str):
            values["suite"] = Suite.parse(label)
        policy = replace(options.get("policy") or Policy.from_env(), **values)
        made = {} if "journal" in options else {"journal": Journal.from_env({**os.environ, **journal})}
    except ConfigurationError as error:
        raise ConfigurationError(f"app.config or the environment: {error}") from None
    return {**made, **options, "policy": policy}


def _value(configured: Any) -> Any:
    """Return a value of the type that a field of the policy has: JSON has lists, and no tuples."""
    return tuple(configured) if isinstance(configured, list) else configured


def _commands() -> AppGroup:
    group = AppGroup(_NAME, help="Look after encrypted uploads.")

    @group.command("check")
    def check() -> None:
        """Fail for each file in a store that is not encrypted."""
        unsealed = [os.fspath(path) for path in _vault().unsealed()]
        for path in unsealed:
            click.echo(f"not encrypted: {ascii(path)[1:-1]}")
        if unsealed:
            raise click.ClickException(
                f"{len(unsealed)} files in the stores are not encrypted: store uploads by file.save(), and what the app makes by "
                "vault.seal(…).save(…); securefs import encrypts what is there"
            )
        click.echo("every file in the stores is encrypted")

    return group
