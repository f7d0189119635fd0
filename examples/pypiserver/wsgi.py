"""pypiserver, a package index: what twine uploads is stored encrypted, what pip downloads is verified, then decrypted."""
# ruff: noqa: INP001  # gunicorn --chdir imports this file by its name; it is no part of a package

import hmac
import os

import pypiserver

from securefs import ConfigurationError
from securefs.middleware import SecureFS

PACKAGES = os.environ.get("PYPI_PACKAGES", "")
PASSWORD = os.environ.get("PYPI_PASSWORD", "").encode()
if not PACKAGES or not PASSWORD:
    raise ConfigurationError("set PYPI_PACKAGES to a folder and PYPI_PASSWORD to what twine must send")

app = pypiserver.app(
    roots=[PACKAGES],
    # Its hashes would be those of the ciphertext, and pip refuses a download that does not match.
    hash_algo=None,
    # Otherwise a package that is missing here is looked for in a public index, under a name that
    # anyone may take.
    disable_fallback=True,
    authenticate=["update"],
    auther=lambda _user, password: hmac.compare_digest(password.encode(), PASSWORD),
)
app = SecureFS(app, stores=[PACKAGES])
