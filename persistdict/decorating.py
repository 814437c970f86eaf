"""What the decorator makes of a function."""

from __future__ import annotations

import inspect
from typing import Any

from persistdict.binding import Binding, name_of_function
from persistdict.canonical import Canonical
from persistdict.codecs import SafeCodec
from persistdict.memoized import Memoized, Plan

__all__ = ["Plan", "decorated"]


def decorated(home: Any, function: Any, plan: Plan, ignore: tuple[str, ...]) -> Any:
    """A function whose results are kept in a dictionary, or the same of a static or a class method.

    Raises TypeError for what is no function, or one that gives a generator; ValueError for options that exclude each
    other.
    """
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(decorated(home, function.__func__, plan, ignore))
    if not callable(function):
        raise TypeError(f"memoize is for functions, not for a {type(function).__qualname__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("what a generator gives cannot be kept: return a list")
    canonical = Canonical(home.codec if isinstance(home.codec, SafeCodec) else SafeCodec(), plan.typed)
    if plan.key is not None:
        if ignore or plan.name or plan.version is not None or plan.typed:
            raise ValueError("with key= there is no ignore, name, version or typed; the key is what it returns")
        return Memoized(home, function, plan, canonical)
    canonical.encode(plan.version)
    plan = plan._replace(name=plan.name or name_of_function(function), binding=Binding(function, ignore))
    return Memoized(home, function, plan, canonical)
