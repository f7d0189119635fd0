"""Chooses the implementation of the primitives: OpenSSL if installed, else PyCryptodome."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from securefs.primitives import PyCryptodome

if TYPE_CHECKING:
    from securefs.primitives import Primitives

__all__ = ["default_primitives"]


@cache
def default_primitives() -> Primitives:
    """Return the fastest installed implementation. All write and read the same bytes."""
    try:
        # Optional: the import itself tells whether it is installed.
        from securefs.accelerated import OpenSSL  # noqa: PLC0415
    except ImportError:
        return PyCryptodome()
    return OpenSSL()
