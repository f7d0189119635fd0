"""Which implementation of the primitives runs: OpenSSL where it is installed, PyCryptodome everywhere else."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from securefs.primitives import PyCryptodome

if TYPE_CHECKING:
    from securefs.primitives import Primitives

__all__ = ["default_primitives"]


@cache
def default_primitives() -> Primitives:
    """Return the fastest implementation that is installed. Both write and read the same bytes."""
    try:
        from securefs.accelerated import OpenSSL  # noqa: PLC0415  # optional: its import is the test for it
    except ImportError:
        return PyCryptodome()
    return OpenSSL()
