"""Matcher: imports the operator's function, where a pong matcher is one."""

import importlib
from collections.abc import Callable

from worker.dialect import MatchFunction
from worker.spec import ConnectionSpec, MatchKind


def pong_function(spec: ConnectionSpec) -> MatchFunction | None:
    """
    Return the function that ``pong_matcher`` names, ``None`` if it names none.

    Raises:
        ImportError: If its module cannot be imported.
        AttributeError: If the module has no such name.

    """
    beat = spec.heartbeat
    if beat is None or beat.pong_matcher is None:
        return None
    if beat.pong_matcher.kind is not MatchKind.CALLABLE:
        return None
    module, _, name = beat.pong_matcher.value.partition(":")
    function: Callable[..., object] = getattr(importlib.import_module(module), name)
    return function
