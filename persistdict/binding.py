"""What a call of a function means: each argument by its name, however it was given."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from persistdict.canonical import full_name

__all__ = ["Binding", "is_async", "name_of_function"]


def is_async(function: Any) -> bool:
    """Whether a call of the function gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def name_of_function(function: Any) -> str:
    """The name by which the entries of a function are found. Raises ValueError if another one may have it too."""
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str) or not isinstance(getattr(function, "__module__", None), str):
        raise ValueError(f"a {type(function).__qualname__} has no name that its entries could be found by; give name=")
    if name.endswith("<lambda>"):
        raise ValueError("all lambdas have the same name, and would get each other's results; give name= or key=")
    bound_to = getattr(function, "__self__", None)
    if bound_to is not None and not inspect.ismodule(bound_to):
        raise ValueError(
            f"{name} is bound to a {type(bound_to).__qualname__}, of which there may be others; give name= or key=, or "
            "memoize the method in its class"
        )
    code = getattr(function, "__code__", None)
    outer = set(code.co_freevars) - {"__class__", function.__name__} if code is not None else ()
    if outer:
        raise ValueError(
            f"{name} uses variables of the function around it ({', '.join(sorted(outer))}), so two of that name may do "
            "different things; give name= or key=, or pass them as arguments"
        )
    return full_name(function)


class Binding:
    """The parameters of a function, without those to ignore.

    Args:
        function: any callable that has a signature.
        ignore: names of parameters; if there is a `**` parameter, also of keywords that it takes.

    Raises ValueError for a name that is none, and TypeError if the signature cannot be told.
    """

    def __init__(self, function: Callable[..., Any], ignore: Iterable[str]) -> None:
        try:
            self._signature = inspect.signature(function)
        except ValueError as error:
            raise TypeError(f"the parameters of {function!r} cannot be told; give key=") from error
        parameters = self._signature.parameters
        kinds = {name: parameter.kind for name, parameter in parameters.items()}
        ignored = frozenset(ignore)
        self._rest = next((name for name, kind in kinds.items() if kind is inspect.Parameter.VAR_KEYWORD), "")
        self._positional = [name for name, kind in kinds.items() if kind <= inspect.Parameter.POSITIONAL_OR_KEYWORD]
        self._by_keyword = {
            name
            for name, kind in kinds.items()
            if kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        }
        self._defaults = {name: each.default for name, each in parameters.items() if each.default is not each.empty}
        several: dict[Any, Any] = {inspect.Parameter.VAR_POSITIONAL: (), inspect.Parameter.VAR_KEYWORD: {}}
        self._defaults |= {name: several[kind] for name, kind in kinds.items() if kind in several}
        self.kept = [name for name in parameters if name not in ignored]
        self._dropped = ignored - set(parameters)  # from what ** takes
        self.skip = bool(self._positional) and self._positional[0] in ignored
        if self._dropped and not self._rest:
            raise ValueError(
                f"ignore names {', '.join(sorted(self._dropped))}, which are no parameters of the function"
            )

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[str, Any]]:
        """The arguments that are not ignored, in the order of the parameters. Raises TypeError as the call would."""
        values = self._bind_simply(args, kwargs)
        if values is None:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            values = bound.arguments
        if self._dropped:
            rest = {name: value for name, value in values[self._rest].items() if name not in self._dropped}
            values = {**values, self._rest: rest}
        return [(name, values[name]) for name in self.kept]

    def _bind_simply(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | None:
        """All arguments by their names, where no parameter takes several of them; None to leave it to `inspect`."""
        if len(args) > len(self._positional):
            return None
        given = dict(zip(self._positional, args, strict=False))
        for name in kwargs:
            if name in given or name not in self._by_keyword:
                return None
        values = {**self._defaults, **given, **kwargs}
        return values if len(values) == len(self._signature.parameters) else None
