"""Contenders: whoever receives the exchange's messages, ours and others, behind one face."""

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from fleet import Fleet

from bench import names
from bench.children import PEERS, Child, Exchange, Failed, Listener, wait_for
from bench.options import Options, accepts, peer_python
from bench.probes import cpu_ns
from shm.layout import Counter
from shm.view import StatsView

# Name, program in peers/, package it stands on, whether it publishes and under which topic.
PROGRAMS = (
    (names.FLOOR, "floor.py", "picows", "floor"),
    (names.BY_HAND, "by_hand.py", "websockets", "hand"),
    (names.PICOWS, "picows_client.py", "picows", None),
    (names.WEBSOCKETS, "websockets_client.py", "websockets", None),
    (names.AIOHTTP, "aiohttp_client.py", "aiohttp", None),
    (names.JETSOCKET, "jetsocket_client.py", "jetsocket", None),
)
JOURNAL = 'publish = {{ journal = {{ size = "{size}" }} }}\n'
SETTLE_S = 0.1
# Who is not heard by a plain SUB: kinds of bench/subscriber_process.py.
KINDS = {names.OURS_FOLLOWER: "follow", names.OURS_SUBSCRIBER: "library"}


@dataclass(frozen=True, slots=True)
class Run:
    """
    One turn of one contender.

    Attributes:
        cpu_ns: CPU a message, of the whole process.
        rate: Messages a second, until the last was read.

    """

    cpu_ns: float
    rate: float


@dataclass
class Contender:
    """
    A process that receives.

    Attributes:
        name: As in the tables.
        tag: Of its session at the exchange.
        listener: Who receives from it, if anybody.

    """

    name: str
    tag: str
    pid: int
    counted: object
    listener: Listener | None = None
    fleet: Fleet | None = None
    endpoint: str = ""
    lost: list[int] = field(default_factory=list)

    def run(self, exchange: Exchange, traffic: dict, **load) -> Run:
        """
        Let the exchange send, and return what it took.

        Raises:
            Failed: If it did not handle what was sent.

        """
        if self.listener is not None:
            self.listener.order("mark", timed=False)
        count, cpu = self.counted(), cpu_ns(self.pid)
        told = exchange.go([self.tag], traffic, **load)
        time.sleep(SETTLE_S)
        wanted = count + told["sent"]
        wait_for(lambda: self.counted() >= wanted, f"{self.name} handles {told['sent']}", 10)
        cost_ns = (cpu_ns(self.pid) - cpu) / told["sent"]
        if self.listener is not None:
            self.lost.append(told["sent"] - self.listener.wait_count(told["sent"], 0.5))
        return Run(cost_ns, told["sent"] * 1e9 / told["took_ns"])


def connection(exchange: Exchange, name: str, ca: str | None, *, engine="auto", journal="8MiB"):
    """Return the TOML of one connection of ours."""
    text = f'[[connection]]\nname = "{name}"\nurl = "{exchange.url(name)}"\nengine = "{engine}"\n'
    text += "restart = { stable_after = 0, crash_loop = false }\n"
    if ca is not None:
        text += f'tls = {{ ca = "{ca}" }}\n'
    if has_journal():
        text += JOURNAL.format(size=journal)
    return text


def has_journal() -> bool:
    """Return whether workers write one."""
    return accepts(JOURNAL.format(size="8MiB"))


def ours(name: str, tag: str, fleet: Fleet) -> Contender:
    """Return the worker of a running fleet's connection."""
    directory = next(fleet.shm_base.glob(f"feedwarden-*/{fleet.name}"))
    view = StatsView.open(directory, tag)
    endpoint = f"ipc://{fleet.runtime_dir}/data/{tag}.sock"
    counted = lambda: view.counters[Counter.MESSAGES]  # noqa: E731
    return Contender(name, tag, view.pid, counted, fleet=fleet, endpoint=endpoint)


def peer(program: tuple, exchange: Exchange, folder: Path, ca: str | None) -> Contender:
    """Start a peer. Raises Failed if it is not installed or does not connect."""
    name, file, package, topic = program
    python = peer_python("clients", package)
    if python is None:
        raise Failed("not installed")
    tag = file.removesuffix(".py")
    endpoint = f"ipc://{folder}/{tag}.sock"
    environment = os.environ | ({"BENCH_CA": ca} if ca else {})  # nothing of ours on its path
    arguments = [exchange.url(tag)] + ([endpoint] if topic else [])
    child = Child([python, PEERS / file, *arguments], environment)
    try:
        exchange.wait_session(tag, child)
        time.sleep(0.2)  # it tells its count from a moment after the handshake on
        child.counted()
    except Failed:
        child.stop()
        raise
    return Contender(name, tag, child.pid, child.counted, endpoint=endpoint)


class Field:
    """
    All contenders of a section, alive at once and measured in turns. A context manager.

    Attributes:
        exchange: Who sends.
        contenders: By name.
        absent: Why others are not there, by name.

    """

    def __init__(self, options: Options, ca_and_certificate: tuple | None = None) -> None:
        self._stack = contextlib.ExitStack()
        self._options, self._ca = options, (ca_and_certificate or [None])[0]
        self.contenders: dict[str, Contender] = {}
        self.absent: dict[str, str] = {}
        tls = ca_and_certificate[1:] if ca_and_certificate else None
        self.exchange = self._stack.enter_context(Exchange(tls))
        self.folder = options.subfolder()

    def __enter__(self) -> "Field":
        return self

    def __exit__(self, *_exception) -> None:
        self._stack.close()

    def add_peers(self, wanted=None) -> None:
        """Start the peers of these names, or all."""
        for program in PROGRAMS:
            if wanted is None or program[0] in wanted:
                try:
                    found = peer(program, self.exchange, self.folder, self._ca)
                except Failed as error:
                    self.absent[program[0]] = str(error)
                    continue
                self._stack.callback(found.counted.__self__.stop)
                self.contenders[found.name] = found
                if program[3]:
                    self.listen(found, program[3])

    def add_fleet(self, wanted: dict[str, tuple[str, dict]]) -> None:
        """Start one fleet with a connection of each name: (tag, arguments of ``connection``)."""
        toml = "".join(
            connection(self.exchange, tag, self._ca, **arguments)
            for tag, arguments in wanted.values()
        )
        fleet = Fleet(self._options.subfolder(), toml)
        self._stack.callback(fleet.kill_everything)
        fleet.start()
        fleet.wait_up()
        for name, (tag, _) in wanted.items():
            self.contenders[name] = found = ours(name, tag, fleet)
            if name in KINDS:
                self._listen_by(found, KINDS[name])
            elif name != names.OURS_QUIET:
                self.listen(found, f"data.{tag}")

    def listen(self, contender: Contender, prefix: str, sockets: int = 1) -> None:
        """Subscribe to a contender, in place of who did so far."""
        self.deafen(contender)
        listener = Listener("sub", contender.endpoint, prefix, str(sockets))
        contender.listener = self._stack.enter_context(listener)
        self._until_heard(contender)

    def _listen_by(self, contender: Contender, kind: str) -> None:
        fleet = contender.fleet
        environment = {"FEEDWARDEN_SHM": str(fleet.shm_base)}
        listener = Listener(kind, fleet.name, contender.tag, environment=environment)
        contender.listener = self._stack.enter_context(listener)
        if kind == "library":
            self._until_heard(contender)

    def deafen(self, contender: Contender) -> None:
        """Take the listener away."""
        if contender.listener is not None:
            contender.listener.stop()
            contender.listener = None

    def _until_heard(self, contender: Contender) -> None:
        def heard():
            self.exchange.go([contender.tag], {"size": 100}, rate=1000, burst=1, count=20)
            return contender.listener.wait_count(20, 0.2) >= 20

        wait_for(heard, f"{contender.name} is heard by its subscriber", 10)
        wait_for(lambda: not self._grows(contender), "quiet", 5)

    def _grows(self, contender: Contender) -> bool:
        before = contender.listener.order("count")["count"]
        time.sleep(0.05)
        return contender.listener.order("count")["count"] != before
