"""``securefs check``: whether an app can start and serve with these settings, one line for each.

It makes nothing that a start would make, and writes nothing to the journal. With
``SECUREFS_DATA_DIR`` it also asks what the reference app's ``/readyz`` asks: whether the keys are
those of the data folder, and whether a file could be stored.
"""

from __future__ import annotations

import os
import platform
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs._version import __version__
from securefs.app.database import DATA_VARIABLE, DATABASE_NAME, data_directory
from securefs.app.keycheck import KEY_CHECK_NAME, KeyCheck
from securefs.app.storage import Storage
from securefs.audit import Journal
from securefs.audit.folder import prepare_folder
from securefs.cli.service import refuse_root
from securefs.cli.terminal import DONE, FINDING, say, say_json
from securefs.disk import explain
from securefs.errors import ConfigurationError, SecureFSError
from securefs.keys import Keyring
from securefs.middleware import Policy
from securefs.middleware.places import Places

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

__all__ = ["run"]

ALIKE: Final = 0.85  # of 1: how alike two names are if one of them is a slip of the other
JOURNAL_VARIABLE: Final = "SECUREFS_AUDIT_DIR"
# All that is read from the environment, but for the `_FILE` forms of keys.
VARIABLES: Final = (
    "FILE_KEY_BASE64",
    "FILE_KEY_BASE64_PREVIOUS",
    "SECUREFS_AUDIT_DIR",
    "SECUREFS_AUDIT_LOG",
    "SECUREFS_AUDIT_NAMES",
    "SECUREFS_AUDIT_NAMES_KEY",
    "SECUREFS_AUDIT_SEAL",
    "SECUREFS_AUDIT_SYNC",
    "SECUREFS_BIND",
    "SECUREFS_CHUNKED_UPLOADS",
    "SECUREFS_CIPHERTEXT_UPLOADS",
    "SECUREFS_DATA_DIR",
    "SECUREFS_FILE_FIELDS",
    "SECUREFS_FORMAT",
    "SECUREFS_FORMAT_1_PATHS",
    "SECUREFS_KEEP_PATHS",
    "SECUREFS_MAX_WAITING",
    "SECUREFS_METRICS",
    "SECUREFS_OTHER_BODIES",
    "SECUREFS_PLAIN_FIELDS",
    "SECUREFS_PLAIN_UPLOADS",
    "SECUREFS_PROTECTED_PATHS",
    "SECUREFS_RAW_UPLOADS",
    "SECUREFS_STORES",
    "SECUREFS_SUITE",
    "SECUREFS_TRUSTED_PROXIES",
    "SECUREFS_UNBOUND_FORMAT_1",
    "SECUREFS_UPLOAD_PATHS",
)
PACKAGES: Final = ("pycryptodome", "cryptography", "werkzeug", "gunicorn")


def run(arguments: argparse.Namespace) -> int:
    """Look at each setting; end with 1 if one of them can't be used."""
    given = {} if arguments.data_dir is None else {DATA_VARIABLE: arguments.data_dir}
    environ = {**os.environ, **given}
    found = [(name, *_asked(check, environ)) for name, check in _CHECKS.items()]
    failed = [name for name, fine, _ in found if not fine]
    if arguments.json:
        say_json({"checks": [{"name": n, "ok": fine, "message": text} for n, fine, text in found]})
    else:
        for name, fine, text in found:
            say(f"{'ok' if fine else 'FAILED':<8}{name}: {text}")
    return FINDING if failed else DONE


def _asked(check: Callable[[Mapping[str, str]], str], environ: Mapping[str, str]) -> tuple[bool, str]:
    try:
        return True, check(environ)
    except SecureFSError as error:
        return False, str(error)
    except OSError as error:
        return False, explain(error)


def _versions(_environ: Mapping[str, str]) -> str:
    texts = [f"securefs {__version__}", f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            texts.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:  # noqa: PERF203  # of each package
            texts.append(f"{package} not installed")
    return ", ".join(texts)


def _variables(environ: Mapping[str, str]) -> str:
    """Find a misspelled name: nothing else notices that its setting is not in force."""
    known = {*VARIABLES, *(f"{name}_FILE" for name in VARIABLES if name.startswith("FILE_KEY_"))}
    others = sorted(
        name for name in environ if name.startswith(("SECUREFS_", "FILE_KEY_")) and name not in known
    )
    for name in others:
        if close := get_close_matches(name, known, 1, ALIKE):
            raise ConfigurationError(f"{name} is not read by securefs: is {close[0]} meant?")
    used = ", ".join(sorted(known & environ.keys()))
    return f"{used} set" + (f"; not read: {', '.join(others)}" if others else "")


def _keys(environ: Mapping[str, str]) -> str:
    keyring = Keyring.from_env(environ)
    keyring.wrapper()
    primary, *previous = (key.hex() for key in keyring.key_ids)
    text = f"; previous keys: {', '.join(previous)}" if previous else ""
    return f"new files are sealed under key {primary}{text}"


def _places(environ: Mapping[str, str]) -> str:
    policy = Policy.from_env(environ)
    if Places(policy).declared:
        return f"declared: {', '.join([*policy.stores, *policy.protected_paths])}"
    if environ.get(DATA_VARIABLE):
        return "the reference app declares its own"
    return "none in the environment: does your app declare its own, with SecureFS(app, stores=[…])?"


def _journal(environ: Mapping[str, str]) -> str:
    folder = environ.get(JOURNAL_VARIABLE, "").strip()
    # The settings alone: with its folder, the journal would make a key there.
    Journal.from_env({name: text for name, text in environ.items() if name != JOURNAL_VARIABLE or not folder})
    if not folder:
        return f"lines on standard error, because {JOURNAL_VARIABLE} is not set"
    refuse_root(JOURNAL_VARIABLE, folder)
    if not Path(folder).exists():
        return _to_be_made(JOURNAL_VARIABLE, Path(folder))
    try:
        path = prepare_folder(folder)
    except ConfigurationError as error:
        raise ConfigurationError(f"{JOURNAL_VARIABLE}: {error}") from None
    _check_writable(JOURNAL_VARIABLE, path)
    return f"{folder} is private and can be written"


def _data(environ: Mapping[str, str]) -> str:
    folder = environ.get(DATA_VARIABLE)
    if not folder:
        return f"{DATA_VARIABLE} is not set, so this is not the reference app"
    refuse_root(DATA_VARIABLE, folder)
    if not Path(folder).exists():
        return _to_be_made(DATA_VARIABLE, Path(folder))
    directory = data_directory(environ)
    database = directory / DATABASE_NAME
    if not database.exists():
        _check_writable(DATA_VARIABLE, directory)
        return f"{directory} holds no files yet"
    storage = Storage(directory, database)
    storage.check()
    if not os.path.lexists(directory / KEY_CHECK_NAME):
        return f"files can be stored in {directory}; the next start makes {KEY_CHECK_NAME}"
    KeyCheck(directory, Keyring.from_env(environ)).check()
    return f"files can be stored in {directory}, and the keys are those of its files"


def _to_be_made(variable: str, path: Path) -> str:
    _check_writable(variable, path.absolute().parent)
    return f"{path} is missing; the app makes it when it starts"


def _check_writable(variable: str, path: Path) -> None:
    """Raise :class:`ConfigurationError` if this user can't make files in a folder."""
    if not os.access(path, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        trouble = "cannot be written by this user" if path.exists() else "does not exist"
        raise ConfigurationError(f"{variable}: {path} {trouble}")


_CHECKS: Final = {
    "versions": _versions,
    "variables": _variables,
    "keys": _keys,
    "places": _places,
    "journal": _journal,
    "data": _data,
}
