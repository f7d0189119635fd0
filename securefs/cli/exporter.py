"""The metrics endpoint beside a server: a process of its own that ends after it.

The server's master makes a private folder in which its workers count, and starts
``securefs metrics``. It holds the writing end of a pipe that is the standard input of that process,
which ends when the master and the last of its workers, which inherit it, have ended. If it dies,
the server goes on; Prometheus notices (``up == 0``).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import subprocess  # nosec B404  # our own program, without a shell
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.cli.loopback import METRICS_VARIABLE, parse_address
from securefs.errors import ConfigurationError
from securefs.keys import PRIMARY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["Exporter", "prepare"]

PATIENCE: Final = 5.0  # seconds that a server waits for the endpoint to end
_ROOT: Final = 0  # user id


def prepare(environ: MutableMapping[str, str], *, user: int, group: int) -> Exporter | None:
    """Make the folder of the counters, and name it to the workers; return None without metrics.

    Call it before prometheus-client is imported: it looks for the folder then.

    :param user, group: the ids that the server's workers get.
    :raises ConfigurationError: SECUREFS_METRICS can't be used.
    """
    text = environ.get(METRICS_VARIABLE)
    if text is None:
        return None
    parse_address(text)
    if find_spec("prometheus_client") is None:
        raise ConfigurationError(
            f"{METRICS_VARIABLE}: prometheus-client is not installed: run pip install 'securefs[metrics]'"
        )
    folder = Path(tempfile.mkdtemp(prefix="securefs-metrics-"))
    os.chown(folder, user, group)
    environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    exporter = Exporter(folder, dict(environ), user, group)
    # Also of a server that fails to start.
    atexit.register(exporter.remove)
    return exporter


class Exporter:
    """The endpoint of the server that this process is.

    :param folder: in which its workers count; removed at the end.
    """

    def __init__(self, folder: Path, environ: dict[str, str], user: int, group: int) -> None:
        self.folder = folder
        # The endpoint needs no key of files.
        self._environ = {
            name: value for name, value in environ.items() if not name.startswith(PRIMARY_VARIABLE)
        }
        self._ids = (user, group) if os.geteuid() == _ROOT else (None, None)
        self._owner = os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._writing: int | None = None

    def start(self) -> None:
        """Start the endpoint."""
        reading, self._writing = os.pipe()
        user, group = self._ids
        try:
            # This interpreter, without a shell.
            self._process = subprocess.Popen(  # nosec B603
                [sys.executable, "-m", "securefs", "metrics", "--stdin"],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                env=self._environ,
                # No signal to the server's terminal reaches it.
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
            )
        finally:
            os.close(reading)

    def ended(self, pid: int) -> None:
        """Note that a worker ended."""
        from securefs.cli.counters import mark_ended  # noqa: PLC0415  # it needs prometheus-client

        mark_ended(self.folder, pid)

    def stop(self) -> None:
        """Let the endpoint end, and remove the folder."""
        if self._writing is not None:
            os.close(self._writing)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE)
        self.remove()

    def remove(self) -> None:
        """Remove the folder; nothing in a worker, which inherits this object."""
        if os.getpid() == self._owner:
            shutil.rmtree(self.folder, ignore_errors=True)
