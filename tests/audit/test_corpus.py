"""The negative corpus: what each attacker leaves, and what the verifier says of it. test_page.py has the page say the same."""

from __future__ import annotations

import pytest
from support.journal_corpus import CASES, Case
from support.verdicts import unread, verdict_of

from securefs.errors import ConfigurationError


@pytest.mark.parametrize("case", CASES.values(), ids=lambda case: case.name)
def test_the_verifier_meets_each_case(case: Case, written):
    made = case.build()
    if why := unread(made):
        pytest.skip(why)
    try:
        verdict = verdict_of(written(made), made)
    except ConfigurationError:
        assert case.exit == 2
        return
    assert verdict.exit_code == case.exit
    assert {finding.code for finding in verdict.findings} == case.codes


def test_cases_are_the_same_bytes_each_time(written):
    for case in [*CASES.values()][::7]:
        one, other = (
            {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            for folder in (written(case.build()), written(case.build()))
        )
        assert one == other
