"""Give one object methods of its own by a class derived from its class, and take them away again. Knows Python only.

Python looks for ``__call__`` in the class, so a hook around every call of an object cannot be put into the object. The
derived class has the name and module of its base and is equal to it, for code that writes the name into a file or
compares types (as ``from_pipe`` of diffusers does). Copies and pickles of the object have the methods too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

Methods = Callable[[type], dict[str, Any]]


@functools.cache
def derived(base: type, methods: Methods) -> type:
    """Return the class derived from ``base`` with the methods that ``methods`` makes for it; the same each time."""

    def reduce(self: Any, protocol: Any) -> Any:
        reduced = super(kind, self).__reduce_ex__(protocol)
        return (_blank, (base, methods), *reduced[2:]) if type(self) is kind else reduced

    def same(cls: type, value: object) -> bool:
        return cls is value or (cls is kind and value is base)

    names = {"__module__": base.__module__, "__qualname__": base.__qualname__, "__doc__": base.__doc__}
    metaclass: Any = type("Alike", (type(base),), {"__eq__": same, "__hash__": type.__hash__})
    kind = metaclass(base.__name__, (base,), {**names, **methods(base), "__reduce_ex__": reduce})
    return kind


def derive(instance: Any, methods: Methods) -> None:
    """Give an object of a Python class methods; ``methods`` is a function of a module, so that it can be pickled."""
    kind: Any = type(instance)
    if derived(kind.__mro__[1], methods) is not kind:
        instance.__class__ = derived(kind, methods)


def restore(instance: Any, methods: Methods) -> None:
    """Give an object its class back. If its class was derived further since, the class stays, without effect."""
    base: Any = type(instance).__mro__[1]
    if derived(base, methods) is type(instance):
        instance.__class__ = base


def _blank(base: type, methods: Methods) -> Any:
    instance: Any = object.__new__(base)
    instance.__class__ = derived(base, methods)
    return instance
