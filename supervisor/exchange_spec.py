"""What the simulated exchange is told to do, by fleet.toml or by ``simulate``.

Bounds are checked by those two; its process believes what it is told.
"""

from dataclasses import dataclass

RATE_MAX = 200_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorSpec:
    """
    What the exchange does. ``port`` 0 takes any free one.

    ``rate`` is data messages a second per session, one in three a book update, the others trades.
    ``answer_delay_s`` (seconds) is added to every answer. The same ``seed`` gives the same market,
    to each session its own, or with ``shared`` one to all sessions of an exchange. A session is
    closed after ``max_age_s`` (0: never), and told so ``notice_s`` before (0: not).
    """

    host: str = "127.0.0.1"
    port: int = 9350
    rate: float = 20.0
    seed: int = 1
    answer_delay_s: float = 0.0
    shared: bool = False
    max_age_s: float = 0.0
    notice_s: float = 0.0


DEFAULTS = SimulatorSpec()
