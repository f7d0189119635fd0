"""Keys: they decide who can seal and open files.

The rest of securefs gets a :class:`Keyring`. Key bytes never leave this package:
:mod:`securefs.keys.material` holds them, :mod:`securefs.keys.environment` reads them, and
:mod:`securefs.keys.slots` wraps with them.
"""

from securefs.keys.environment import MAX_KEY_FILE, PREVIOUS_VARIABLE, PRIMARY_VARIABLE, generate_key
from securefs.keys.keyring import Keyring
from securefs.keys.material import KEY_ID_SIZE, key_id
from securefs.keys.slots import FileKey, Unwrapper, Wrapper
from securefs.primitives import KEY_SIZE

__all__ = [
    "KEY_ID_SIZE",
    "KEY_SIZE",
    "MAX_KEY_FILE",
    "PREVIOUS_VARIABLE",
    "PRIMARY_VARIABLE",
    "FileKey",
    "Keyring",
    "Unwrapper",
    "Wrapper",
    "generate_key",
    "key_id",
]
