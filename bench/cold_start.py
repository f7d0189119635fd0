"""Cold start: what importing costs, and an interpreter's first request, beside Werkzeug by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from .measure import Row, Table
from .serve import KEY, ROOT

REQUEST = "from werkzeug.test import Client; Client(app).get('/')"
PROGRAMS = {
    "import werkzeug": "import werkzeug",
    "import securefs": "import securefs",
    "import securefs.middleware": "import securefs.middleware",
    "the same, without pyca cryptography": "import sys; sys.modules['cryptography'] = None; import securefs.middleware",
    "Werkzeug's test app and a first request": f"from werkzeug.testapp import test_app as app; {REQUEST}",
    "the same, behind SecureFS": (
        "from werkzeug.testapp import test_app; from securefs.middleware import SecureFS;"
        f"app = SecureFS(test_app); {REQUEST}"
    ),
}
BASE = "import werkzeug"


def run(quick: bool) -> list[Table]:
    """Return one table: milliseconds, each in an interpreter of its own."""
    turns = 3 if quick else 9
    rows = [Row(name) for name in PROGRAMS]
    with tempfile.TemporaryDirectory() as folder:
        environ = {
            **os.environ,
            "FILE_KEY_BASE64": KEY,
            "SECUREFS_AUDIT_DIR": f"{folder}/journal",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        for turn in range(turns + 1):
            for row, code in zip(rows, PROGRAMS.values(), strict=True):
                took = _milliseconds(code, environ)
                row.values += [took] if turn else []  # the first one compiles
    return [Table(f"Cold start ({turns} turns)", "ms", rows, BASE, digits=1)]


def _milliseconds(code: str, environ: dict[str, str]) -> float:
    timed = (
        "import os, time; start = time.perf_counter();"
        f"exec({code!r}); took = time.perf_counter() - start; print(took * 1000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", timed], cwd=ROOT, env=environ, check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1])
