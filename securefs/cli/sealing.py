"""``securefs audit init`` and ``securefs audit seal``: begin the log of a journal, and seal it."""

from __future__ import annotations

import os
import secrets
import select
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from securefs.audit.confine import confine
from securefs.audit.folder import prepare_folder
from securefs.audit.log_folder import LogDamagedError, LogFolder, default_log
from securefs.audit.note import VerificationKey
from securefs.audit.sealer import Sealer
from securefs.audit.signing import SigningKey
from securefs.audit.sink import ChainBrokenError
from securefs.cli.service import refuse_root
from securefs.cli.terminal import DONE, FINDING, complain, flush_output, say
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse
    from types import FrameType

__all__ = ["init", "seal"]

EVERY: Final = 0.2  # seconds between two looks at the journal
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def init(arguments: argparse.Namespace) -> int:
    """Begin the log of a journal; print the verification key to pin."""
    path = log_path(arguments)
    refuse_root("--log", str(path))
    if arguments.log is None and "SECUREFS_AUDIT_LOG" not in os.environ:
        prepare_folder(arguments.directory)
    origin = arguments.origin or f"{os.uname().nodename or 'host'}/securefs-{secrets.token_hex(4)}"
    stable = SigningKey() if arguments.stable else None
    log = LogFolder.begin(path, origin, SigningKey(), stable)
    say(log.vkey())
    if stable is not None:
        say(str(VerificationKey(origin, stable.public)))
    complain(
        f"the log {path} was begun. Keep the line above away from this machine: whoever verifies the journal "
        "gives it to securefs audit verify --pin"
    )
    if stable is not None:
        complain(
            f"the second line is the stable key of {path / 'stable.key'}: give it to witnesses, and pin it as well"
        )
    return DONE


def seal(arguments: argparse.Namespace) -> int:
    """Seal a journal until a signal says stop, or once; return 1 if a chain was tampered with."""
    journal = Path(arguments.directory)
    if not journal.is_dir():
        raise ConfigurationError(f"there is no journal {journal}: name its folder")
    path = log_path(arguments)
    refuse_root("--log", str(path))
    missing = [] if arguments.once else confine()
    log = LogFolder(path)
    log.lock()
    try:
        with _Stop(at_end_of_input=arguments.stdin) as stop:
            sealer = Sealer(journal, log, complain)
            say(f"sealing {journal} into {path}: origin {log.origin}, {sealer.size} records in the log")
            for text in missing:
                complain(text)
            flush_output()
            while not arguments.once and not stop.wait(0 if sealer.step() else EVERY):
                pass
            sealer.stop()
    except LogDamagedError as error:
        complain(f"TAMPERING: {error}")
        return FINDING
    except ChainBrokenError as error:
        raise ConfigurationError(f"cannot write the log {path}: {error}") from None
    finally:
        log.unlock()
    say(f"sealed up to checkpoint {sealer.index - 1}: {sealer.size} records in the log")
    return FINDING if sealer.tampered else DONE


def log_path(arguments: argparse.Namespace) -> Path:
    """Return the log's folder: from ``--log``, SECUREFS_AUDIT_LOG, or inside the journal."""
    named = arguments.log or os.environ.get("SECUREFS_AUDIT_LOG")
    return Path(named) if named else default_log(Path(arguments.directory))


class _Stop:
    """Waits; until a signal, or the end of standard input, says that it is time to stop."""

    def __init__(self, *, at_end_of_input: bool) -> None:
        self._at_end_of_input = at_end_of_input
        self._asked = False

    def __enter__(self) -> _Stop:  # noqa: PYI034  # typing.Self is newer than Python 3.10
        # One that is ignored stays so: a server beside us may need us longer than a terminal.
        self._before = {
            number: signal.signal(number, self._ask)
            for number in _SIGNALS
            if signal.getsignal(number) != signal.SIG_IGN
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def wait(self, seconds: float) -> bool:
        """Return whether it is time to stop, after at most ``seconds``."""
        if self._at_end_of_input:
            poll = select.poll()
            poll.register(0, select.POLLIN)
            if poll.poll(seconds * 1000) and not os.read(0, 4096):
                return True
        elif not self._asked:
            time.sleep(seconds)
        return self._asked
