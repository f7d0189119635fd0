"""The middleware itself: ``app = SecureFS(app)``.

A request passes four gates, and each may answer in the app's place: authorization (``authorize``),
the upload (:mod:`securefs.middleware.upload`), the app's response, and the download
(:mod:`securefs.middleware.download`). A body that is neither an upload nor ciphertext passes
unchanged. :mod:`securefs.middleware.transit` is one request on this way.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from securefs.arguments import is_async, require, require_function, require_items
from securefs.audit import Journal
from securefs.errors import ConfigurationError
from securefs.keys import Keyring
from securefs.middleware.download import deliver
from securefs.middleware.intake import receive
from securefs.middleware.places import Places
from securefs.middleware.policy import Policy
from securefs.middleware.proxies import TrustedProxies
from securefs.middleware.refusal import Refusal, log
from securefs.middleware.transit import Settings, Transit
from securefs.middleware.waiting import WaitingRoom
from securefs.sealer import NewFiles
from securefs.secrecy import clears_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from securefs.audit import Entry
    from securefs.middleware.inspection import Inspector
    from securefs.middleware.transit import Environ, Renderer, WSGIApp

__all__ = ["SecureFS"]

# What an operator reads at start, if an app declares nothing.
UNDECLARED: Final = (
    "no store is declared: stored files are recognised by their first bytes alone, so plaintext in a file's place is "
    "served, and ciphertext from anywhere is decrypted. Name the folders of your uploads: "
    'SecureFS(app, stores=["uploads"]) or SECUREFS_STORES, or Policy(protected_paths=("/files/*",)) (SECUREFS_PROTECTED_PATHS)'
)


class SecureFS:
    """Encrypts the uploads to a WSGI app, and decrypts the stored files that the app serves.

    :param app: any WSGI application.
    :param stores: the folders in which the app keeps what was uploaded; ``policy.stores`` unless
        given. See :mod:`securefs.middleware.places`.
    :param keyring: the file keys; from ``FILE_KEY_BASE64`` and its relatives unless given.
    :param journal: the audit journal; unless given, from ``SECUREFS_AUDIT_DIR``, or on standard
        error if that is not set.
    :param policy: limits and choices; from ``SECUREFS_SUITE`` and its relatives unless given.
    :param context: ``context(environ) -> bytes`` is bound into every file, e.g. the tenant: a file
        that was written in one context does not open in another. It is called when a file is sealed
        or opened. Format 1 binds no context: with Format 1, the policy must set
        ``unbound_format_1``.
    :param authorize: ``authorize(environ) -> str | None`` names the principal; None or an empty str
        results in a 401 before the app runs. Anything else that is no str is an error.
    :param inspect: ``inspect(part, chunks)`` sees the plaintext of each file before the app sees
        its ciphertext, and may refuse it: :mod:`securefs.middleware.inspection`.
    :param on_refusal: ``on_refusal(environ, problem) -> (status line, headers, body) | None``
        renders a refusal (:class:`securefs.middleware.Problem`) in the app's way; None leaves it to
        the middleware, and so does an error, which is logged. Its environ has no request body.
    :param on_event: ``on_event(entry)`` is called after each record
        (:class:`securefs.audit.Entry`) that the journal took of a request, e.g. to count. An error
        in it is logged and changes nothing.
    :raises ConfigurationError: one of them is unusable. There is no fallback to plaintext.
    """

    @clears_frames
    def __init__(
        self,
        app: WSGIApp,
        *,
        stores: Iterable[str | os.PathLike[str]] | None = None,
        keyring: Keyring | None = None,
        journal: Journal | None = None,
        policy: Policy | None = None,
        context: Callable[[Environ], bytes] | None = None,
        authorize: Callable[[Environ], str | None] | None = None,
        inspect: Inspector | None = None,
        on_refusal: Renderer | None = None,
        on_event: Callable[[Entry], object] | None = None,
    ) -> None:
        _check_app(app)
        functions: dict[str, object] = {"context": context, "authorize": authorize, "inspect": inspect}
        functions |= {"on_refusal": on_refusal, "on_event": on_event}
        for name, function in functions.items():
            if function is not None:
                require_function(name, function, "a function")
        keyring = Keyring.from_env() if keyring is None else keyring
        journal = Journal.from_env() if journal is None else journal
        policy = Policy.from_env() if policy is None else policy
        require("keyring", keyring, Keyring, "a Keyring")
        require("journal", journal, Journal, "a Journal")
        require("policy", policy, Policy, "a Policy")
        if stores is not None:
            policy = replace(policy, stores=_folders(stores))
        places = Places(policy)
        new_files = NewFiles(keyring, policy.format, policy.suite)
        # A key that can't seal is detected now, not at the first upload; so is a ring without a key
        # that opens Format 1.
        new_files.check()
        if policy.format_1_paths:
            keyring.format_1_verifier()
        if context is not None:
            _check_bound(policy)
        self._app = app
        room = WaitingRoom(policy.max_waiting)
        self._settings = Settings(
            keyring,
            journal,
            policy,
            new_files,
            places,
            room,
            context,
            authorize,
            inspect,
            on_refusal,
            on_event,
            TrustedProxies(policy.trusted_proxies),
        )
        if not places.declared:
            log.warning(UNDECLARED)
        journal.describe(places="declared" if places.declared else "undeclared")

    @clears_frames
    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request (PEP 3333)."""
        transit = Transit(self._settings, environ, start_response)
        try:
            transit.admit()
            receive(transit)
            transit.run(self._app)
            return deliver(transit)
        except Refusal as refusal:
            return transit.refuse(refusal)
        except BaseException:
            # The server reports the error; everything that is open is closed as after any response.
            try:
                transit.close()
            finally:
                transit.record_crash()
            raise


def _check_app(app: object) -> None:
    wanted = "a WSGI app, which is called with environ and start_response"
    if callable(app) and is_async(app):
        raise ConfigurationError(f"app must be {wanted}, and this is an ASGI app: it is a coroutine function")
    require_function("app", app, wanted)


def _folders(stores: Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    require_items("stores", stores, 'a list of folders such as ["uploads"]')
    paths = tuple(stores)
    for path in paths:
        require("a store", path, (str, os.PathLike), "the path of a folder")
    return tuple(os.fspath(path) for path in paths)


def _check_bound(policy: Policy) -> None:
    """Refuse a context together with Format 1, which would ignore it.

    Otherwise one tenant's file would open for every other.
    """
    if policy.unbound_format_1 or (policy.format != 1 and not policy.format_1_paths):
        return
    setting = (
        "format (SECUREFS_FORMAT) is 1"
        if policy.format == 1
        else "format_1_paths (SECUREFS_FORMAT_1_PATHS) is set"
    )
    raise ConfigurationError(
        f"SecureFS(context=…) binds files, and Policy.{setting}: a Format 1 file is bound to nothing and opens under every context. "
        "Leave out one of them, or say Policy(unbound_format_1=True) (SECUREFS_UNBOUND_FORMAT_1=1)"
    )
