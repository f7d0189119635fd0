"""Roundup, an issue tracker: files attached to issues are stored encrypted, and verified and decrypted when they are opened."""
# ruff: noqa: INP001  # gunicorn --chdir imports this file by its name; it is no part of a package

import os
from dataclasses import replace

from roundup.cgi.wsgi_handler import RequestDispatcher

from securefs import ConfigurationError
from securefs.middleware import Policy, SecureFS

HOME = os.environ.get("TRACKER_HOME", "")
if not HOME:
    raise ConfigurationError("set TRACKER_HOME to the folder that roundup-admin install made")

app = RequestDispatcher(HOME)
# Roundup reads an attachment itself and writes its bytes, so not its folder but its paths are declared.
app = SecureFS(app, policy=replace(Policy.from_env(), protected_paths=("/file*/*",)))
