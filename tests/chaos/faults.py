"""All kinds of faults: importing this module fills the register."""

from chaos import network_faults, order_faults, process_faults, reload_faults, subscriber_faults
from chaos.kinds import FUNCTIONS, WEIGHTS, Missed

MODULES = (process_faults, network_faults, order_faults, reload_faults, subscriber_faults)

__all__ = ["FUNCTIONS", "MODULES", "WEIGHTS", "Missed"]
