"""What a request costs that is neither an upload nor a download, without a server around it: microseconds."""

from __future__ import annotations

import io
import os
import statistics
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from securefs import Keyring
from securefs.audit import Journal
from securefs.middleware import SecureFS

from . import apps
from .measure import Row, Table
from .serve import BARE

if TYPE_CHECKING:
    from collections.abc import Callable

WRAPPED = "securefs"


def _environ() -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


def _microseconds(app: Callable[..., Any]) -> float:
    environ = _environ()
    start = time.perf_counter()
    result = app(environ, lambda status, headers, exc_info=None: None)
    for _ in result:
        pass
    if hasattr(result, "close"):
        result.close()
    return (time.perf_counter() - start) * 1e6


def table(turns: int, count: int) -> Table:
    """Compare the median request of each turn, one request of each app after the other."""
    with tempfile.TemporaryDirectory() as folder:
        bare = apps.make("Werkzeug", "bare", folder)
        wrapped = SecureFS(bare, keyring=Keyring(os.urandom(32)), journal=Journal(f"{folder}/journal"))
        contenders = {BARE: bare, WRAPPED: wrapped}
        rows = [Row(name) for name in contenders]
        for turn in range(turns + 1):
            times = {name: [] for name in contenders}
            for _ in range(count):
                for name, app in contenders.items():
                    times[name].append(_microseconds(app))
            for row in rows if turn else ():  # the first is to warm up
                row.values.append(statistics.median(times[row.name]))
    return Table(f"A page, median ({turns} turns of {count})", "µs", rows, base=BARE, digits=1)
