"""What the modules may know: rules that no linter has."""

from __future__ import annotations

import ast
import re
from importlib import import_module

import pytest
from support.journals import ROOT

NAMES = re.compile(
    r"gunicorn|cheroot|cherrypy|waitress|uwsgi|wsgiref|gevent|webob|werkzeug|flask|django|bottle|falcon",
    re.IGNORECASE,
)


PUBLIC = {"securefs", "securefs.audit", "securefs.disk", "securefs.metrics", "securefs.middleware"}


def imports_of(path):
    """Yield (module, name) for each name of ours that a file imports, lazily or not."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "securefs":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "securefs")


@pytest.mark.parametrize("path", sorted((ROOT / "securefs" / "app").glob("*.py")), ids=lambda path: path.name)
def test_the_reference_app_uses_public_names_alone(path):
    """It is made to be copied from."""
    used = {(module, name) for module, name in imports_of(path) if not module.startswith("securefs.app")}
    assert {module for module, _ in used} <= PUBLIC
    assert [name for module, name in used if name not in import_module(module).__all__] == []


def others_than(known):
    return sorted(path for path in (ROOT / "middleware").glob("*.py") if path.name != known)


@pytest.mark.parametrize("path", others_than("servers.py"), ids=lambda path: path.name)
def test_what_servers_and_frameworks_do_is_known_in_one_module(path):
    assert NAMES.findall(path.read_text()) == []


def test_that_module_knows_them():
    assert NAMES.search((ROOT / "middleware" / "servers.py").read_text())
