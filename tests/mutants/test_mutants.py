"""The mutation campaign: it finds a gap, passes what is covered, and wants a reason."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import pytest
from mutants import campaign
from mutants.campaign import CampaignError, changed_lines, choose, read_accepted, run
from mutants.mutations import mutants_of
from mutants.recording import Project, run_pytest
from support.servers import wait_until

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = Project(ROOT)

CODE = """\
LIMIT = 10


def within(value):
    return value <= LIMIT
"""
TESTS = """\
import pytest
from tiny.bounds import within


@pytest.mark.parametrize("value", [0, 9])
def test_within(value):
    assert within(value) and not within(value + 100)
"""
GAPS = {
    "tiny/bounds.py || <module> || constant || LIMIT = 10 => LIMIT = 11",
    "tiny/bounds.py || <module> || constant || LIMIT = 10 => LIMIT = 9",
    "tiny/bounds.py || within || compare || return value <= LIMIT => return value < LIMIT",
}


@pytest.fixture
def project(tmp_path):
    """A package of one function, whose tests leave its limit open."""
    made = Project(tmp_path / "project", ("tiny",), tmp_path / "accepted.txt")
    for name, text in {
        "tiny/__init__.py": "",
        "tiny/bounds.py": CODE,
        "tests/test_bounds.py": TESTS,
        "pyproject.toml": "[tool.pytest.ini_options]\n",
    }.items():
        path = made.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return made


def accept(project, *lines):
    project.accepted.write_text("# a comment\n\n" + "".join(f"{line}\n" for line in lines))


def test_a_gap_is_found_and_what_is_covered_passes(project):
    said = []
    assert run(project, say=said.append) == 1
    assert {line for line in said if " || " in line} == GAPS
    total = len(mutants_of("tiny/bounds.py", CODE))
    assert said[-1] == f"{total - 3} of {total} killed, 3 survived, 0 undecided; 0 accepted ones"
    assert (project.root / "tiny/bounds.py").read_text() == CODE, "the working tree is as it was"

    accept(project, *(f"{gap} || the limit is nobody's business" for gap in GAPS))
    said.clear()
    assert run(project, say=said.append) == 0
    assert said == [f"{total - 3} of {total - 3} killed, 0 survived, 0 undecided; 3 accepted ones"], (
        "nothing was recorded again"
    )


def test_only_what_was_changed_is_tried(project):
    def git(*arguments):
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", project.root, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    git("init", "--quiet")
    (project.root / ".gitignore").write_text("build/\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    said = []
    assert run(project, since="HEAD", say=said.append) == 0
    assert said == ["no mutants: nothing was changed"]
    (project.root / "tiny/bounds.py").write_text(
        "# moved\n" + CODE.replace("value <= LIMIT", "value - LIMIT < 1")
    )
    assert changed_lines(project.root, "HEAD")["tiny/bounds.py"] == {1, 6}
    said.clear()
    assert run(project, since="HEAD", say=said.append) == 1
    assert all(" || within || " in line for line in said if " || " in line)
    with pytest.raises(CampaignError, match="git diff no-such-revision"):
        run(project, since="no-such-revision")


def test_a_run_ends_when_its_time_is_over(project):
    said = []
    assert run(project, seconds=0, say=said.append) == 0
    total = len(mutants_of("tiny/bounds.py", CODE))
    assert f"the time is over: {total} mutants were not tried" in said
    assert said[-1].startswith("0 of 0 killed")


def test_tests_that_fail_without_a_mutant_stop_the_campaign(project):
    (project.root / "tests/test_bounds.py").write_text("def test_it():\n    raise ValueError\n")
    with pytest.raises(CampaignError, match="no test passed"):
        run(project, say=lambda text: None)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("{gap}", id="no reason"),
        pytest.param("{gap} || ", id="empty reason"),
        pytest.param("{gap} ||", id="no space behind it"),
        pytest.param("tiny/bounds.py || within || a reason", id="no mutant"),
        pytest.param("tiny/bounds.py || within || compare || value <= LIMIT || a reason", id="nothing new"),
        pytest.param("because", id="words"),
    ],
)
def test_an_accepted_mutant_needs_a_reason(line, project):
    accept(project, line.format(gap=min(GAPS)))
    with pytest.raises(CampaignError, match="line 3 is not: module"):
        run(project)


def test_an_accepted_line_that_is_about_no_mutant_is_told(project):
    accept(project, "tiny/bounds.py || gone || compare || a < b => a <= b || it was there once")
    said = []
    run(project, seconds=0, say=said.append)
    assert "tiny/bounds.py || gone || compare || a < b => a <= b" in said[0]


def test_the_product_s_own_list_is_in_order():
    read_accepted(PRODUCT.accepted)


def test_whatever_a_run_started_is_ended_with_it(project, tmp_path):
    (project.root / "tests/test_bounds.py").write_text(f"""\
import subprocess, sys
from pathlib import Path


def test_that_leaves_a_process_behind():
    # It holds nothing of the test's open, and would run for an hour.
    code = "import time; print('here', flush=True); time.sleep(3600)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    child.stdout.readline()
    Path({str(tmp_path / "child")!r}).write_text(str(child.pid))
    child.returncode = 0  # nobody is to wait for it
""")
    project.copy()
    assert run_pytest(project, ["tests"], 60) == 0
    child = (tmp_path / "child").read_text()
    wait_until(lambda: has_ended(child), "the end of the child")


def has_ended(number):
    """Tell whether a process was killed; whoever inherited it may not have noticed."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except OSError:
        return True


def test_a_run_that_does_not_end_is_ended(project):
    (project.root / "tests/test_bounds.py").write_text("def test_it():\n    while True:\n        pass\n")
    project.copy()
    assert run_pytest(project, ["tests"], 5) is None


def names(source):
    return [mutant.key for mutant in mutants_of("m", source)]


def test_a_mutant_keeps_its_name_where_lines_move():
    assert names("import os\n\n# a comment\n" + CODE.replace("\n\n\n", "\n\n\n\n# more\n")) == names(CODE)


def test_mutants_of_equal_statements_have_names_of_their_own():
    found = names("def f(a):\n    if a:\n        g(1)\n        g(1)\n")
    assert len(found) == len(set(found))


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        pytest.param("x = a < b", {"x = a <= b", "x = a >= b"}, id="compare"),
        pytest.param("x = a is None", {"x = a is not None"}, id="identity"),
        pytest.param("x = a and b", {"x = a or b", "x = a", "x = b"}, id="and"),
        pytest.param("x = not a", {"x = a"}, id="not"),
        pytest.param("x = a + b", {"x = a - b"}, id="arithmetic"),
        pytest.param("x += a", {"x = a", "x -= a"}, id="assign"),
        pytest.param("x = 5", {"x = 6", "x = 4"}, id="integer"),
        pytest.param("x = True", {"x = False"}, id="bool"),
        pytest.param("x = 'text'", set(), id="text"),
        pytest.param("f(a)", {"pass"}, id="call"),
        pytest.param("x = min(a)", {"x = max(a)"}, id="minimum"),
        pytest.param("x = a[:b]", {"x = a[:]", "x = a[:b + 1]", "x = a[:b - 1]"}, id="slice"),
        pytest.param("x = a if b else c", {"x = a if not b else c", "x = a if False else c"}, id="choice"),
        pytest.param("x = [a for a in b if a]", {"x = [a for a in b if True]"}, id="filter"),
        pytest.param("raise FormatError(a)", {"raise IntegrityError(a)"}, id="own error"),
        pytest.param("raise KeyError(a)", {"raise RuntimeError(a)"}, id="error"),
        pytest.param("x = Reason.LIMIT", {"x = Reason.IO_ERROR"}, id="reason"),
        pytest.param("if a:\n    x = b", {"if not a:", "if False:"}, id="condition"),
        pytest.param("for a in b:\n    break", {"continue"}, id="loop"),
        pytest.param("try:\n    x = a\nexcept KeyError:\n    x = b", {"except ():"}, id="except"),
        pytest.param(
            "try:\n    x = a\nexcept (A, B):\n    x = b", {"except (A,):", "except (B,):"}, id="one of two"
        ),
        pytest.param("def f() -> bool:\n    return a", {"return not a"}, id="returned bool"),
        pytest.param(
            "def f() -> int:\n    return a", {"return a + 1", "return a - 1"}, id="returned integer"
        ),
        pytest.param("def f() -> bytes:\n    return a", {"return a[:0]", "return"}, id="returned bytes"),
        pytest.param("import a\n__all__ = ['b']\n'docstring'", set(), id="no code"),
        pytest.param("x = 5  # pragma: no cover", set(), id="never runs"),
    ],
)
def test_each_kind_of_change_is_made(code, changed):
    found = mutants_of("m", code)
    assert {mutant.new for mutant in found} == changed
    for mutant in found:
        tree = ast.parse(mutant.source())
        assert mutant.old != mutant.new
        assert ast.dump(tree) != ast.dump(ast.parse(code))


def test_the_mutants_of_the_product_are_python():
    for module in PRODUCT.modules():
        source = (ROOT / module).read_text()
        found = mutants_of(module, source)
        assert len({mutant.key for mutant in found}) == len(found)
        for mutant in found[::50]:
            compile(mutant.source(), module, "exec")


def test_a_seed_decides_the_sample():
    found = {
        module: mutants_of(module, (ROOT / module).read_text()) for module in PRODUCT.modules(["audit/*"])
    }
    one = [mutant.key for mutant in choose(found, 90, 1)]
    assert one == [mutant.key for mutant in choose(found, 90, 1)]
    assert one != [mutant.key for mutant in choose(found, 90, 2)]
    assert len({key.partition(" ")[0] for key in one}) == len(found), "some of each module"
    assert len(choose(found, None, 1)) == sum(map(len, found.values()))


def test_the_command_line_tells_a_bad_list_from_a_gap(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(campaign, "HERE", tmp_path / "tests" / "mutants")
    assert campaign.main(["--since", "no-such-revision"]) == 2
    assert "git diff" in capsys.readouterr().err


def test_nothing_of_the_campaign_is_under_version_control():
    ignored = subprocess.run(
        ["git", "-C", ROOT, "check-ignore", "--quiet", os.fspath(PRODUCT.build)], check=False
    ).returncode
    assert ignored == 0 or not (ROOT / ".git").exists()
