"""Keeps the memory of a process to itself, as far as the platform lets it.

Guarantees: no core dump, on every platform. On Linux other processes of the same user can't read
the memory either (ptrace, /proc), and, if the limits allow it, memory is never written to swap. It
tells what it could not do. Root reads any memory: nothing here is against root.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from typing import Final

__all__ = ["confine"]

_PR_SET_DUMPABLE: Final = 4  # prctl(2)
_MCL_ALL: Final = 1 | 2 | 4  # mlockall(2): current and future pages, each when it is first used


def confine() -> list[str]:
    """Confine this process; return what was not possible, in words."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":  # pragma: no cover
        return ["memory can be read by other processes of this user, and swapped out: this is not Linux"]
    library = ctypes.CDLL(None, use_errno=True)
    missing = []
    if library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):  # pragma: no cover  # no kernel refuses that
        missing.append("other processes of this user can read the memory")
    if not (_may_lock() and library.mlockall(_MCL_ALL) == 0):
        missing.append("memory may be swapped out: raise the limit on locked memory (LimitMEMLOCK=infinity)")
    return missing


def _may_lock() -> bool:
    """Return whether all memory may be locked: a limit would fail a later allocation."""
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    if hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    return hard == resource.RLIM_INFINITY or os.geteuid() == 0
