"""What is known of the tests: how long each takes, and which places of the product it runs.

A place is a function and the text of a line in it, so that what was recorded stays true of lines
that move. A file of tests is recorded once, and again when it was changed.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parent

# What holds no bytes of users: a fault there is seen by whoever looks at the screen.
LEFT_OUT = ("securefs/app/*", "securefs/cli/*", "__init__.py", "__main__.py", "_version.py")
# Tests that start servers and browsers take long, and coverage does not see what runs in those:
# tests/support/marks.py. Campaigns take long, too.
NO_PROGRAMS = "-mnot(server)and(not(browser))"
CAMPAIGNS = ("fuzz", "mutants", "packaging", "torture")
NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", "build", "__pycache__", ".*_cache", ".hypothesis")
LONGEST = 150.0  # seconds that one file of tests may take to be recorded

Place = tuple[str, str, str]  # module, function, text of the line


@dataclass(frozen=True)
class Project:
    """Where the product and its tests are."""

    root: Path
    folders: tuple[str, ...] = ("securefs", "securefs/keys", "middleware", "audit")
    accepted: Path = HERE / "accepted.txt"

    @property
    def build(self) -> Path:
        """What the campaign writes, all of it."""
        return self.root / "build" / "mutants"

    @property
    def tree(self) -> Path:
        """The copy in which mutants are put into place."""
        return self.build / "tree"

    def modules(self, only: Sequence[str] = ()) -> list[str]:
        """Return the modules, or those of them that match one of the patterns in ``only``."""
        found = [
            path.relative_to(self.root) for name in self.folders for path in (self.root / name).glob("*.py")
        ]
        kept = [path for path in found if not any(path.match(pattern) for pattern in LEFT_OUT)]
        return sorted(str(path) for path in kept if not only or any(path.match(pattern) for pattern in only))

    def copy(self) -> None:
        """Make the copy anew."""
        shutil.rmtree(self.tree, ignore_errors=True)
        shutil.copytree(self.root, self.tree, symlinks=True, ignore=NOT_COPIED)


@dataclass(frozen=True)
class Test:
    """A test that passed."""

    name: str
    seconds: float
    places: frozenset[Place] = field(repr=False)

    @property
    def file(self) -> str:
        return self.name.partition("::")[0]

    @property
    def function(self) -> str:
        return self.name.partition("[")[0]


class Lines:
    """The lines of one module, each with its place."""

    def __init__(self, module: str, source: str) -> None:
        self._module = module
        self._texts = source.splitlines()
        self._functions: dict[int, str] = {}
        self._walk(ast.parse(source), "")

    def _walk(self, node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            inner = name
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                inner = f"{name}.{child.name}".lstrip(".")
                lines = range(child.lineno, (child.end_lineno or child.lineno) + 1)
                self._functions.update(dict.fromkeys(lines, inner))
            self._walk(child, inner)

    def place(self, number: int) -> Place:
        """Return the place of a line, counted from 1."""
        text = self._texts[number - 1].strip() if number <= len(self._texts) else ""
        return self._module, self._functions.get(number, ""), text


class Tests:
    """All tests that passed when they were recorded."""

    def __init__(self, project: Project, say: Callable[[str], None]) -> None:
        self._project, self._say = project, say

    @cached_property
    def all(self) -> list[Test]:
        """The tests; those that are new, or were changed, are run for that."""
        folder = self._project.build / "record"
        folder.mkdir(parents=True, exist_ok=True)
        found = []
        tests = self._project.tree / "tests"
        for path in sorted(tests.rglob("test_*.py")):
            if path.relative_to(tests).parts[0] in CAMPAIGNS:
                continue
            text = path.read_bytes()
            name = str(path.relative_to(self._project.tree))
            record = folder / f"{hashlib.sha256(name.encode() + text).hexdigest()[:24]}.json"
            if not record.exists():
                record.write_text(json.dumps(self._record(name)))
            found += list(_read(json.loads(record.read_text())))
        return found

    def _record(self, name: str) -> dict[str, object]:
        start, raw = time.monotonic(), self._project.build / "raw.json"
        raw.unlink(missing_ok=True)
        folders = os.pathsep.join(str(self._project.tree / folder) for folder in self._project.folders)
        code = run_pytest(
            self._project,
            [name],
            LONGEST,
            MUTANTS_RECORD=str(raw),
            MUTANTS_FOLDERS=folders,
            MUTANTS_OPTIONS=NO_PROGRAMS,
        )
        tests = json.loads(raw.read_text()) if raw.exists() else {}
        places: dict[Place, int] = {}
        for about in tests.values():
            found = list(self._places(about.pop("lines")))
            about["places"] = sorted({places.setdefault(place, len(places)) for place in found})
        state = {None: ", cut short", 0: ""}.get(code, f", pytest ended with {code}")
        self._say(f"recorded {len(tests)} tests of {name} in {time.monotonic() - start:.0f} s{state}")
        return {"places": list(places), "tests": tests}

    def _places(self, lines: dict[str, list[int]]) -> Iterator[Place]:
        for file, numbers in lines.items():
            of = self._lines.get(file)
            yield from (of.place(number) for number in numbers) if of else ()

    @cached_property
    def _lines(self) -> dict[str, Lines]:
        tree = self._project.tree.resolve()
        return {str(tree / name): Lines(name, (tree / name).read_text()) for name in self._project.modules()}


def _read(record: dict[str, list]) -> Iterator[Test]:
    places = [tuple(place) for place in record["places"]]
    for name, about in record["tests"].items():
        yield Test(name, about["seconds"], frozenset(places[number] for number in about["places"]))


def run_pytest(project: Project, files: Iterable[str], seconds: float, **variables: str) -> int | None:
    """Run pytest in the copy; return its exit code, None where it took longer. Then all of it is ended."""
    path = os.pathsep.join(map(str, (project.tree, project.tree / "tests", HERE.parent)))
    environ = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", **variables}
    environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(project.build / "hypothesis")
    environ["COVERAGE_CORE"] = "ctrace"  # the one that can tell which test ran a line
    for name in (
        "PYTHONDONTWRITEBYTECODE",
        "COVERAGE_PROCESS_START",
        "COVERAGE_PROCESS_CONFIG",
        "PYTEST_ADDOPTS",
    ):
        environ.pop(name, None)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--tb=line",
        "-p",
        "mutants.picking",
        "-p",
        "no:cacheprovider",
    ]
    command += [f"--basetemp={project.build / 'tmp'}", *variables.get("MUTANTS_OPTIONS", "").split(), *files]
    with (project.build / "last.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=project.tree,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            return _wait(process.pid, seconds)
        finally:
            # It was not reaped yet, so its number, which is its group's too, can be nobody else's.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(number: int, seconds: float) -> int | None:
    """Return the exit code of a child, left a zombie; None where it runs longer than so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended = os.waitid(os.P_PID, number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            return ended.si_status
        time.sleep(0.02)
    return None
