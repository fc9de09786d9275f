"""Expressions: what can be told of a JMESPath expression before it meets a message.

Pure. What is wrong with it, and what every message that it matches contains.
"""

import re
import warnings
from itertools import pairwise
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.lexer import Lexer

NESTED_MAX = 100  # a worker walks expressions by recursion, message by message
TOO_DEEP = f"is no usable JMESPath expression: nested deeper than {NESTED_MAX}"

# Comparisons joined by || of which each names the literal: a payload without it matches none.
_COMPARISON = re.compile(r"\s*[\w.]+\s*==\s*'([^'\\]+)'\s*")
_BARE_NAME = re.compile(r"[A-Za-z_]\w*")
_PLAIN = re.compile(r"[A-Za-z0-9_.: -]+")


def fault_of(expression: str) -> str:
    """Return why an expression cannot be used, "" if it can."""
    if sum(map(expression.count, "([{!")) > NESTED_MAX:
        return TOO_DEEP
    try:
        with warnings.catch_warnings():  # an old way to write literals, still understood
            warnings.simplefilter("ignore", PendingDeprecationWarning)
            tree: Any = jmespath.compile(expression).parsed
    except JMESPathError as error:
        position = getattr(error, "lex_position", None)
        where = f" at position {position}" if position is not None else ""
        return f"is no JMESPath expression{where}: {str(error).splitlines()[0]}"
    except RecursionError:
        return TOO_DEEP
    except (ValueError, OverflowError) as error:  # a number of thousands of digits
        return f"is no JMESPath expression: {error}"
    return TOO_DEEP if _is_deep(tree) else _fault_of_calls(expression, tree)


def _fault_of_calls(expression: str, tree: Any) -> str:
    """Return what is wrong with the functions called: they would raise at every message."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        waiting += [child for child in node["children"] if isinstance(child, dict)]
        if node["type"] == "function_expression" and (
            fault := _fault_of_call(node["value"], len(node["children"]))
        ):
            where = _position_of_call(expression, node["value"])
            return f"is no usable JMESPath expression at position {where}: {fault}"
    return ""


def _fault_of_call(name: str, given: int) -> str:
    if name not in Functions.FUNCTION_TABLE:
        return f"there is no function {name}()"
    signature = Functions.FUNCTION_TABLE[name]["signature"]
    wanted = len(signature)
    if signature and signature[-1].get("variadic"):
        return "" if given >= wanted else f"{name}() takes at least {wanted}, got {given}"
    return "" if given == wanted else f"{name}() takes {wanted}, got {given}"


def _position_of_call(expression: str, name: str) -> int:
    tokens = list(Lexer().tokenize(expression))
    for token, behind in pairwise(tokens):
        if token["value"] == name and behind["type"] == "lparen":
            return int(token["start"])
    return 0


def _is_deep(tree: Any) -> bool:
    """Return whether walking an expression's tree recurses more than is good for a worker."""
    level = [tree]
    for _ in range(NESTED_MAX):
        level = [child for node in level for child in node["children"] if isinstance(child, dict)]
        if not level:
            return False
    return True


def hint_of(expression: str) -> str:
    """
    Return a literal that every payload matching an expression contains, or "".

    Known for a bare name (its key must be there) and for comparisons with one and the same quoted
    literal; plain ASCII only, since JSON may escape anything else.
    """
    if _BARE_NAME.fullmatch(expression):
        return expression
    found = [_COMPARISON.fullmatch(part) for part in expression.split("||")]
    literals = {match[1] for match in found if match is not None}
    if None in found or len(literals) != 1:
        return ""
    (literal,) = literals
    return literal if _PLAIN.fullmatch(literal) else ""
