"""Matcher: imports the operator's functions, where a rule or the login is one."""

import importlib
import inspect
from typing import Any

from worker.dialect import MatchFunction
from worker.spec import ConnectionSpec, MatchKind


class FunctionUnusable(Exception):
    """A ``package.module:function`` that cannot be imported or is none."""


def load_function(name: str) -> Any:
    """
    Return what ``package.module:function`` names.

    Raises:
        FunctionUnusable: If importing it fails in any way, or it cannot be called.

    """
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # an operator's module may raise anything
        raise FunctionUnusable(f"{name}: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise FunctionUnusable(f"{name}: is a {type(function).__name__}, not a function")
    return function


def pong_function(spec: ConnectionSpec) -> MatchFunction | None:
    """
    Return the function that ``pong_matcher`` names, ``None`` if it names none.

    Raises:
        FunctionUnusable: If it cannot be loaded.

    """
    beat = spec.heartbeat
    if beat is None or beat.pong_matcher is None:
        return None
    if beat.pong_matcher.kind is not MatchKind.CALLABLE:
        return None
    return load_matcher(beat.pong_matcher.value)


def load_matcher(name: str) -> MatchFunction:
    """
    Return what ``package.module:function`` names, if it can say at once whether a message matches.

    Raises:
        FunctionUnusable: If it cannot be loaded, or is a coroutine function.

    """
    function: MatchFunction = load_function(name)
    if inspect.iscoroutinefunction(function):
        raise FunctionUnusable(
            f"{name}: is a coroutine function; whether it matches is needed at once"
        )
    return function
