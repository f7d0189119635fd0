"""Every framework on every server: docs/matrix.md, cell by cell, against the running servers."""

from __future__ import annotations

import pytest
from support import framework_matrix, matrix_table
from support.framework_matrix import ROWS, SERVERS


@pytest.fixture(scope="module", params=ROWS)
def row(request, tmp_path_factory):
    """The servers of one framework, all started at once, and what the bare app makes of the cases."""
    with framework_matrix.sites(request.param, tmp_path_factory.mktemp("row")) as sites:
        yield request.param, sites, framework_matrix.expectations(request.param, sites["bare"])


@pytest.mark.parametrize("server", SERVERS)
def test_a_framework_on_a_server_does_what_the_page_says(row, server):
    name, sites, bare = row
    if server not in sites:
        pytest.skip(f"{server} is not installed")
    seen = framework_matrix.try_all(name, sites[server], bare)
    failed = "\n".join(
        f"{case} {result}" for case, result in seen.items() if (result or "").startswith("failed")
    )
    assert matrix_table.cell(seen) == matrix_table.written()[name][server], (
        f"{failed}\n{sites[server].server.log[-2000:]}"
    )


def test_the_page_is_made_of_its_cells():
    assert matrix_table.is_current(), "run python tests/support/matrix_table.py"


def test_a_case_that_fails_is_not_counted():
    """The count is what the other tests stand on."""
    seen = dict.fromkeys(framework_matrix.CASES)
    assert matrix_table.cell(seen) == "8/8"
    assert matrix_table.cell(seen | {"names": "failed: why", "range": "range"}) == "7/8 ²"


def test_every_case_passes_on_every_server_of_the_page():
    cells = [cell for row in matrix_table.written().values() for cell in row.values()]
    assert len(cells) == len(ROWS) * len(SERVERS)
    assert {cell.split()[0] for cell in cells} == {"8/8"}
