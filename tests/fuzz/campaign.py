"""Fuzzing campaigns that end by themselves. See the README beside this file.

``campaign.py --seconds 600`` is guided by coverage and chance. ``campaign.py --seed 1 --runs
20000`` checks inputs that follow from the seed and the repository alone.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import importlib.util
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from itertools import islice
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]

from fuzz.mutation import Mutator, dictionary  # noqa: E402  # the same
from fuzz.upload_property import check, decode, seeds  # noqa: E402  # the same
from support import hostile_corpus  # noqa: E402  # found by way of the line above

CORPUS = HERE / "corpus"
DICTIONARY = HERE / "upload.dict"
LONGEST = 1024  # bytes of an input: short ones are fast, and what is said of length is tested elsewhere
GOOD_MEASURE = 5  # more times that an accepted case is among the known inputs than any other
MOST_FINDINGS = 10  # after which a seeded campaign ends
GRACE = 300  # seconds beyond its time, after which a campaign has failed to end
LIMITS = (f"-max_len={LONGEST}", "-timeout=20", "-rss_limit_mb=2048")  # seconds for an input, MiB of memory


def run(arguments, log_file: Path, seconds: int) -> int:
    """Run the target; return its exit code."""
    with log_file.open("wb") as log:
        command = [sys.executable, str(HERE / "upload_target.py"), *arguments]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            return process.wait(seconds + GRACE)
        finally:
            process.kill()
            process.wait()


def write_seeds(folder: Path) -> Path:
    folder.mkdir()
    for name, data in seeds(LONGEST).items():
        (folder / name).write_bytes(data)
    return folder


def campaign(folder: Path, seconds: int) -> int:
    """Fuzz for some seconds in ``folder``; return the exit code, not 0 where the target found something."""
    found, findings = folder / "found", folder / "findings"
    found.mkdir()
    findings.mkdir()
    arguments = [
        *LIMITS,
        f"-max_total_time={seconds}",
        f"-dict={DICTIONARY}",
        f"-artifact_prefix={findings}/",
        "-print_final_stats=1",
        "-reload=0",
        str(found),
        str(write_seeds(folder / "seeds")),
        str(CORPUS),
    ]
    status = run(arguments, folder / "log", seconds)
    text = (folder / "log").read_text("utf-8", "replace")
    inputs = sorted(findings.iterdir())
    if status == 0 and not inputs:
        print(summary(text, len(list(found.iterdir()))))
        return 0
    print(text[-6000:])
    for path in inputs:
        tell(path)
    return status or 1


def tell(path: Path) -> None:
    """Print a finding such that whoever has only the output can check it again."""
    print(f"FINDING {path}: python tests/fuzz/campaign.py --replay {path}")
    print(f"  in base64: {base64.b64encode(path.read_bytes()).decode()}")


def known_inputs() -> list[bytes]:
    """Return the seeds and the stored corpus, the accepted cases several times.

    A change seldom turns a refused body into one that is accepted.
    """
    cases = seeds(LONGEST)
    accepted = [cases[case.name] for case in hostile_corpus.accepted() if case.name in cases]
    corpus = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    return [*cases.values(), *corpus, *accepted * GOOD_MEASURE]


def seeded(folder: Path, seed: int, runs: int) -> int:
    """Check ``runs`` inputs that follow from ``seed``; return the exit code, 1 after any finding."""
    inputs = Mutator(seed, known_inputs(), dictionary(DICTIONARY), LONGEST)
    outcomes: Counter[str] = Counter()
    digest = hashlib.sha256()
    # Whatever ends this process, a kill included, leaves the input that it was at.
    current = folder / "current"
    print(f"seed {seed}: the input under way is in {current}", flush=True)
    for number, data in enumerate(islice(inputs, runs)):
        current.write_bytes(data)
        digest.update(hashlib.sha256(data).digest())
        try:
            outcomes[check(data)] += 1
        except Exception:  # noqa: BLE001  # a finding is whatever a check ends in
            traceback.print_exc(file=sys.stdout)
            tell(current.rename(folder / f"finding-{number}"))
            outcomes["finding"] += 1
            if outcomes["finding"] == MOST_FINDINGS:
                break
    counted = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"seed {seed}: {outcomes.total():,} inputs (SHA-256 {digest.hexdigest()[:16]}): {counted}")
    return 1 if outcomes["finding"] else 0


def summary(log: str, new: int) -> str:
    """Return one line of what a campaign did, from libFuzzer's log."""
    executions = re.search(r"number_of_executed_units: *(\d+)", log)
    rate = re.search(r"average_exec_per_sec: *(\d+)", log)
    covered = re.findall(r"cov: (\d+) ft: (\d+)", log)
    if not executions or not rate or not covered:
        return f"libFuzzer's figures are not where they were: {log[-500:]}"
    edges, features = covered[-1]
    first = covered[0][0]
    return (
        f"{int(executions[1]):,} executions, {rate[1]} a second; {edges} branches covered (from {first} at the start), "
        f"{features} features; {new} new inputs; nothing found"
    )


def minimise(folder: Path) -> None:
    """Replace the stored corpus by those inputs, of it and of a campaign's, that cover more than the seeds do."""
    merged = write_seeds(folder / "merged")
    known = {path.name for path in merged.iterdir()}
    status = run(
        ["-merge=1", *LIMITS, str(merged), str(CORPUS), str(folder / "found")], folder / "merge.log", 600
    )
    if status:
        sys.exit((folder / "merge.log").read_text("utf-8", "replace")[-3000:])
    shutil.rmtree(CORPUS)
    CORPUS.mkdir()
    for path in sorted(merged.iterdir()):
        if path.name not in known:
            shutil.copy(path, CORPUS / path.name[:16])
    sizes = [path.stat().st_size for path in CORPUS.iterdir()]
    print(f"stored {len(sizes)} inputs of {sum(sizes):,} bytes in all")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="how long to fuzz, guided by coverage")
    parser.add_argument("--seed", type=int, help="check inputs that follow from this number instead")
    parser.add_argument("--runs", type=int, default=20_000, help="how many, with --seed")
    parser.add_argument(
        "--minimise", action="store_true", help="store what the campaign found, as little as will do"
    )
    parser.add_argument("--replay", type=Path, help="check this one input and print what it is")
    options = parser.parse_args()
    # Each input has a SecureFS of its own, which declares nothing and refuses most of what it gets.
    logging.getLogger("securefs").setLevel(logging.CRITICAL)
    if options.replay:
        data = options.replay.read_bytes()
        print(decode(data))
        print(check(data))
        return 0
    if options.seed is None and importlib.util.find_spec("atheris") is None:
        print(f"not fuzzed: atheris can't be installed for Python {sys.version.split()[0]} here")
        return 0
    folder = Path(tempfile.mkdtemp(prefix="securefs-fuzz-"))
    if options.seed is None:
        status = campaign(folder, options.seconds)
    else:
        status = seeded(folder, options.seed, options.runs)
    if status == 0:
        if options.minimise and options.seed is None:
            minimise(folder)
        shutil.rmtree(folder)
    return status


if __name__ == "__main__":
    sys.exit(main())
