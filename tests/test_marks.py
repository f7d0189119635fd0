"""The marks by which `make test-fast` leaves tests out are those of what a test starts."""

from __future__ import annotations

import pytest
from support import browsers, nginx, server_matrix, servers
from support.marks import SLOW, started_by
from support.servers import ROOT


def by_a_module():
    with server_matrix.running("waitress", None):
        pass


def by_a_function_of_its_own():
    def inner():
        return by_a_module()

    inner()


def by_a_default(browser=browsers.firefox):
    browser("http://127.0.0.1/", None)


class Client:
    def start(self):
        return nginx.nginx(None, None)


def by_a_class():
    Client().start()


def nothing():
    return servers.multipart([])


@pytest.mark.parametrize(
    ("function", "marks"),
    [
        (by_a_module, {"server"}),
        (by_a_function_of_its_own, {"server"}),
        (by_a_default, {"browser"}),
        (by_a_class, {"server"}),
        (servers.gunicorn, {"server"}),
        (browsers.result_of, {"browser"}),
        (nothing, set()),
        (len, set()),
    ],
)
def test_a_test_is_marked_by_what_it_comes_to_call(function, marks):
    assert started_by(function) == marks


@pytest.mark.parametrize("name", SLOW)
def test_what_is_listed_as_slow_is_there(name):
    file, _, test = name.partition("::")
    assert not test or f"def {test}(" in (ROOT / "tests" / file).read_text("utf-8")
    assert (ROOT / "tests" / file).exists()
