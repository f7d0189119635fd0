"""The WSGI boundary: one line in front of any app that takes uploads.

::

    from securefs.middleware import SecureFS
    app = SecureFS(app)

What every file part of a multipart upload holds is encrypted while it streams through, so that the
app sees and stores ciphertext only; ciphertext that the app serves is verified, then decrypted. See
docs/deployment.md for the settings, SECURITY.md for what this does and does not defend against.
"""

from securefs.middleware.exchange import Exchange, Upload
from securefs.middleware.filename import attachment
from securefs.middleware.inspection import ClamAV, FileRefusedError, FileRules, ScannerError
from securefs.middleware.policy import Policy
from securefs.middleware.refusal import BodyRefusedError
from securefs.middleware.wsgi import SecureFS

__all__ = [
    "BodyRefusedError",
    "ClamAV",
    "Exchange",
    "FileRefusedError",
    "FileRules",
    "Policy",
    "ScannerError",
    "SecureFS",
    "Upload",
    "attachment",
]
