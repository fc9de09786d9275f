"""The reference of fleet.toml keys, made from the model; docs/fleet-toml.md must hold its rows."""

from pydantic import BaseModel

from supervisor.fleet_model import (
    BudgetTable,
    ConnectionTable,
    FleetTable,
    SecretTable,
    SimulatorTable,
)
from supervisor.reload import KEYS, key_of
from worker.respec import COSTS, cost_of

VALUES = ("TextMatch", "SecretTable")  # one value each, though written as a table


def tables_of(model, prefix=""):
    """(key path, field) of every key below a model."""
    for name, field in model.model_fields.items():
        path = f"{prefix}{name}"
        inner = inner_table(field.annotation)
        yield path, field, inner
        if inner is not None:
            yield from tables_of(inner, path + ("[]." if is_list(field.annotation) else "."))


def is_list(annotation):
    return getattr(annotation, "__origin__", None) is list


def inner_table(annotation):
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            if candidate.__name__ in VALUES:
                continue
            return candidate
    return None


def default_of(field, inner):
    if field.is_required():
        return "required"
    value = field.default
    if inner is not None and isinstance(value, BaseModel):
        return "table"
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, str):
        return f'`"{getattr(value, "value", value)}"`'
    return f"`{value}`"


def rows():
    """One Markdown table row a key."""
    for heading, model, prefix in (
        ("[fleet]", FleetTable, "fleet."),
        ("[[connection]]", ConnectionTable, ""),
        ("{env = ...}, {file = ...} or {credential = ...}", SecretTable, ""),
        ('[budget."host"]', BudgetTable, 'budget."host".'),
        ("[simulator]", SimulatorTable, "simulator."),
    ):
        yield f"## `{heading}`"
        yield from ("", "| key | default | change | meaning |", "|---|---|---|---|")
        for path, field, inner in tables_of(model, prefix):
            meaning = field.description.replace("|", "\\|")
            cost = "as its key" if model is SecretTable else cost_of_key(path)
            yield f"| `{path}` | {default_of(field, inner)} | {cost} | {meaning} |"
        yield ""


def cost_of_key(key):
    """Return what a changed key of fleet.toml costs."""
    if key.startswith(("fleet.", "simulator.")):
        return "new run"
    if key == "name":
        return "another connection"
    if key.startswith("budget."):
        key = "budget"
    by_key = {key_of(field): cost_of(field) for field in (*COSTS, *KEYS) if field != "subscribe"}
    parts = key.replace("[]", "").split(".")
    for length in range(len(parts), 0, -1):
        if (cost := by_key.get(".".join(parts[:length]))) is not None:
            return word(cost)
    below = {cost for known, cost in by_key.items() if known.startswith(f"{key}.")}
    return ", ".join(word(cost) for cost in sorted(below))


def word(cost):
    return cost.name.lower()
