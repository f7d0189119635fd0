"""The middleware itself: ``app = SecureFS(app)``.

A request passes four gates, and each may answer in the app's place: authorization (``authorize``),
the upload (:mod:`securefs.middleware.upload`), the app's response, and the download
(:mod:`securefs.middleware.download`). A body that is neither an upload nor ciphertext passes
unchanged. :mod:`securefs.middleware.transit` is one request on this way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from securefs.arguments import is_async, require_function
from securefs.errors import ConfigurationError
from securefs.middleware.download import deliver
from securefs.middleware.intake import receive
from securefs.middleware.means import Means, check_bound
from securefs.middleware.proxies import TrustedProxies
from securefs.middleware.refusal import Refusal
from securefs.middleware.transit import Settings, Transit
from securefs.middleware.vault import PER_REQUEST, Vault
from securefs.middleware.waiting import WaitingRoom
from securefs.secrecy import clears_frames

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from typing import Any

    from securefs.audit import Entry, Journal
    from securefs.keys import Keyring
    from securefs.middleware.inspection import Inspector
    from securefs.middleware.policy import Policy
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
        or opened. Bytes bind all files alike. Format 1 binds no context: with Format 1, the policy
        must set ``unbound_format_1``.
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
    :ivar vault: opens and seals files with the same settings outside of a request:
        :class:`securefs.middleware.Vault`.
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
        context: Callable[[Environ], bytes] | bytes | None = None,
        authorize: Callable[[Environ], str | None] | None = None,
        inspect: Inspector | None = None,
        on_refusal: Renderer | None = None,
        on_event: Callable[[Entry], object] | None = None,
    ) -> None:
        _check_app(app)
        functions: dict[str, object] = {"authorize": authorize, "inspect": inspect, "on_refusal": on_refusal}
        if not isinstance(context, bytes):
            functions["context"] = context
        for name, function in functions.items():
            if function is not None:
                require_function(name, function, "a function")
        means = Means.of(stores, keyring, journal, policy, on_event)
        # A key that can't seal is detected now, not at the first upload; so is a ring without a key
        # that opens Format 1.
        means.new_files.check()
        if means.policy.format_1_paths:
            means.keyring.format_1_verifier()
        if context:
            check_bound(means.policy, "SecureFS(context=…)")
        self.vault = Vault.of(means, PER_REQUEST if callable(context) else context)
        self._app = app
        self._settings = Settings(
            means.keyring,
            means.journal,
            means.policy,
            means.new_files,
            means.places,
            WaitingRoom(means.policy.max_waiting),
            _asking(context),
            authorize,
            inspect,
            on_refusal,
            on_event,
            self.vault,
            TrustedProxies(means.policy.trusted_proxies),
        )
        means.announce(UNDECLARED)

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


def _asking(context: Callable[[Environ], bytes] | bytes | None) -> Callable[[Environ], bytes] | None:
    """Return what asks a request for its context, None if files are bound to none."""
    return (lambda _: context) if context and isinstance(context, bytes) else context or None
