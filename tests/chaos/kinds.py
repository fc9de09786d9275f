"""The register of faults: a function for each kind, and how often it comes."""

WEIGHTS, FUNCTIONS = {}, {}


class Missed(Exception):
    """There was nothing that the fault could befall: no process, no session."""


def fault(kind, weight=1):
    """Register ``function(scene, step)`` as a kind of fault."""

    def register(function):
        WEIGHTS[kind], FUNCTIONS[kind] = weight, function
        return function

    return register
