"""What the tests of the command line share: keys, files in the working folder, and what a command said."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

from securefs import Keyring, encrypt_file
from support.servers import python_environ

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err.decode()

    @property
    def line(self):
        """The one line on standard error."""
        assert self.err.startswith("securefs: "), self.err
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1
        assert "Traceback" not in self.err
        return self.err.removeprefix("securefs: ").rstrip("\n")


def sealed(content=b"the content", name="a.txt.enc", **options):
    Path("plain").write_bytes(content)
    encrypt_file("plain", name, Keyring(options.pop("key", KEY)), **options)
    Path("plain").unlink()
    return Path(name)


def names():
    return sorted(path.name for path in Path().iterdir())


def program(*arguments, key=KEY, more=None, **options):
    """Start a command in a process of its own."""
    environ = python_environ(FILE_KEY_BASE64=base64.b64encode(key).decode(), **(more or {}))
    return subprocess.Popen([sys.executable, "-m", "securefs", *arguments], env=environ, **options)
