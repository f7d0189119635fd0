"""What files are sealed and opened with, and where that is recorded.

:class:`SecureFS` and :class:`Vault` share it, so that a worker opens what a request stored. An
unusable setting is an error at start: there is no fallback to plaintext.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from securefs.arguments import require, require_function, require_items
from securefs.audit import Journal
from securefs.errors import ConfigurationError
from securefs.keys import Keyring
from securefs.middleware.places import Places
from securefs.middleware.policy import Policy
from securefs.middleware.refusal import log
from securefs.sealer import NewFiles
from securefs.secrecy import HoldsSecrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from securefs.audit import Entry

__all__ = ["Means", "check_bound"]


@dataclass(frozen=True, slots=True)
class Means(HoldsSecrets):
    """Keys, journal, and what the policy says of files."""

    keyring: Keyring
    journal: Journal
    policy: Policy
    places: Places
    new_files: NewFiles
    on_event: Callable[[Entry], object] | None

    @classmethod
    def of(
        cls,
        stores: Iterable[str | os.PathLike[str]] | None,
        keyring: Keyring | None,
        journal: Journal | None,
        policy: Policy | None,
        on_event: Callable[[Entry], object] | None,
    ) -> Means:
        """Return them as they are given; what is None comes from the environment.

        :raises ConfigurationError: one of them is unusable.
        """
        if on_event is not None:
            require_function("on_event", on_event, "a function")
        keyring = Keyring.from_env() if keyring is None else keyring
        journal = Journal.from_env() if journal is None else journal
        policy = Policy.from_env() if policy is None else policy
        require("keyring", keyring, Keyring, "a Keyring")
        require("journal", journal, Journal, "a Journal")
        require("policy", policy, Policy, "a Policy")
        if stores is not None:
            policy = replace(policy, stores=_folders(stores))
        new_files = NewFiles(keyring, policy.format, policy.suite)
        return cls(keyring, journal, policy, Places(policy), new_files, on_event)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Means:
        """Return what the environment describes."""
        return cls.of(
            None, Keyring.from_env(environ), Journal.from_env(environ), Policy.from_env(environ), None
        )

    @property
    def reads_format_1(self) -> bool:
        """Whether stored files may be in Format 1."""
        return self.policy.format == 1 or bool(self.policy.format_1_paths)

    def announce(self, warning: str) -> None:
        """Log ``warning`` if nothing is declared, and have the journal say which of both it is."""
        if not self.places.declared:
            log.warning(warning)
        self.journal.describe(places="declared" if self.places.declared else "undeclared")


def _folders(stores: Iterable[str | os.PathLike[str]]) -> tuple[str, ...]:
    require_items("stores", stores, 'a list of folders such as ["uploads"]')
    paths = tuple(stores)
    for path in paths:
        require("a store", path, (str, os.PathLike), "the path of a folder")
    return tuple(os.fspath(path) for path in paths)


def check_bound(policy: Policy, what: str) -> None:
    """Refuse a context together with Format 1, which would ignore it.

    Otherwise one tenant's file would open for every other.

    :param what: the argument that gives the context, as in "SecureFS(context=…)".
    """
    if policy.unbound_format_1 or (policy.format != 1 and not policy.format_1_paths):
        return
    setting = (
        "format (SECUREFS_FORMAT) is 1"
        if policy.format == 1
        else "format_1_paths (SECUREFS_FORMAT_1_PATHS) is set"
    )
    raise ConfigurationError(
        f"{what} binds files, and Policy.{setting}: a Format 1 file is bound to nothing and opens under every context. "
        "Leave out one of them, or say Policy(unbound_format_1=True) (SECUREFS_UNBOUND_FORMAT_1=1)"
    )
