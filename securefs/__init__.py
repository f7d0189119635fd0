"""securefs encrypts what your users upload, and verifies it before anyone sees it again.

Around a web app::

    from securefs.middleware import SecureFS
    app = SecureFS(app, stores=["uploads"])  # FILE_KEY_BASE64 holds the key

With files and streams::

    from securefs import Encryptor, Keyring, decrypt_file, encrypt_file
    from securefs import open_encrypted, rewrap, verify

A key is 32 random bytes and lives in the environment, never in code. Each file has a data
encryption key of its own, wrapped under the file key, so that keys rotate without touching
contents. A file in which one bit was changed is refused: verification raises, and no byte that
failed it is returned. Every later release reads the files that an earlier release wrote.

docs/format.md specifies the formats. SECURITY.md says what is defended against and what is not.
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
