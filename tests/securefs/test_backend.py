"""Which library runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from securefs.backend import default_primitives


def test_openssl_is_chosen_where_it_is_installed():
    assert default_primitives().name == "openssl"
    assert default_primitives() is default_primitives()


@pytest.mark.parametrize(
    "missing",
    [
        pytest.param("cryptography", id="not installed"),
        pytest.param("cryptography.cobblestone", id="too old"),
    ],
)
def test_without_the_accelerator_everything_works_on_pycryptodome(missing):
    """A minimal install, by way of an interpreter that refuses to import the library."""
    program = f"""
import sys
sys.modules[{missing!r}] = None
import io
from securefs import Encryptor, Keyring, Suite, open_encrypted
from securefs.backend import default_primitives
ring = Keyring(bytes(range(32)))
for suite in Suite:
    encryptor = Encryptor(ring, suite)
    data = encryptor.update(b"hello") + encryptor.finalize()
    assert open_encrypted(io.BytesIO(data), ring).read() == b"hello"
print(default_primitives().name)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.stdout, result.stderr) == ("pycryptodome\n", "")
