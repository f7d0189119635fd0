"""The page that verifies a journal in a browser: it says what the package says, and can reach nothing."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from support.days import DAY, Days
from support.journal_corpus import CASES, ended, sealed
from support.journal_mutations import mutant
from support.made_logs import Key, MadeJournal
from support.page import HASH, PAGE, ROOT, completed, hash_line
from support.servers import wait_until
from support.verdicts import READS_LOGS, unread, verdict_of
from support.windows import WINDOWS

from securefs.audit.compress import compress_journal
from securefs.audit.retention import plan, remove_files, write_request
from securefs.errors import ConfigurationError

TEXT = PAGE.read_text("utf-8")
SCRIPT = re.search("<script>(.*?)</script>", TEXT, re.DOTALL)[1]
TAMPERED, NOTHING = 1, 2  # exit codes
MUTANTS = 100
# Of a journal that does not hold: what follows from the first fault is told in other words, and not as often.
OTHER_WORDS = {
    "seal-takes-what-is-not-there",
    "the-first-file-is-removed",
    "the-tiles-of-retired-records-are-removed",
    "the-tiles-of-retired-records-are-cut",
    "files-that-were-retired-came-back-changed",
}


# --- the file ---


def test_what_follows_from_other_files_is_in_the_page():
    assert completed(TEXT) == TEXT, "run: python tests/support/page.py"


def test_its_hash_is_published():
    assert HASH.read_text() == hash_line(PAGE.read_bytes()), "run: python tests/support/page.py"


def test_its_policy_allows_its_own_script_and_style_alone():
    (policy,) = re.findall('http-equiv="Content-Security-Policy" content="([^"]*)"', TEXT)
    pattern = r"default-src 'none'; script-src 'sha256-[\w+/=]{44}'; style-src 'sha256-[\w+/=]{44}'; base-uri 'none'; form-action 'none'"
    assert re.fullmatch(pattern, policy)
    # Before anything that it would have to stop.
    assert TEXT.index("Content-Security-Policy") < TEXT.index("<style>") < TEXT.index("<script>")


def test_it_names_nothing_outside_of_itself():
    without = TEXT.replace(SCRIPT, "")
    assert re.findall(r"\b(?:src|href|action|srcset|ping|poster|data)\s*=", without) == []
    assert re.findall(r"<[^>]*\son\w+\s*=", without) == []
    assert re.findall(r"\sstyle\s*=", without) == []
    words = r"fetch|XMLHttpRequest|WebSocket|EventSource|sendBeacon|eval|Function|import\(|innerHTML|outerHTML|insertAdjacentHTML|document\.write|location|open\(|postMessage|localStorage|indexedDB|cookie|Worker"
    assert re.findall(rf"\b(?:{words})\b", SCRIPT) == []


def test_the_docs_say_how_much_there_is_to_read():
    text = (ROOT / "docs" / "verify-page.md").read_text("utf-8")
    told = re.search(r"The script has some ([\d,]+) lines in (\w+) sections", text)
    assert round(SCRIPT.count("\n"), -2) == int(told[1].replace(",", ""))
    assert (len(re.findall(r"/\* ---- \d+\. ", SCRIPT)), told[2]) == (10, "ten")


# --- the same verdicts ---


@pytest.fixture(scope="module", params=WINDOWS)
def window(request, tmp_path_factory):
    with request.param(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def said_of(window, folder, made) -> dict:
    """Return what the page's own functions say of a folder, without a user."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    data = [[name, base64.b64encode(content).decode()] for name, content in files.items()]
    return json.loads(
        window.run(
            "(async (data, pins, now) => {"
            " const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));"
            " const entries = data.map(([path, text]) => ({ path, file: new File([bytes(text)], 'x') }));"
            " const options = { pins: await Promise.all(pins.map((pin) => window.parseKey(pin))), anchors: [], now, ed25519: true };"
            " const report = await window.verify(window.foldersOf(entries, null), options, () => {});"
            " return JSON.stringify(window.reportOf(report));"
            f"}})({json.dumps(data)}, {json.dumps(made.pins)}, {made.now.timestamp()})"
            ".catch((error) => JSON.stringify({ unreadable: error.message }))"
        )
    )


def test_the_page_says_what_the_package_says(window, written):
    """All cases in one test: a browser takes longer to start than to verify them."""
    window.open(PAGE.as_uri())
    compared, differences = 0, []
    for case in CASES.values():
        made = case.build()
        folder = written(made)
        said = said_of(window, folder, made)
        if (said["exit_code"], {one["code"] for one in said["findings"]}) != (case.exit, case.codes):
            differences.append((case.name, case.exit, sorted(case.codes), said))
        elif case.exit != NOTHING and not unread(made):
            compared += 1
            report = verdict_of(folder, made).to_json()
            if case.name not in OTHER_WORDS and essence(said) != essence(report):
                differences.append((case.name, essence(report), essence(said)))
    print(f"\n{window.name}: {len(CASES)} cases, {compared} of them compared with the package's verdict")
    assert not differences, differences
    assert compared


def _unlink(number):
    return lambda files: files[number].unlink()


def _swap(files):
    first, second = files[1].read_bytes(), files[2].read_bytes()
    files[1].write_bytes(second)
    files[2].write_bytes(first)


def _change(files):
    files[1].write_bytes(files[1].read_bytes().replace(b'"sev":1', b'"sev":2', 1))


def _copy_beside(files):
    (files[0].with_name(f"{files[0].name}.gz")).write_bytes(gzip.compress(files[0].read_bytes()))


def _two_folders(files):
    (files[0].parent / "log" / files[0].name).write_bytes(files[0].read_bytes())


CHANGES = {
    "none": lambda files: None,
    "compressed": lambda files: list(compress_journal(files[0].parent)),
    "copy-beside": _copy_beside,
    "first-missing": _unlink(0),
    "middle-missing": _unlink(1),
    "last-missing": _unlink(3),
    "swapped": _swap,
    "changed": _change,
    "two-folders": _two_folders,
}


def test_the_page_reads_chains_of_several_files_as_the_package_does(window, tmp_path, monkeypatch):
    window.open(PAGE.as_uri())
    differences = []
    for name, change in CHANGES.items():
        with monkeypatch.context() as patch:
            days = Days(tmp_path / name, patch)
            days.start()
            for _ in range(4):
                days.day()
                days.step()
            days.journal.close()
            days.stop()
            made = SimpleNamespace(
                pins=[str(days.pin)], now=datetime.fromtimestamp(days.now / 1e9, timezone.utc)
            )
            change(days.files())
            said, report = said_of(window, days.folder, made), days.verify().to_json()
        codes = [{one["code"] for one in found["findings"]} for found in (said, report)]
        if said["exit_code"] != report["exit_code"] or ("segment" in codes[0]) != ("segment" in codes[1]):
            differences.append((name, said["exit_code"], report["exit_code"], codes))
        elif report["exit_code"] != TAMPERED and essence(said) != essence(report):
            differences.append((name, essence(report), essence(said)))
    assert not differences, differences


def test_the_page_follows_a_journal_of_which_files_were_retired(window, tmp_path, monkeypatch):
    window.open(PAGE.as_uri())
    days = Days(tmp_path / "j", monkeypatch)
    days.start()
    for _ in range(4):
        days.day()
        days.step()
    wanted, _ = plan(days.folder, days.folder / "log", (days.now - DAY) / 1e9)
    write_request(days.folder / "log", wanted)
    days.step()
    remove_files(days.folder, wanted)
    days.journal.close()
    days.stop()
    made = SimpleNamespace(pins=[str(days.pin)], now=datetime.fromtimestamp(days.now / 1e9, timezone.utc))
    said, report = said_of(window, days.folder, made), days.verify().to_json()
    assert essence(said) == essence(report)
    assert (said["exit_code"], said["log"]["retired"]) == (0, 6)


@pytest.mark.parametrize("what", ["damaged", "bomb"])
def test_what_the_page_cannot_follow_it_says(window, tmp_path, monkeypatch, what):
    window.open(PAGE.as_uri())
    days = Days(tmp_path / "j", monkeypatch)
    days.start()
    for _ in range(3):
        days.day()
        days.step()
    files = days.files()
    data = b"x" * 99 if what == "damaged" else gzip.compress(bytes(2**26 + 1))
    files[0].with_name(f"{files[0].name}.gz").write_bytes(data)
    files[0].unlink()
    made = SimpleNamespace(pins=[], now=datetime.fromtimestamp(days.now / 1e9, timezone.utc))
    said = said_of(window, days.folder, made)
    assert re.search("cannot unpack", said["unreadable"])


def essence(report: dict) -> dict:
    """Return what both verifiers must agree on, of a report as JSON."""
    places = [[one[key] for key in ("code", "file", "chain", "seq", "offset")] for one in report["findings"]]
    return {
        "records": report["records"],
        "finding_count": report["finding_count"],
        "findings": sorted(places, key=str),
        # How many, not in which words.
        "not_proven": len(report["not_proven"]) if READS_LOGS else None,
        # Of a log that does not hold, how far each of them could follow it is left out.
        "log": about_log(report["log"]) if READS_LOGS and report["exit_code"] != TAMPERED else None,
        "torn": sorted(
            [tail["file"], tail["offset"], tail["size"], tail["digest"]] for tail in report["torn"]
        ),
        "unknown_files": sorted(report["unknown_files"]),
    }


def about_log(log: dict | None) -> dict | None:
    names = ("origin", "size", "checkpoints", "first", "last", "closed", "older", "retired", "unsealed")
    return log and {
        **{name: log[name] for name in names},
        "breaks": [
            [one["index"], one["before"], one["after"], one["vkey"], one["vouched"]] for one in log["breaks"]
        ],
    }


def test_both_say_the_same_of_journals_that_were_changed_at_random(window, written):
    """The verdict is the same; of a journal that does not hold, one may find more than the other."""
    if not READS_LOGS:
        pytest.skip("this version reads no log")
    window.open(PAGE.as_uri())
    random, exits, differences = Random(20261126), Counter(), []
    for number in range(MUTANTS):
        folder = written(None)
        made = mutant(random, folder)
        said = said_of(window, folder, made)
        try:
            report = verdict_of(folder, made).to_json()
        except ConfigurationError:
            report = {"exit_code": NOTHING}
        exits[report["exit_code"]] += 1
        holds = report["exit_code"] not in {TAMPERED, NOTHING}
        if said["exit_code"] != report["exit_code"] or (holds and essence(said) != essence(report)):
            differences.append((number, report, said))
    print(f"\n{window.name}: {dict(exits)}")
    assert not differences, differences


# --- as a user does it ---


def shown(window, selector: str) -> str:
    return window.run(f"document.querySelector({json.dumps(selector)}).innerText")


def is_done(window):
    return window.run("document.documentElement.dataset.state") == "done"


def fill(window, selector: str, text: str) -> None:
    window.run(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(text)}")


def ready(window, folder) -> None:
    """Open the page, and choose a folder."""
    window.open(PAGE.as_uri())
    window.choose("#journal", folder)
    wait_until(lambda: not window.run("document.getElementById('start').disabled"), "the folder")


def verified(window, folder, *, pins=(), **fields) -> dict:
    """Choose a folder, fill the fields in, press the button, and return the report that is shown."""
    ready(window, folder)
    fill(window, "#pins", "\n".join(pins))
    for name, text in fields.items():
        fill(window, f"#{name.replace('_', '-')}", text)
    window.run("document.getElementById('start').click()")
    wait_until(lambda: is_done(window), "the verdict")
    return json.loads(window.run("document.getElementById('report').textContent"))


@pytest.fixture
def plain(written):
    """A journal without a log, in records that every version reads."""
    made = MadeJournal(log=False, version=1)
    made.chain("first", 5)
    made.chain("second", 5).add("server.stop")
    return written(made)


def test_it_works_from_a_disk_and_is_not_proven_without_a_log(window, plain):
    report = verified(window, plain)
    assert (report["exit_code"], report["chains"], report["records"]) == (3, 2, 13)
    assert shown(window, "#verdict").startswith("Not proven (exit code 3):")
    assert "there is no log" in shown(window, "#doubts")
    assert "2: 1 ended in order, 1 without server.stop" in shown(window, "#facts")
    assert window.run("isSecureContext && location.protocol") == "file:"


def test_a_finding_says_where(window, plain):
    path = min(plain.glob("*.jsonl"))
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"size":3', b'"size":9'))
    verified(window, plain)
    assert shown(window, "#verdict").startswith("Tampering (exit code 1):")
    assert shown(window, "#findings h2") == "Findings (1)"
    row = shown(window, "#findings-rows tr").split("\t")
    offset = len(b"\n".join(data.split(b"\n")[:5])) + 1
    assert row[:4] == ["link", f'"{path.name}"', "5", str(offset)]
    assert not window.run("document.getElementById('findings').hidden")
    assert window.run("document.getElementById('torn').hidden && document.getElementById('unknown').hidden")


def test_many_findings_are_counted_and_the_first_ones_shown(window, plain):
    path = min(plain.glob("*.jsonl"))
    path.write_bytes(path.read_bytes() + b"x\n" * 300)
    report = verified(window, plain)
    assert report["finding_count"] == 300
    assert len(report["findings"]) == 100
    assert window.run("document.getElementById('findings-rows').childElementCount") == 100
    assert shown(window, "#findings-count") == "300"


def test_names_of_files_are_shown_as_ascii(window, plain):
    (plain / "inv\u202efdp.<b>exe").touch()
    report = verified(window, plain)
    assert report["unknown_files"] == ["inv\u202efdp.<b>exe"]
    assert shown(window, "#unknown-rows") == '"inv\\u202efdp.<b>exe"'
    assert not window.run("document.querySelector('#unknown b')")
    assert window.run("document.getElementById('report').textContent").isascii()


def test_a_torn_tail_is_shown(window, plain):
    path = min(plain.glob("*.jsonl"))
    path.write_bytes(path.read_bytes()[:-20])
    report = verified(window, plain)
    assert report["exit_code"] in {1, 4}  # behind server.stop nothing can be torn
    assert str(report["torn"][0]["offset"]) in shown(window, "#torn-rows")


def test_an_empty_folder_is_not_intact(window, tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "readme.txt").touch()
    report = verified(window, folder)
    assert report["exit_code"] == 2
    assert "there is no chain of a journal in this folder" in shown(window, "#verdict")


def changed_after_it_was_chosen(window, plain, change):
    """Return the name of a file that was changed, and the report."""
    ready(window, plain)
    path = min(plain.glob("*.jsonl"))
    change(path)
    window.run("document.getElementById('start').click()")
    wait_until(lambda: is_done(window), "the verdict")
    return path.name, json.loads(window.run("document.getElementById('report').textContent"))


def test_a_file_that_was_removed_after_it_was_chosen_is_named(window, plain):
    name, report = changed_after_it_was_chosen(window, plain, Path.unlink)
    assert report["exit_code"] == 2
    assert shown(window, "#verdict").startswith("Nothing verified (exit code 2):")
    assert name in shown(window, "#verdict")


def test_a_file_that_was_written_to_after_it_was_chosen_is_named_or_read_as_it_was(window, plain):
    name, report = changed_after_it_was_chosen(
        window, plain, lambda path: path.write_bytes(path.read_bytes() + b"half of a rec")
    )
    if window.name == "firefox":
        assert (report["exit_code"], report["torn"]) == (3, [])
    else:
        assert report["exit_code"] == 2
        assert name in shown(window, "#verdict")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        pytest.param({"pins": ["no key"]}, "no verification key", id="no-key"),
        pytest.param(
            {"pins": [Key("0 0").vkey().replace("+AQU", "+AQV")]}, "mistyped or changed", id="mistyped-key"
        ),
        pytest.param({"as_of": "yesterday"}, "the time of the copy", id="time"),
        pytest.param({"anchors": "no note"}, "no signed notes", id="checkpoint"),
    ],
)
def test_bad_input_is_told(window, plain, fields, why):
    assert verified(window, plain, **fields)["exit_code"] == 2
    assert why in shown(window, "#verdict")


def test_it_can_be_used_by_the_keyboard_and_is_read_aloud(window, plain):
    ready(window, plain)
    window.run("document.getElementById('journal').focus()")
    order = []
    while (focus := window.run("document.activeElement.id || document.activeElement.tagName")) != "start":
        order.append(focus)
        window.press("Tab")
        assert len(order) < 10
    assert order == ["journal", "pins", "SUMMARY"]
    window.press("Enter")
    wait_until(lambda: is_done(window), "the verdict")
    assert window.run("document.activeElement.id") == "verdict"
    region = "document.getElementById('verdict').parentNode"
    assert window.run(f"{region}.getAttribute('role') + {region}.getAttribute('aria-live')") == "statuspolite"
    unnamed = "[...document.querySelectorAll('input, textarea, progress')].filter((one) => !one.labels?.length && !one.ariaLabel && !one.getAttribute('aria-label')).length"
    assert window.run(unnamed) == 0
    assert window.run(f"{region}.contains(document.getElementById('doubts'))")


def test_a_folder_can_be_dropped(window, plain):
    if not hasattr(window, "drop"):
        pytest.skip("a drop cannot be made in this browser from outside")
    (plain / "further").mkdir()
    for number in range(250):  # a browser lists a hundred at a time
        (plain / "further" / str(number)).touch()
    window.open(PAGE.as_uri())
    window.drop("#drop", plain)
    wait_until(lambda: window.run("document.documentElement.dataset.dropped"), "the drop")
    assert shown(window, "#journal-chosen").startswith("253 files")
    window.run("document.getElementById('start').click()")
    wait_until(lambda: is_done(window), "the verdict")
    report = json.loads(window.run("document.getElementById('report').textContent"))
    assert (report["exit_code"], report["unknown_files"]) == (3, ["further"])


def test_a_sealed_journal_is_proven(window, written):
    made = ended()
    assert verified(window, written(made), pins=made.pins)["exit_code"] == 0
    assert shown(window, "#verdict") == (
        "Proven (exit code 0): consistent, and sealed under a key that you pinned."
    )
    assert "when the sealer ended in order" in shown(window, "#facts")


def test_a_log_may_be_in_another_folder_and_a_copy_older(window, written, tmp_path):
    made = sealed()
    folder = written(made)
    (folder / "log").rename(tmp_path / "elsewhere")
    ready(window, folder)
    window.run("document.querySelector('details').open = true")
    window.choose("#log", tmp_path / "elsewhere")
    wait_until(lambda: shown(window, "#log-chosen"), "the log")
    fill(window, "#pins", "\n".join(made.pins))
    for time, code in (("", 3), (made.now.strftime("%Y-%m-%d %H:%M:%S"), 0)):
        fill(window, "#as-of", time)
        window.run("delete document.documentElement.dataset.state")
        window.run("document.getElementById('start').click()")
        wait_until(lambda: is_done(window), "the verdict")
        assert json.loads(window.run("document.getElementById('report').textContent"))["exit_code"] == code


def test_a_browser_without_ed25519_proves_nothing(window, written):
    made = ended()
    ready(window, written(made))
    fill(window, "#pins", "\n".join(made.pins))
    # What such a browser does.
    window.run("crypto.subtle.importKey = () => Promise.reject(new DOMException('', 'NotSupportedError'))")
    window.run("document.getElementById('start').click()")
    wait_until(lambda: is_done(window), "the verdict")
    assert shown(window, "#verdict").startswith("Not proven (exit code 3):")
    assert "does not know Ed25519" in shown(window, "#doubts")


def test_a_kept_checkpoint_must_be_in_the_log(window, written):
    made, other = ended(), sealed()
    other.chain("third", 40)
    other.seal()
    folder = written(made)
    kept = made.checkpoints[1].note().decode()
    assert verified(window, folder, pins=made.pins, anchors=kept)["exit_code"] == 0
    newer = other.checkpoints[-1].note().decode()
    report = verified(window, folder, pins=made.pins, anchors=kept + newer)
    assert [one["code"] for one in report["findings"]] == ["log"]
    assert "it was cut, or is another one" in report["findings"][0]["message"]


# --- size ---


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """100,000 records in 1,000 chains, one of which is larger than 64 MiB, and their log."""
    made = MadeJournal()
    for number in range(999):
        made.chain(f"small {number}", 54)
        if number % 4 == 3:
            made.seal()
    long = made.chain("long")
    while sum(len(chain.lines) for chain in made.chains.values()) < 100_000:
        for number in range(256):
            long.add("file.encrypt", obj={"size": number, "name": "\u00e9" * 230})
        made.seal()
    made.seal(stop=True)
    folder = tmp_path_factory.mktemp("large") / "journal"
    made.write(folder)
    assert (folder / f"{long.id}-0.jsonl").stat().st_size > 64 * 1024 * 1024
    return made, folder


def test_a_large_journal_is_read_in_pieces_and_a_change_in_it_found(window, large):
    made, folder = large
    report = verified(window, folder, pins=made.pins)
    assert report["exit_code"] == 0
    assert report["chains"] == 1001
    assert report["records"] >= 100_000
    assert report["log"]["checkpoints"] == len(made.checkpoints)
    took = re.search(r"Verified in\s+(\S+ s)", shown(window, "#facts"))[1]
    print(f"\n{window.name}: {report['records']} records, {report['log']['checkpoints']} checkpoints: {took}")
    path = folder / f"{made.chains['long'].id}-0.jsonl"
    data = path.read_bytes()
    at = data.index(b'"size":77', 60 * 1024 * 1024) + len(b'"size":7')
    try:
        path.write_bytes(data[:at] + b"8" + data[at + 1 :])
        report = verified(window, folder, pins=made.pins)
    finally:
        path.write_bytes(data)
    begin = data.rindex(b"\n", 0, at) + 1
    found = {one["code"]: one["offset"] for one in report["findings"]}
    assert found == {"log": begin, "link": data.index(b"\n", at) + 1}
