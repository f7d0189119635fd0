"""WSGI middleware: one line in front of any app that takes uploads.

::

    from securefs.middleware import SecureFS
    app = SecureFS(app, stores=["uploads"])

The content of each file part of a multipart upload is encrypted while it streams through, so the
app sees and stores ciphertext only. Ciphertext that the app serves is verified, then decrypted.
docs/deployment.md describes the settings; SECURITY.md says what is defended against and what is
not.
"""

from securefs.middleware.evidence import Upload
from securefs.middleware.exchange import Exchange
from securefs.middleware.filename import attachment
from securefs.middleware.inspection import ClamAV, FileRefusedError, FileRules, ScannerError
from securefs.middleware.made import Sealed
from securefs.middleware.policy import Policy
from securefs.middleware.refusal import BodyRefusedError, Problem
from securefs.middleware.vault import Vault
from securefs.middleware.wsgi import SecureFS

__all__ = [
    "BodyRefusedError",
    "ClamAV",
    "Exchange",
    "FileRefusedError",
    "FileRules",
    "Policy",
    "Problem",
    "ScannerError",
    "Sealed",
    "SecureFS",
    "Upload",
    "Vault",
    "attachment",
]
