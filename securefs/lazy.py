"""An attribute that is computed when it is first asked for.

:class:`functools.cached_property` does the same, but before Python 3.12 it holds a lock meanwhile,
one for all instances: a child that is forked while another thread computes waits for it for ever.
Here two threads may both compute; the value is the same. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["lazy"]

Value = TypeVar("Value")


class lazy(Generic[Value]):  # noqa: N801  # it is used as a decorator, as property is
    """Turn a method without arguments into an attribute that is kept in the instance."""

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> lazy[Value]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type) -> lazy[Value] | Value:
        """Compute the attribute; Python looks here only until the instance has it."""
        if instance is None:
            return self
        value = instance.__dict__[self._name] = self._compute(instance)
        return value
