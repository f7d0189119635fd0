"""``securefs demo``: serve the reference app on this machine with one command.

Everything is in one private folder: a file key, a token, the app's data, the journal. A second
start reuses what the first one created. The token is kept there in clear, as a header line for
curl, so that it can be shown again. This is for a demo only: the app itself stores no token. The
server listens on 127.0.0.1 only. This process becomes the server, so Ctrl-C reaches it directly.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import socket
import stat
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from securefs.app.database import DATA_VARIABLE, data_directory, open_database
from securefs.app.tokens import Tokens
from securefs.audit.log_folder import LogFolder, default_log
from securefs.audit.signing import SigningKey
from securefs.cli.terminal import DONE, flush_output, say
from securefs.disk import explain, make_private_folder, write_atomically
from securefs.errors import ConfigurationError
from securefs.keys import PRIMARY_VARIABLE, generate_key

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

__all__ = ["Demo", "banner", "default_folder", "listen", "prepare", "run", "server_command"]

ADDRESS: Final = "127.0.0.1"
PRINCIPAL: Final = "demo"
BACKLOG: Final = 256  # connections
NEEDED: Final = ("gunicorn", "werkzeug")
_HEADER: Final = "Authorization: Bearer "
# Variables of the caller's environment that configure another installation are removed.
_OURS: Final = ("SECUREFS_", PRIMARY_VARIABLE, "GUNICORN_", "WEB_CONCURRENCY")


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo folder that is ready to be served."""

    folder: Path

    @property
    def key_file(self) -> Path:
        """The file key, in base64."""
        return self.folder / "file.key"

    @property
    def header_file(self) -> Path:
        """A header line for ``curl -H @…``, so no command line or shell history has the token."""
        return self.folder / "authorization"

    @property
    def data(self) -> Path:
        """The app's ``SECUREFS_DATA_DIR``."""
        return self.folder / "data"

    @property
    def journal(self) -> Path:
        """The app's ``SECUREFS_AUDIT_DIR``."""
        return self.folder / "journal"

    @property
    def vkey_file(self) -> Path:
        """The verification key of the journal's log, to pin: outside of the journal."""
        return self.folder / "journal.vkey"

    @property
    def token(self) -> str:
        """The demo user's token."""
        return self.header_file.read_text("ascii", "replace").strip().removeprefix(_HEADER)


def default_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the default folder of the demo (XDG base directories; relative paths are ignored)."""
    state = environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(state):  # noqa: PTH117  # a question about the text
        return Path(state, "securefs-demo")
    try:
        return Path.home() / ".local" / "state" / "securefs-demo"
    except RuntimeError:
        raise ConfigurationError("there is no home folder: name one with --dir") from None


def prepare(folder: Path) -> Demo:
    """Return the demo folder; create the folder, its key and its token if they are missing.

    :raises ConfigurationError: the server extra is not installed, or the folder is accessible to
        other users.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigurationError(f"{' and '.join(missing)} not installed: run pip install 'securefs[server]'")
    demo = Demo(folder.absolute())
    folder.parent.mkdir(parents=True, exist_ok=True)
    for path in (demo.folder, demo.data, demo.journal):
        make_private_folder(path)
    if demo.folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            f"other users can access {demo.folder}: run chmod 700 on it, or name another with --dir"
        )
    if not demo.key_file.exists():
        _write(demo.key_file, generate_key())
    _prepare_token(demo)
    _prepare_log(demo)
    return demo


def _prepare_log(demo: Demo) -> None:
    """Begin the log of the journal at the first start, unless the library for it is missing."""
    path = default_log(demo.journal)
    if find_spec("cryptography") is not None and not (path / "origin").exists():
        log = LogFolder.begin(path, f"{ADDRESS}/securefs-demo-{token_hex(4)}", SigningKey(), None)
        _write(demo.vkey_file, log.vkey())


def _prepare_token(demo: Demo) -> None:
    tokens = Tokens(open_database(data_directory({DATA_VARIABLE: str(demo.data)})))
    if demo.header_file.exists() and tokens.authenticate(demo.token) is not None:
        return
    # The token is missing or revoked, or the data folder was deleted: tokens of an earlier start
    # are useless.
    tokens.revoke(PRINCIPAL)
    _write(demo.header_file, _HEADER + tokens.issue(PRINCIPAL).secret)


def _write(path: Path, text: str) -> None:
    with write_atomically(path, overwrite=True) as file:
        file.write(text.encode("ascii") + b"\n")


def listen(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1; with port 0 the system chooses the port.

    :raises ConfigurationError: the port is in use or not allowed, in one line that names it.
    """
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # As gunicorn does: a port whose last connections are still closing may be taken again.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((ADDRESS, port))
        server.listen(BACKLOG)
    except OSError as error:
        server.close()
        trouble = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {explain(error)}"
        raise ConfigurationError(
            f"port {port} of {ADDRESS} {trouble}: choose another one with --port"
        ) from None
    return server


def banner(demo: Demo, port: int) -> str:
    """Return the text for the user: address, token, and lines to paste into a terminal."""
    address = f"http://{ADDRESS}:{port}"
    curl = f"curl -sS -H @{shlex.quote(str(demo.header_file))}"
    # After `make demo` the program is in .venv/bin only.
    found = shutil.which("securefs") or Path(sys.executable).with_name("securefs")
    program = shlex.quote(str(found))
    # Without the key, the verifier can only say that the journal is consistent.
    pin = f" --pin {shlex.quote(str(demo.vkey_file))}" if demo.vkey_file.exists() else ""
    newest = f"\"{address}$({curl} {address}/files | grep -o '/files/[0-9a-f]*' | head -n 1)\""
    return f"""
  securefs demo: open {address} in a browser

  token      {demo.token}
             (kept in {demo.folder}, so that it can be shown again; for this demo only)

  Or paste into another terminal:

  upload     {curl} -F files=@/etc/hostname {address}/files
  list       {curl} {address}/files
  download   {curl} -OJ {newest}
  evidence   {program} audit verify {shlex.quote(str(demo.journal))}{pin}

  Ctrl-C ends it. The files, encrypted, stay in {demo.data / "files"}
"""


def server_command(
    demo: Demo, descriptor: int, environ: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Return (command, environment) of the server that takes over the listening socket."""
    config = Path(__file__).parent.with_name("gunicorn.conf.py")
    command = [sys.executable, "-m", "gunicorn", "--config", str(config), "--bind", f"fd://{descriptor}"]
    ours = {
        f"{PRIMARY_VARIABLE}_FILE": str(demo.key_file),
        DATA_VARIABLE: str(demo.data),
        "SECUREFS_AUDIT_DIR": str(demo.journal),
    }
    kept = {name: value for name, value in environ.items() if not name.startswith(_OURS)}
    # About one Ctrl-C in seventy meets a worker of gunicorn 27 between two requests, where it waits
    # for itself until it is killed: soon.
    return [*command, "--log-level", "warning", "--graceful-timeout", "3"], kept | ours


def run(arguments: argparse.Namespace) -> int:
    """Prepare the demo, print where it is, and become the server. Never return normally."""
    demo = prepare(default_folder() if arguments.dir is None else Path(arguments.dir))
    with listen(arguments.port) as server:
        command, environ = server_command(demo, server.fileno(), os.environ)
        from securefs.app import create_app  # noqa: PLC0415  # `prepare` found that it is installed

        create_app(environ)  # what the app refuses is told before an address is
        for line in banner(demo, server.getsockname()[1]).splitlines():
            say(line)
        flush_output()
        server.set_inheritable(True)
        # It is this interpreter, without a shell, and without input from a user.
        os.execve(command[0], command, environ)  # noqa: S606  # nosec B606
    return DONE  # pragma: no cover  # this process is the server by now
