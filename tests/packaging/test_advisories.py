"""The lower bounds in pyproject.toml exclude versions with known vulnerabilities; advisories.toml says which."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import date
from importlib.metadata import PackageNotFoundError, requires, version
from itertools import pairwise
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover  # the floor's interpreter brings no reader for it
    tomllib = pytest.importorskip("tomli")

HERE = Path(__file__).parent
PROJECT = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text("utf-8"))
TABLE = tomllib.loads((HERE / "advisories.toml").read_text("utf-8"))
ADVISORIES, EXCEPTIONS = TABLE["advisories"], TABLE["exceptions"]
# Of these extras, what the tests themselves install.
INSTALLED = {"required", "fast", "server", "dev", "build-system"}


def requirements() -> Iterator[tuple[str, Requirement]]:
    """Yield (extra, requirement); "required" and "build-system" stand for what has no extra."""
    extras = {
        "required": PROJECT["project"]["dependencies"],
        "build-system": PROJECT["build-system"]["requires"],
        **PROJECT["project"]["optional-dependencies"],
    }
    for extra, lines in extras.items():
        yield from (
            (extra, requirement) for requirement in map(Requirement, lines) if requirement.name != "securefs"
        )


REQUIREMENTS = [pytest.param(extra, item, id=f"{extra} {item.name}") for extra, item in requirements()]


def lower_bound(requirement: Requirement) -> Version:
    (bound,) = [item.version for item in requirement.specifier if item.operator == ">="]
    return Version(bound)


def exception_for(extra: str, advisory: dict[str, str]) -> dict[str, str] | None:
    wanted = (advisory["package"], extra, advisory["id"])
    found = [item for item in EXCEPTIONS if (item["package"], item["extra"], item["id"]) == wanted]
    return found[0] if found else None


@pytest.mark.parametrize(("extra", "requirement"), REQUIREMENTS)
def test_a_bound_excludes_each_version_with_a_known_vulnerability(extra, requirement):
    for advisory in ADVISORIES:
        if advisory["package"] == requirement.name and exception_for(extra, advisory) is None:
            assert lower_bound(requirement) >= Version(advisory["fixed"]), advisory["id"]


@pytest.mark.parametrize(("extra", "requirement"), REQUIREMENTS)
def test_each_package_was_looked_up(extra, requirement):
    known = {advisory["package"] for advisory in ADVISORIES}
    assert (requirement.name in known) != (requirement.name in TABLE["none"])
    assert canonicalize_name(requirement.name) == requirement.name


def test_the_table_has_no_other_packages_and_is_sorted():
    named = [advisory["package"] for advisory in ADVISORIES]
    assert isinstance(TABLE["checked"], date), "the day of the search, for those without an advisory"
    assert {*named, *TABLE["none"]} == {requirement.name for _, requirement in requirements()}
    for names in (named, TABLE["none"]):
        assert all(one <= two for one, two in pairwise(names))


@pytest.mark.parametrize(
    "advisory", ADVISORIES, ids=lambda advisory: f"{advisory['package']} {advisory['id']}"
)
def test_each_advisory_says_what_it_is_and_where_it_is_told(advisory):
    assert set(advisory) == {"package", "id", "fixed", "what", "source"}
    assert all(advisory.values())
    assert advisory["source"].startswith("https://")


@pytest.mark.parametrize(("extra", "requirement"), REQUIREMENTS)
def test_what_is_installed_meets_the_bounds(extra, requirement):
    """So that they can be met at all: pip found versions of all of them that fit together."""
    if extra not in INSTALLED:
        try:
            version(requirement.name)
        except PackageNotFoundError:
            pytest.skip(f"the extra {extra} is not installed")
    wanted = requirement.specifier
    # A build in isolation gets its own setuptools; the installed one is that of the extra dev.
    if extra != "build-system":
        assert wanted.contains(version(requirement.name), prereleases=True)


@pytest.mark.parametrize("item", EXCEPTIONS, ids=lambda item: item["id"])
def test_an_exception_is_needed(item):
    """As long as the package beside it allows no fixed version, and no longer."""
    (advisory,) = [one for one in ADVISORIES if (one["package"], one["id"]) == (item["package"], item["id"])]
    (bound,) = [one for extra, one in requirements() if (extra, one.name) == (item["extra"], item["package"])]
    assert lower_bound(bound) < Version(advisory["fixed"])
    limits = [one for one in map(Requirement, requires(item["because_of"])) if one.name == item["package"]]
    assert any(not limit.specifier.contains(advisory["fixed"]) for limit in limits)


def test_the_extra_fast_leaves_an_apps_server_and_framework_alone():
    fast = PROJECT["project"]["optional-dependencies"]["fast"]
    assert [Requirement(line).name for line in fast] == ["cryptography"]
