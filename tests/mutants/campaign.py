"""A mutation campaign against the tests, which ends by itself: see the README beside it.

``python tests/mutants/campaign.py --sample 150`` runs one. It exits with 0 only if each mutant that
no test finds is in the list of accepted ones.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import chain, zip_longest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from mutants.mutations import Mutant, mutants_of  # noqa: E402  # found by way of the line above
from mutants.recording import Lines, Project, Test, Tests, run_pytest  # noqa: E402

# What a mutant must survive, first quick tests of few files, then others: seconds, and files.
ROUNDS = ((5.0, 3), (40.0, 100))
TOLD = 25  # mutants after which the campaign tells how far it is
PATIENCE = 15.0  # seconds beyond three times as long as the tests took when they were recorded
PASSED, NO_TESTS = 0, 5  # exit codes of pytest
FIELDS = 5  # of a line in the list of accepted mutants


class CampaignError(Exception):
    """The campaign can't be run, or its list of accepted mutants is not in order."""


def read_accepted(path: Path) -> dict[str, str]:
    """Return the accepted mutants, each with its reason.

    :raises CampaignError: a line has another form, or gives no reason.
    """
    found = {}
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        if not line.strip() or line.startswith("#"):
            continue
        *key, reason = line.split(" || ")
        if len(key) != FIELDS - 1 or " => " not in key[-1] or not reason.strip():
            form = "module || function || operator || old => new || reason"
            raise CampaignError(f"{path}, line {number} is not: {form}")
        found[" || ".join(key)] = reason.strip()
    return found


def changed_lines(root: Path, revision: str) -> dict[str, set[int]]:
    """Return the lines of each file that are not as they are in a git revision."""
    command = [
        "git",
        "-C",
        str(root),
        "diff",
        "--unified=0",
        "--no-color",
        "--no-ext-diff",
        "--relative",
        revision,
    ]
    result = subprocess.run([*command, "--", "*.py"], capture_output=True, text=True, check=False)
    if result.returncode:
        raise CampaignError(f"git diff {revision}: {result.stderr.strip()}")
    found: dict[str, set[int]] = defaultdict(set)
    file = ""
    for line in result.stdout.splitlines():
        if line.startswith("+++ "):
            file = line[4:].removeprefix("b/")
        elif match := re.match(r"@@ -\S+ \+(\d+)(?:,(\d+))? @@", line):
            start, count = int(match[1]), int(match[2] or 1)
            found[file].update(range(start, start + count))
    return found


def choose(mutants: dict[str, list[Mutant]], size: int | None, seed: int) -> list[Mutant]:
    """Return ``size`` mutants by chance (None: all), of each module as many as of the others."""
    if size is None:
        return list(chain.from_iterable(mutants.values()))
    dice = random.Random(seed)
    shuffled = [dice.sample(of_one, len(of_one)) for of_one in mutants.values()]
    return [mutant for row in zip_longest(*shuffled) for mutant in row if mutant is not None][:size]


class Campaign:
    """Puts mutants into a copy of the project, one after the other, and runs tests there."""

    def __init__(self, project: Project, say: Callable[[str], None] = print) -> None:
        self._project, self._say = project, say
        self._stamp = int(time.time())
        project.copy()
        self._tests = Tests(project, say)

    def check_copy(self) -> None:
        """Make sure that tests pass in the copy, so that a red test is a mutant's fault."""
        tests = self._tests.all
        if not tests:
            raise CampaignError("no test passed when it was recorded: see build/mutants/last.log")
        quick = sorted(tests, key=lambda test: test.seconds)[:20]
        if self._run(quick) != PASSED:
            raise CampaignError("tests fail without a mutant: see build/mutants/last.log")

    def attempt(self, mutant: Mutant) -> str:
        """Return "killed" or "survived"; "undecided" where tests take too long, also without the mutant."""
        path = self._project.tree / mutant.module
        original = path.read_text()
        for tests in list(self._rounds(mutant, original)):
            self._put(path, mutant.source())
            try:
                code = self._run(tests)
            finally:
                self._put(path, original)
            if code is None and self._run(tests) is None:
                # They take as long without the mutant.
                return "undecided"
            if code not in {PASSED, NO_TESTS}:
                return "killed"
        return "survived"

    def _put(self, path: Path, text: str) -> None:
        path.write_text(text)
        # Python takes a compiled module for current by its source's time, in seconds, and size.
        self._stamp += 1
        os.utime(path, (self._stamp, self._stamp))

    def _run(self, tests: list[Test]) -> int | None:
        pick = self._project.build / "pick.json"
        pick.write_text(json.dumps([test.name for test in tests]))
        limit = PATIENCE + 3 * sum(test.seconds for test in tests)
        files = list(dict.fromkeys(test.file for test in tests))
        return run_pytest(self._project, files, limit, MUTANTS_PICK=str(pick), MUTANTS_OPTIONS="--exitfirst")

    def _rounds(self, mutant: Mutant, source: str) -> Iterator[list[Test]]:
        """Yield the tests to try, first those that are likely to find the mutant soon."""
        queue = self._order(mutant, self._covering(mutant, Lines(mutant.module, source)))
        for seconds, most in ROUNDS:
            taken: list[Test] = []
            files: set[str] = set()
            left = seconds
            for test in queue:
                if (test.seconds <= left or not taken) and (test.file in files or len(files) < most):
                    taken.append(test)
                    files.add(test.file)
                    left -= test.seconds
            if taken:
                yield taken
            names = {test.name for test in taken}
            queue = [test for test in queue if test.name not in names]

    def _covering(self, mutant: Mutant, lines: Lines) -> list[Test]:
        """Return the tests that run the mutant's statement, else its function, else its module.

        And the module's own that run none of the product themselves: they start programs that do.
        """
        places = {lines.place(number) for number in mutant.lines}
        function = lines.place(mutant.lines[0])[:2]
        stem = Path(mutant.module).stem
        programs = [test for test in self._tests.all if not test.places and stem in test.file]
        for covers in (
            lambda test: not places.isdisjoint(test.places),
            lambda test: any(place[:2] == function for place in test.places),
            lambda test: any(place[0] == mutant.module for place in test.places),
        ):
            if found := [test for test in self._tests.all if covers(test)]:
                return found + programs
        return programs

    @staticmethod
    def _order(mutant: Mutant, tests: list[Test]) -> list[Test]:
        """Put one test of each function first, the module's own before others, quick before slow."""
        by_function: dict[str, list[Test]] = defaultdict(list)
        for test in sorted(tests, key=lambda test: test.seconds):
            by_function[test.function].append(test)
        stem = Path(mutant.module).stem
        ranked = []
        for of_one in by_function.values():
            # From all over its parameters, and not the quickest alone.
            step = max(1, len(of_one) // 6)
            spread = of_one[::step] + [test for index, test in enumerate(of_one) if index % step]
            ranked += [
                ((rank // 3, stem not in test.file, test.seconds), test) for rank, test in enumerate(spread)
            ]
        return [test for _, test in sorted(ranked, key=lambda pair: pair[0])]


def run(
    project: Project,
    *,
    size: int | None = None,
    seed: int = 1,
    since: str | None = None,
    only: tuple[str, ...] = (),
    seconds: float = 3600.0,
    say: Callable[[str], None] = print,
) -> int:
    """Run a campaign; return the exit code: 1 where a mutant survived that nobody has accepted.

    :param since: a git revision; only statements that are not as they are there get mutants.
    :param seconds: after so many no other mutant is tried.
    :raises CampaignError: it can't be run.
    """
    end = time.monotonic() + seconds
    accepted = read_accepted(project.accepted)
    mutants = {name: mutants_of(name, (project.root / name).read_text()) for name in project.modules(only)}
    gone = accepted.keys() - {mutant.key for of_one in mutants.values() for mutant in of_one}
    if gone and not only:
        say("accepted, but no mutant any more:\n  " + "\n  ".join(sorted(gone)))
    if since is not None:
        changed = changed_lines(project.root, since)
        mutants = {
            name: [mutant for mutant in of_one if not changed[name].isdisjoint(mutant.lines)]
            for name, of_one in mutants.items()
        }
    chosen = choose(mutants, size, seed)
    if not chosen:
        say("no mutants: nothing was changed")
        return 0
    campaign = Campaign(project, say)
    campaign.check_copy()
    counts: Counter[str] = Counter()
    for number, mutant in enumerate(chosen):
        if time.monotonic() > end:
            say(f"the time is over: {len(chosen) - number} mutants were not tried")
            break
        state = "accepted" if mutant.key in accepted else campaign.attempt(mutant)
        counts[state] += 1
        if state in {"survived", "undecided"}:
            say(mutant.key if state == "survived" else f"undecided: {mutant.key}")
        if not (number + 1) % TOLD:
            say(f"{number + 1} of {len(chosen)} tried")
    tried = counts.total() - counts["accepted"]
    others = f"{counts['undecided']} undecided; {counts['accepted']} accepted ones"
    say(f"{counts['killed']} of {tried} killed, {counts['survived']} survived, {others}")
    return 1 if counts["survived"] else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the campaign that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sample", default="all", help='how many mutants, by chance, or "all" (default: %(default)s)'
    )
    parser.add_argument("--seed", type=int, default=1, help="which ones (default: %(default)s)")
    parser.add_argument("--since", help="a git revision: only what was changed since")
    parser.add_argument(
        "--seconds", type=float, default=3600.0, help="the longest run (default: %(default)s)"
    )
    parser.add_argument("only", nargs="*", help="modules, as patterns: middleware/body.py audit/*")
    given = parser.parse_args(arguments)
    try:
        return run(
            Project(HERE.parents[1]),
            size=None if given.sample == "all" else int(given.sample),
            seed=given.seed,
            since=given.since,
            only=tuple(given.only),
            seconds=given.seconds,
            say=lambda text: print(text, flush=True),
        )
    except CampaignError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    # As Ctrl-C does, so that the run under way is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
