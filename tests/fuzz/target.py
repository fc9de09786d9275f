"""What a target is."""


class Target:
    """
    Something that takes input from outside; a context manager.

    ``run`` makes one case from its random numbers, and returns in a word what became of it. It
    raises if the contract does not hold.
    """

    def __init__(self, folder):
        self.folder = folder

    def run(self, rng):
        raise NotImplementedError

    def close(self):
        """Let go of everything."""

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.close()


def named(error):
    """Return the outcome of a case that ended with an error of ours, which must say something."""
    assert str(error)
    return type(error).__name__
