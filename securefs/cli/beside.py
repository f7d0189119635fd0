"""The sealer beside a server: started with it, started again if it dies, ended after it.

Three processes: the server, :func:`supervise`, and ``securefs audit seal``, which alone has keys.
The server holds the only writing end of a pipe that is the standard input of the two others. They
end when it ends: after the server and the last of its workers, which inherit it, so the last record
is sealed, too. No signal to the server's terminal or group reaches them. That the sealer died is
told on standard error; the server does not notice.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess  # nosec B404  # our own programs, without a shell
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.audit.log_folder import LogFolder, default_log
from securefs.cli.terminal import complain
from securefs.errors import ConfigurationError, SecureFSError
from securefs.keys import PRIMARY_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["SEAL_VARIABLE", "Beside", "start", "supervise"]

SEAL_VARIABLE: Final = "SECUREFS_AUDIT_SEAL"
FIRST_WAIT: Final = 1.0  # seconds until a sealer that died is started again
LAST_WAIT: Final = 60.0  # seconds, after it died again and again
LONG: Final = 60.0  # seconds; one that lived longer died for another reason
HELD_WAIT: Final = 1.0  # seconds until it is looked again whether another sealer is gone
PATIENCE: Final = 20.0  # seconds that a server waits for the last seal
_STDIN: Final = 0  # descriptors
_STDERR: Final = 2


def start(
    environ: Mapping[str, str], warn: Callable[[str], None], *, user: int | None = None
) -> Beside | None:
    """Start a sealer for the journal of SECUREFS_AUDIT_DIR; return None if there is none to start.

    :param warn: is called with a sentence if the journal stays unsealed against the default.
    :param user: the id of the user that the server's workers become, if this is root.
    :raises ConfigurationError: SECUREFS_AUDIT_SEAL is neither ``on`` nor ``off``.
    """
    wanted = environ.get(SEAL_VARIABLE, "on")
    if wanted not in {"on", "off"}:
        raise ConfigurationError(f"{SEAL_VARIABLE} is {wanted!a}: it must be on or off")
    journal = environ.get("SECUREFS_AUDIT_DIR")
    if wanted == "off" or not journal:
        return None
    if find_spec("cryptography") is None:
        warn(
            "the audit journal is not sealed: run pip install 'securefs[fast]', "
            f"or say with {SEAL_VARIABLE}=off that this is intended"
        )
        return None
    return Beside(journal, environ, user if os.geteuid() == 0 else None)


class Beside:
    """A supervised sealer that runs for as long as this process, or until :meth:`stop`."""

    def __init__(self, journal: str, environ: Mapping[str, str], user: int | None) -> None:
        reading, self._writing = os.pipe()
        try:
            # This interpreter, without a shell.
            self._process = subprocess.Popen(  # noqa: S603  # nosec B603
                [sys.executable, "-m", "securefs.cli.beside", journal],
                stdin=reading,
                # The sealer needs no key of files.
                env={name: value for name, value in environ.items() if not name.startswith(PRIMARY_VARIABLE)},
                start_new_session=True,
                user=user,
            )
        finally:
            os.close(reading)

    def stop(self) -> bool:
        """Let it seal what is there, and end; return whether it did, in :data:`PATIENCE` seconds.

        While another process holds the pipe, such as a worker that still runs, it does not end.
        """
        os.close(self._writing)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        return self._process.returncode is not None


def supervise(journal: str, *, first_wait: float = FIRST_WAIT) -> None:
    """Run ``securefs audit seal``, again and again until standard input ends.

    A log that is missing is begun, and the key to pin told on standard error. While another sealer
    holds the log, it waits for that to end.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    log = os.environ.get("SECUREFS_AUDIT_LOG") or str(default_log(Path(journal)))
    wait = first_wait
    while True:
        begun = time.monotonic()
        if not Path(log, "origin").exists():
            _run("init", journal, stdout=_STDERR)
        if _is_held(log):
            # Another server's, or that of the server that this one takes over from.
            if _input_ends(HELD_WAIT):
                return
            continue
        code = _run("seal", journal, "--stdin", stdout=subprocess.DEVNULL)
        if _input_ends(0):
            return
        if time.monotonic() - begun > LONG:
            wait = first_wait
        complain(f"NOT SEALING: the sealer of {journal} {_words(code)}; it is started again in {wait:g} s")
        if _input_ends(wait):
            return
        wait = min(2 * wait, LAST_WAIT)


def _is_held(log: str) -> bool:
    with contextlib.suppress(SecureFSError, OSError):
        return LogFolder(Path(log)).is_held()
    return False  # the sealer will say what is wrong


def _run(action: str, *arguments: str, stdout: int) -> int:
    command = [sys.executable, "-m", "securefs", "audit", action, *arguments]
    return subprocess.run(command, stdout=stdout, check=False).returncode  # noqa: S603  # nosec B603


def _input_ends(seconds: float) -> bool:
    """Return whether standard input ends within ``seconds``. Nobody writes to it."""
    poll = select.poll()
    poll.register(_STDIN, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _words(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


if __name__ == "__main__":
    supervise(sys.argv[1])
