"""The same commit gets the same verdict: tests draw the same in every normal run (``fuzzing.py``)."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from support.fuzzing import FACTOR, PROFILE, examples
from support.journals import chain_files

TESTS = Path(__file__).parent
# Where Hypothesis is told how to draw; everywhere else what is asked of it may not change that.
IN_CHARGE = {"fuzzing.py", "conftest.py", "test_chance.py"}
SOURCES = [path for path in sorted(TESTS.rglob("*.py")) if path.name not in IN_CHARGE]
DRAW_OTHERWISE = {"seed", "find"}  # of hypothesis
CHANGE_THE_PROFILE = {"get_profile", "load_profile", "register_profile"}
# What settings may say of how a test draws. With a deadline, a machine's speed would decide.
ALLOWED = {"derandomize": "True", "deadline": "None"}

DRAWING = """
from hypothesis import given, strategies as st
import conftest
from support.fuzzing import examples

def bare(drawn):
    print(repr(drawn))

def told(drawn):
    print(repr(drawn))

strategy = st.lists(st.text() | st.integers() | st.sampled_from(["a", "b", "c"]))
given(strategy)(bare)()
examples(50)(given(strategy)(told))()
"""


def drawn(folder, **environ):
    """Return what Hypothesis tests draw in a process of their own."""
    names = {name: value for name, value in os.environ.items() if name != "SECUREFS_FUZZ"}
    done = subprocess.run(
        [sys.executable, "-c", DRAWING],
        env={**names, "PYTHONPATH": str(TESTS), **environ},
        cwd=folder,  # what Hypothesis remembers is left there
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_every_run_takes_the_same_examples_unless_it_is_told_to_look_longer(tmp_path):
    one, other = drawn(tmp_path, PYTHONHASHSEED="0"), drawn(tmp_path, PYTHONHASHSEED="4242")
    assert one == other
    assert len(one) >= 100
    longer, once_more = drawn(tmp_path, SECUREFS_FUZZ="2"), drawn(tmp_path, SECUREFS_FUZZ="2")
    assert len(longer) > len(one)
    assert longer != once_more


def test_the_profile_is_that_of_every_test():
    assert settings().derandomize is (FACTOR == 1)
    assert repr(settings()) == repr(settings.get_profile(PROFILE))
    assert settings().deadline is examples(1).deadline is None


def chosen_by_chance(source: str) -> list[str]:
    """Return what a test module does that could make it draw otherwise in each run."""
    nodes = list(ast.walk(ast.parse(source)))
    imported = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    found = sorted({"hypothesis"} & imported)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "hypothesis":
            found += [name.name for name in node.names if name.name in DRAW_OTHERWISE]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "settings":
            said = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            found += [name for name, value in ALLOWED.items() if said.get(name, value) != value]
        elif isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            unseeded = owner == "random" and "random" in imported and node.attr != "Random"
            found += [node.attr] if unseeded or node.attr in {"example", *CHANGE_THE_PROFILE} else []
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(TESTS).as_posix())
def test_no_test_draws_in_a_way_of_its_own(path):
    """How many examples there are, ``fuzzing.examples`` says; the rest is in its profile."""
    assert chosen_by_chance(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("settings(max_examples=9, derandomize=False)", id="settings of its own"),
        pytest.param("settings(deadline=200)", id="a deadline"),
        pytest.param('settings(settings.get_profile("default"))', id="another profile"),
        pytest.param("from hypothesis import seed", id="seed"),
        pytest.param("import hypothesis", id="the whole module"),
        pytest.param("st.integers().example()", id="example()"),
        pytest.param("import random; random.choice([1, 2])", id="a generator that nobody seeded"),
    ],
)
def test_a_test_that_draws_in_a_way_of_its_own_is_found(source):
    assert len(chosen_by_chance(source)) == 1


def test_settings_that_go_on_from_the_profile_are_fine():
    assert chosen_by_chance("settings(examples(9), stateful_step_count=10, deadline=None)") == []


def test_chains_of_one_tick_of_the_clock_are_in_the_order_in_which_they_began(tmp_path):
    for name, time in (("a", "T09"), ("b", "T07"), ("c", "T08")):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(f'{{"time":"{time}"}}\n')
        os.utime(path, (1, 1))
    assert [path.stem for path in chain_files(tmp_path)] == ["b", "c", "a"]
