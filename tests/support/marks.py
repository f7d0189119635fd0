"""By what marks `make test-fast` leaves tests out: all of them are decided here.

A test is marked ``server`` or ``browser`` where it, or a fixture of it, comes to call what starts one, however indirectly. What is
``slow`` cannot be seen in code: :data:`SLOW` lists it.
"""

from __future__ import annotations

import functools
import inspect
import types

from support import browsers, servers

# Whatever starts a server or a browser gets there by one of these functions.
STARTERS = {servers.launch: "server", browsers.open_window: "browser"}
# Tests that take more than about two seconds on one core: files, and single tests of others.
SLOW: tuple[str, ...] = ()


def marks_of(item) -> set[str]:
    """Return the marks of a collected test."""
    fixtures = [made.func for known in item._fixtureinfo.name2fixturedefs.values() for made in known]
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    marks = set().union(*map(started_by, [item.function, *fixtures, *filter(callable, values)]))
    name = item.nodeid.partition("[")[0]
    return marks | {"slow" for known in SLOW if name.removeprefix("tests/").startswith(known)}


def started_by(function) -> frozenset[str]:
    """Return what a function starts by all that it calls, directly or not, as far as its code names it."""
    inner = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    return _started_by(inner) if isinstance(inner, types.FunctionType) else frozenset()


@functools.cache
def _started_by(function: types.FunctionType) -> frozenset[str]:
    seen, left = set(), [function]
    while left:
        # Behind a decorator, such as that of a context manager, there is the function that was written.
        function = inspect.unwrap(left.pop())
        if function not in seen:
            seen.add(function)
            left += _named_by(function)
    return frozenset(mark for function, mark in STARTERS.items() if inspect.unwrap(function) in seen)


def _named_by(function: types.FunctionType):
    """Yield the functions of the tests that a function names: as such, as a default, of a module or of a class."""
    names = _names_in(function.__code__)
    values = [function.__globals__[name] for name in names if name in function.__globals__]
    for value in [*values, *(function.__defaults__ or ())]:
        if isinstance(value, types.FunctionType):
            yield value
        elif isinstance(value, types.ModuleType) and value.__name__.startswith("support."):
            yield from (
                made for name in names if isinstance(made := vars(value).get(name), types.FunctionType)
            )
        elif isinstance(value, type) and not value.__module__.startswith("securefs."):
            yield from (made for made in vars(value).values() if isinstance(made, types.FunctionType))


def _names_in(code: types.CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names_in, inner))
