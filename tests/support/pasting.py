"""Pages that tell what to type, and a terminal to paste them into: a user without privileges, in an empty home.

``pip`` reaches no index. It finds the packages of this Python, and builds and installs securefs
from a copy of this checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.journals import NOBODY
from support.servers import DEADLINE, ROOT, answers, await_start, launch, stopped

PLACEHOLDER = "/path/to/securefs"
DOCUMENTED_PORT = 8000
IGNORED = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist")
# Programs that pip would have installed beside their packages, if it had to install these.
PROGRAMS = {
    "celery": "celery",
    "django-admin": "django",
    "gunicorn": "gunicorn",
    "roundup-admin": "roundup.scripts.roundup_admin",
    "twine": "twine",
}


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. ``lead`` is the paragraph before it, and ``name`` the file that it says to save."""

    section: str
    kind: str
    text: str
    lead: str

    @property
    def name(self) -> str | None:
        found = re.search(r"`([\w./]+\.py)`:$", self.lead)
        return found[1] if found else None

    @property
    def is_server(self) -> bool:
        return self.kind == "sh" and self.lead.startswith("Run it")


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page, in their order."""
    blocks, section = [], ""
    pieces = re.split(r"^```(\w*)\n(.*?)^```\n", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for prose, kind, text in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=False):
        *_, section = [section, *re.findall(r"^## (.+)$", prose, re.MULTILINE)]
        lead = " ".join(prose.strip().rpartition("\n\n")[2].split())
        blocks.append(Block(section, kind, text, lead))
    return blocks


class Terminal:
    """Runs blocks one after another, as bash would that stays open: folder and variables are kept."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.home = folder / "home"
        self.checkout = folder / "checkout"
        self._state = folder / "state"
        self._log = folder / "log"
        programs = folder / "programs"
        shutil.copytree(ROOT, self.checkout, symlinks=True, ignore=IGNORED)
        for path in (self.home, programs, self._state):
            path.mkdir(mode=0o755)
        for name, module in PROGRAMS.items():
            (programs / name).write_text(f'#!/bin/sh\nexec python -m {module} "$@"\n')
            (programs / name).chmod(0o755)
        python = Path(sys.executable).resolve().parent
        self._environ = {
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PATH": os.pathsep.join([str(python), str(programs), "/usr/bin", "/bin"]),
            "PYTHONPATH": sysconfig.get_path("purelib"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip reads it as the option's value: no isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "NO_PROXY": "*",
        }
        self._user = unprivileged_user()
        if self._user:
            for path in (self.home, self._state, self.checkout, *self.checkout.rglob("*")):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)

    def save(self, name: str, text: str) -> None:
        """Save what a page says to save, in the folder where the user is."""
        self.run(f"mkdir -p \"$(dirname '{name}')\"; cat > '{name}' << 'END OF FILE'\n{text}END OF FILE\n")

    def run(self, text: str) -> str:
        """Run a block and return what it printed, errors included."""
        return self._bash(
            f"{self._restored(text)}\nexport -p > {self._state}/variables; pwd > {self._state}/folder"
        )

    def run_elsewhere(self, text: str, folder: str) -> str:
        """Run a block in another terminal, which knows no variable and no program of the first one."""
        return self._bash(f"cd {folder}\n{self._filled(text)}")

    def _bash(self, script: str) -> str:
        done = subprocess.run(
            [*self._user, "bash", "-c", script],
            env=self._environ,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=4 * DEADLINE,
        )
        return done.stdout

    @contextmanager
    def serving(self, text: str):
        """Run a block whose last line is a server until that answers; end it afterwards by its process id."""
        with self.running(text) as server:
            await_start(server, lambda: answers(self.port), "an answer of what the page starts")
            yield server

    @contextmanager
    def running(self, text: str):
        """Run a block whose last line goes on; end that afterwards by its process id."""
        first, _, last = text.strip().rpartition("\n")
        command = [*self._user, "bash", "-c", self._restored(f"{first}\nexec {last}")]
        server = launch(command, self._log, self._environ, self.port, cwd=self.home)
        with stopped(server):
            yield server

    def _filled(self, text: str) -> str:
        text = text.replace(PLACEHOLDER, str(self.checkout))
        return re.sub(rf"\b{DOCUMENTED_PORT}\b", str(self.port), text)

    def _restored(self, text: str) -> str:
        before = f'[ ! -e {self._state}/folder ] || {{ . {self._state}/variables; cd "$(< {self._state}/folder)"; }}'
        return f"{before}\n{self._filled(text)}"


def unprivileged_user() -> list[str]:
    """Return what goes before a command so that it runs as nobody; nothing unless this is root.

    nobody may not write anywhere but at home. Where only root can reach this Python, nobody may
    read what root can.
    """
    if os.geteuid() != 0:
        return []
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    reading = [*user, "--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]
    for command in (user, reading):
        tried = subprocess.run([*command, sys.executable, "-c", ""], capture_output=True, check=False)
        if tried.returncode == 0:
            return command
    pytest.skip("no user but root can run this Python")


@contextmanager
def terminal():
    """Yield a terminal with an empty home, and a port that is kept for its servers."""
    folder = Path(tempfile.mkdtemp())  # pytest's own folder is closed to other users
    folder.chmod(0o755)
    try:
        # Who is bound and does not listen keeps the port from others that ask for any, and not from
        # a server that asks for this one with SO_REUSEADDR, as all do.
        with socket.socket() as kept:
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            kept.bind(("127.0.0.1", 0))
            yield Terminal(folder, kept.getsockname()[1])
    finally:
        shutil.rmtree(folder)
