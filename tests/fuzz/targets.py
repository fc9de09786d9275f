"""Every target by name. Each is imported only where it runs: some need numpy, some nothing."""

from importlib import import_module

TARGETS = {
    "envelope": "fuzz.envelopes:Envelopes",
    "subscriptions": "fuzz.envelopes:SubscriptionFrames",
    "wire": "fuzz.wires:Wire",
    "events": "fuzz.wires:EventWire",
    "journal": "fuzz.journals:DamagedJournal",
    "journal-live": "fuzz.journals:LiveJournal",
    "journal-successor": "fuzz.journals:SuccessorJournal",
    "stats": "fuzz.segments:StatsSegment",
    "stats-successor": "fuzz.segments:SuccessorStats",
    "registry": "fuzz.segments:RegistryTable",
}
# They break the contract: a runner that does not tell proves nothing.
CONTROLS = {name: f"fuzz.controls:{name.title()}" for name in ("crash", "unnamed", "endless")}


def target_of(name):
    """Return the class of a target."""
    module, _, kind = (TARGETS | CONTROLS)[name].partition(":")
    return getattr(import_module(module), kind)
