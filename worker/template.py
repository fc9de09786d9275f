"""Template: ``${name}`` in a text that an operator wrote, and nothing else of it.

Pure. Not ``string.Template``: that takes ``$name`` for a field as well and makes one dollar of two,
so what a payload says would depend on whether it has a field somewhere else.
"""

import re
from collections.abc import Iterable, Mapping

_FIELD = re.compile(r"\$\{(\w+)\}", re.ASCII)
_OPENED = re.compile(r"\$\{[^}]*\}?")


def fill(text: str, fields: Mapping[str, str]) -> str:
    """Return the text with the fields that are known filled in, once; all else stays as it is."""
    return _FIELD.sub(lambda found: fields.get(found[1], found[0]), text)


def fields_of(text: str) -> frozenset[str]:
    """Return the names of the fields that a text has."""
    return frozenset(_FIELD.findall(text))


def opened_in(text: str) -> list[str]:
    """Return all that begins as a field does, well written or not: nobody means it as it stands."""
    return _OPENED.findall(text)


def fault_of(text: str, known: Iterable[str]) -> str:
    """Return what is wrong with the fields of a text, "" if it has no others than ``known``."""
    fields = [f"${{{name}}}" for name in known]
    for field in opened_in(text):
        if field not in fields:
            return f"holds {field}, which is no field; there are {', '.join(fields)}"
    return ""
