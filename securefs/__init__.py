"""securefs encrypts what your users upload, and verifies it before anyone sees it again.

Around a web app::

    from securefs.middleware import SecureFS
    app = SecureFS(app)                      # FILE_KEY_BASE64 holds the key

With files and streams::

    from securefs import Encryptor, Keyring, decrypt_file, encrypt_file, open_encrypted, rewrap, verify

Keys are 32 random bytes that live in the environment, never in code. Every file has a key of its
own, wrapped under the file key, so keys rotate without touching contents. What was changed by one
bit is refused: verification raises and nothing that failed it is returned. A file that one release
wrote, every later release reads.

The formats are specified in docs/format.md; what is defended against, and what is not, in
SECURITY.md.
"""

from securefs._version import __version__
from securefs.errors import (
    ConfigurationError,
    FormatError,
    IntegrityError,
    JournalError,
    LimitExceededError,
    Reason,
    SecureFSError,
    SourceError,
    UnknownKeyError,
)
from securefs.files import FileInfo, decrypt_file, encrypt_file, verify
from securefs.header import PREAMBLE_SIZE, claimed_object_id
from securefs.keys import Keyring
from securefs.reader import EncryptedFile, open_encrypted
from securefs.rotation import Rewrapped, rewrap
from securefs.stream import Decryptor, Encryptor
from securefs.suites import Suite

__all__ = [
    "PREAMBLE_SIZE",
    "ConfigurationError",
    "Decryptor",
    "EncryptedFile",
    "Encryptor",
    "FileInfo",
    "FormatError",
    "IntegrityError",
    "JournalError",
    "Keyring",
    "LimitExceededError",
    "Reason",
    "Rewrapped",
    "SecureFSError",
    "SourceError",
    "Suite",
    "UnknownKeyError",
    "__version__",
    "claimed_object_id",
    "decrypt_file",
    "encrypt_file",
    "open_encrypted",
    "rewrap",
    "verify",
]
