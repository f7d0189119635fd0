"""What the modules may know: rules that no linter has."""

from __future__ import annotations

import re

import pytest
from journals import ROOT

NAMES = re.compile(
    r"gunicorn|cheroot|cherrypy|waitress|uwsgi|wsgiref|gevent|webob|werkzeug|flask|django|bottle|falcon",
    re.IGNORECASE,
)


def others_than(known):
    return sorted(path for path in (ROOT / "middleware").glob("*.py") if path.name != known)


@pytest.mark.parametrize("path", others_than("servers.py"), ids=lambda path: path.name)
def test_what_servers_and_frameworks_do_is_known_in_one_module(path):
    assert NAMES.findall(path.read_text()) == []


def test_that_module_knows_them():
    assert NAMES.search((ROOT / "middleware" / "servers.py").read_text())
