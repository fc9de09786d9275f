"""A fleet whose workers can be told to fail, and a witness of what the supervisor announced."""

import contextlib
import os
from pathlib import Path

from fleet import PATIENCE_S, Fleet, wait_for
from injected import LOGIN
from listening import listening

from supervisor.control import Order, send_order
from supervisor.fleets import opened

SUPPORT = Path(__file__).parent
FEED = """
[[connection]]
name = "{name}"
url = "{url}"
subscribe = ['{{"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}}']
heartbeat = {{ interval = 10, timeout = 10 }}
"""
FULL = os.environ.get("FAULTS_FULL") == "1"  # the numbers that take minutes


def feeds(exchange, *names, extra=""):
    """Connections that a busy machine does not make time out."""
    return "".join(
        FEED.format(name=name, url=exchange.url("/binance", name)) + LOGIN + extra for name in names
    )


def names(count):
    return [f"c{number}" for number in range(count)]


class FaultyFleet(Fleet):
    """A fleet with a folder of orders to its workers."""

    def __init__(self, folder, toml, name="t", prefix=()):
        super().__init__(folder, toml, name, prefix)
        self.orders = folder / "orders"
        self.orders.mkdir(exist_ok=True)
        path = os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])
        self.environment |= {"FAULTS_FOLDER": str(self.orders), "PYTHONPATH": path}

    def order(self, name, what, *, once=False):
        """Have the worker do it at its next dial."""
        fresh = self.orders / ".fresh"
        fresh.write_text(what)
        fresh.rename(self.orders / (f"{name}.once" if once else name))

    def tell(self, verb, *names, **keys):
        """Give the supervisor an order, without the cost of an interpreter."""
        order = Order(verb, tuple(names), **keys)
        reply = send_order(self.runtime_dir / "control.sock", order, PATIENCE_S)
        assert reply is not None, f"{verb}: no answer"
        return reply

    def wait_scanned(self):
        """Wait until the supervisor looked at its workers: only the next look can come late."""
        with opened(self.shm_dir) as registry:
            began_ns = registry.tick_ns
            wait_for(lambda: registry.tick_ns != began_ns, "a look")

    def pid(self, name):
        return self.rows()[name]["pid"]

    def pids_of_workers(self):
        return {name: row["pid"] for name, row in self.rows().items()}


@contextlib.contextmanager
def faulty_fleet(folder, toml, name="t", prefix=()):
    """A started fleet that leaves no process behind, whatever the test did to it."""
    fleet = FaultyFleet(folder, toml, name, prefix)
    try:
        yield fleet.start()
    finally:
        fleet.kill_everything()


class Witness:
    """The fleet's events as ``events.sock`` told them."""

    def __init__(self, listener):
        self._listener = listener

    def of(self, kind, name=None):
        return [event for event in self._listener.events(name) if event["kind"] == kind]

    def kinds(self, name):
        return [event["kind"] for event in self._listener.events(name)]

    def wait(self, kind, name=None, count=1, **keys):
        """Wait for so many events of a kind; return them."""
        try:
            return wait_for(
                lambda: len(found := self.of(kind, name)) >= count and found,
                f"{count} x {kind} of {name or 'the fleet'}",
                **keys,
            )
        except AssertionError as error:
            raise AssertionError(f"{error}; there are {self.kinds(name)}") from None


@contextlib.contextmanager
def witnessed(fleet):
    with listening([f"ipc://{fleet.runtime_dir}/events.sock"]) as listener:
        yield Witness(listener)


def name_of(pid):
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def zygote_of(fleet):
    return next(pid for pid in fleet.pids() if name_of(pid) == "fw-zygote")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def lowest_free_descriptor(pid):
    taken = {int(number) for number in os.listdir(f"/proc/{pid}/fd")}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def shows_all(fleet, count):
    """Return whether the fleet's table is there, with so many connections."""
    with contextlib.suppress(AssertionError):
        return len(fleet.rows()) == count
    return False


def resident_kib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def is_alive(pid):
    """Return whether a process exists that is no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def assert_nothing_left(fleet):
    wait_for(lambda: not fleet.pids(), f"no process: {fleet.pids()}")
    assert fleet.shm_files() == []
    assert not list(fleet.runtime_dir.rglob("*"))
