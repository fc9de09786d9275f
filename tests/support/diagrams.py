"""State diagrams, printed from the machines' own transition tables."""


def mermaid(transitions):
    """Return the Mermaid text of a ``TRANSITIONS`` table, in the order of the states."""
    order = {state: number for number, state in enumerate(transitions)}
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(transitions)).name}"]
    for state, following in transitions.items():
        ordered = sorted(following, key=order.__getitem__)
        lines += [f"    {state.name} --> {after.name}" for after in ordered]
        if not following:
            lines.append(f"    {state.name} --> [*]")
    return "\n".join(lines)
