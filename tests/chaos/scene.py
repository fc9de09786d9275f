"""Scene: the fleet, its exchange and its subscriber, and what faults are done with."""

import contextlib
import os
import signal
import threading
import time

from faulty import FaultyFleet, zygote_of
from fleet import PATIENCE_S, TOPICS, wait_for

from chaos.kinds import Missed

# All restarts and dials at once: there is little time. What a worker takes stays in its journal
# for half a minute.
CONNECTION = (
    TOPICS
    + """stop_timeout = {stop_timeout:.3f}
heartbeat = {{ interval = {interval:.3f}, timeout = 0.9 }}
reconnect = {{ initial_delay = 0.05, max_delay = 0.5, stable_after = 0.5 }}
restart = {{ stable_after = 0, crash_loop = false }}
hang = {{ warn_after = 1, timeout = 2 }}
limits = {{ max_message = "1MiB" }}
[connection.publish]
sndhwm = {sndhwm}
journal = {{ size = "{journal_mib}MiB" }}
stats = {{ ring = 1024 }}
"""
)
SETTINGS = {"topics": 1, "stop_timeout": 5.0, "interval": 0.9, "sndhwm": 200, "journal_mib": 3}


def toml_of(exchange, settings):
    """Return the connections of a fleet.toml."""
    connections = []
    for name, given in settings.items():
        topics = ", ".join(f"'s{number}usdt@trade'" for number in range(given["topics"]))
        url = exchange.url("/binance", name)
        connections.append(CONNECTION.format(**given | {"topics": topics}, name=name, url=url))
    return 'orphans = "keep"\n' + "".join(connections)


class Scene:
    """
    What a fault can reach.

    Attributes:
        settings: Of each connection, as the file has them.
        rotated: Connections whose workers may have died while two sessions brought the same.
        births: How often a supervisor was started.

    """

    def __init__(self, fleet: FaultyFleet, exchange, witness, settings):
        self.fleet, self.exchange, self.witness = fleet, exchange, witness
        self.settings = settings
        self.births = 1
        self.rotated = set()
        self.due = []  # (at_s, call), of what was begun
        self._head = fleet.file.read_text().split('orphans = "keep"')[0]

    @property
    def names(self):
        return tuple(self.settings)

    def later(self, seconds, call):
        """Have something done in so many seconds."""
        self.due.append((time.monotonic() + seconds, call))

    def attempt(self, call):
        """Do what may find nobody."""
        with contextlib.suppress(Missed):
            call()

    # Processes -------------------------------------------------------------------------------

    def signal(self, pid, number):
        """Signal a process of this fleet, and none that has got its pid; return whether it did."""
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(pid)
            try:
                if self.fleet.owns(pid):
                    signal.pidfd_send_signal(handle, number)
                    return True
            finally:
                os.close(handle)
        return False

    def stand(self, pid, seconds):
        """Stop a process of ours, and have it go on."""
        os.kill(pid, signal.SIGSTOP)
        resume = threading.Timer(seconds, os.kill, (pid, signal.SIGCONT))
        resume.start()
        resume.join()

    def helper(self):
        """Return the fork helper's pid."""
        try:
            return zygote_of(self.fleet)
        except StopIteration:
            raise Missed from None

    def slay_supervisor(self):
        self.fleet.process.kill()
        self.fleet.process.wait(PATIENCE_S)

    def run_again(self):
        """Wait for the end of a supervisor and start the next."""
        self.fleet.process.wait(PATIENCE_S)
        self.fleet.start()
        self.births += 1

    # Orders ----------------------------------------------------------------------------------

    def order(self, verb, *names, **keys):
        """Give an order, which must be accepted."""
        reply = self.fleet.tell(verb, *names, **keys)
        assert not reply.error, f"{verb} {names}: {reply.error}"
        return reply

    def reload(self, name, **changed):
        """Change keys of a connection in the file and have it taken over."""
        self.settings[name] = self.settings[name] | changed
        self.fleet.file.write_text(self._head + toml_of(self.exchange, self.settings))
        document = self.order("reload").document
        assert name in {row["connection"] for row in document["changes"]}, document

    # The end ---------------------------------------------------------------------------------

    def calm(self):
        """End every fault, and wait until everybody is up."""
        while self.due:
            self.due.pop()[1]()
        self.exchange.command("clear")
        self.order("start", *self.names)
        self.fleet.wait_up(timeout_s=2 * PATIENCE_S)
        wait_for(lambda: len(self.fleet.pids()) <= len(self.names) + 2, "no process too many")
