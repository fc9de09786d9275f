"""A publisher process for subscribers' tests: journal, segment and endpoint as a worker has them.

It obeys: what is published, what is lost on the way, what is not even in the journal, and when it
dies is the test's to say. Nobody is between it and the test, so nothing happens by itself but the
liveness frames.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from slots import slot

from shm import directory
from supervisor.registry import Registry
from worker.endpoints import data_endpoint, data_socket

PATIENCE_S = 20.0
MIB = 1024 * 1024
LIVENESS_S = 0.1


def listener_of(path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(128)
    return listener


class Publisher:
    """One connection of a ``SmallFleet``; its process can be killed and begun again."""

    def __init__(self, fleet, name, journal=MIB):
        self.fleet, self.name, self.journal = fleet, name, journal
        self.epoch, self.process = 0, None
        self.listener = listener_of(data_socket(fleet.runtime_dir, name))

    def start(self):
        self.epoch += 1
        arguments = [self.name, self.epoch, self.journal, self.listener.fileno()]
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(self.fleet.shm_dir), str(self.fleet.runtime_dir)]
            + [str(argument) for argument in arguments],
            pass_fds=[self.listener.fileno()],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "ready\n"
        return self

    def say(self, verb, **arguments):
        """Have it do something; return when it is done."""
        self.begin(verb, **arguments)
        assert self.process.stdout.readline() == "ok\n"

    def begin(self, verb, **arguments):
        """Have it do something, and do not wait."""
        self.process.stdin.write(json.dumps({"verb": verb, **arguments}) + "\n")
        self.process.stdin.flush()

    def send(self, count=1, **arguments):
        self.say("send", count=count, **arguments)

    def change(self, **arguments):
        self.say("change", **arguments)

    def attached(self, subscriptions=3):
        """Wait until subscribers have that many prefixes."""
        self.say("attached", count=subscriptions)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.reap()

    def reap(self):
        self.process.wait(PATIENCE_S)
        self.process.stdin.close()
        self.process.stdout.close()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.listener.close()


class SmallFleet:
    """A fleet's table and directories, in the base that FEEDWARDEN_SHM names; a context manager."""

    def __init__(self, folder: Path, *names, fleet="small", journal=MIB):
        self.name, self.names = fleet, names
        self.runtime_dir = folder / "run"
        (self.runtime_dir / "data").mkdir(parents=True, exist_ok=True)
        self.shm_dir = directory.fleet_directory(fleet)
        self.shm_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.publishers = {name: Publisher(self, name, journal) for name in names}
        self.registry = None
        self.show(names)

    def show(self, names):
        """Write the table, with these connections."""
        if self.registry is not None:
            self.registry.close()
        self.registry = Registry.create(self.shm_dir, self.name, self.runtime_dir, list(names))
        for name in names:
            self.registry.slot_writer(name)(slot(name=name, pid=0, incarnation=1))

    def add(self, name):
        """Take in another connection, as a reload does."""
        self.publishers[name] = Publisher(self, name)
        self.show([*self.publishers])
        return self.publishers[name]

    def start(self):
        for publisher in self.publishers.values():
            publisher.start()
        return self

    def clear(self):
        """Remove the segments, as a fleet does that ends."""
        for path in [*self.shm_dir.glob("*.stats"), *self.shm_dir.glob("*.journal")]:
            path.unlink()

    def end_supervisor(self):
        """Let go of the table and remove it, as a supervisor does that ends."""
        self.registry.close()
        (self.shm_dir / "registry").unlink()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        for publisher in self.publishers.values():
            publisher.close()
        self.registry.close()


# The process -----------------------------------------------------------------------------------


class Source:
    """The process: as a worker publishes, but on command."""

    def __init__(self, shm_dir, runtime_dir, name, epoch, journal, listener):
        import zmq

        from shm.journal import Journal
        from shm.layout import Word
        from shm.stats import StatsWriter

        self.name, self.epoch, self.seq_word = name, epoch, Word.SEQ
        self.stats = StatsWriter.create(
            shm_dir, name, incarnation=epoch, ring_slots=1024, lock_timeout_ns=10**9
        )
        self.journal = None
        if journal:
            self.journal = Journal.take_over(shm_dir, name, size=journal, incarnation=epoch)
            self.stats.words[Word.SEQ] = max(self.stats.words[Word.SEQ], self.journal.last_seq())
        self.topic_seqs, self.states, self.session, self.mute = {}, 0, 1, False
        self.connected, self.subscriptions = True, 0
        self.stretch, self.session_before = 0, 1
        self.context = zmq.Context()
        self.xpub = self.context.socket(zmq.XPUB)
        self.xpub.setsockopt(zmq.SNDHWM, 10_000)
        self.xpub.setsockopt(zmq.XPUB_VERBOSER, 1)
        self.xpub.setsockopt(zmq.LINGER, 0)
        self.xpub.setsockopt(zmq.USE_FD, os.dup(listener))
        self.xpub.bind(data_endpoint(runtime_dir, name))
        self.state(4)

    def frame(self, topic, kind, seq, topic_seq, payload):
        from worker.envelope import STRETCH_SHIFT, Envelope, encode

        now, flags = time.monotonic_ns(), 1 | self.stretch << STRETCH_SHIFT
        return encode(
            Envelope(topic, kind, flags, self.epoch, seq, topic_seq, time.time_ns(), now, payload)
        )

    def state(self, kind):
        import zmq

        self.states += 1
        head = self.stats.words[self.seq_word]
        body = {
            "connection": self.name,
            "state": "up" if self.connected else "dialing",
            "pid": os.getpid(),
            "epoch": self.epoch,
            "seq": head,
            "session": self.session,
        }
        topic, payload = f"state.{self.name}", json.dumps(body).encode()
        self.xpub.send(self.frame(topic, kind, head, self.states, payload), zmq.DONTWAIT)
        self.xpub.setsockopt(zmq.XPUB_WELCOME_MSG, self.frame(topic, 3, head, self.states, payload))

    def liveness(self):
        if not self.mute:
            self.state(2)

    def drain(self):
        import zmq

        while self.xpub.poll(0):
            self.subscriptions += 1 if self.xpub.recv(zmq.DONTWAIT)[0] else -1

    def send(self, count=1, keys=(None,), sent=True, kept=True, size=0, every_s=0.0):
        """Publish: ``sent`` false is lost on the way, ``kept`` false is in no journal."""
        for index in range(count):
            key = keys[index % len(keys)]
            topic = f"data.{self.name}" if key is None else f"data.{self.name}.{key}"
            seq = self.stats.words[self.seq_word] + 1
            topic_seq = self.topic_seqs[topic] = self.topic_seqs.get(topic, 0) + 1
            payload = (b"%d " % seq).ljust(size)
            frame = self.frame(topic, 1, seq, topic_seq, payload)
            if kept and self.journal is not None:
                self.journal.append(seq, frame)
            self.stats.words[self.seq_word] = seq
            if sent:
                self.xpub.send(frame, 1)
            if every_s:
                time.sleep(every_s)

    def raw(self, frame):
        self.xpub.send(bytes.fromhex(frame), 1)

    def attached(self, count):
        deadline = time.monotonic() + PATIENCE_S
        while self.subscriptions < count:
            assert time.monotonic() < deadline, f"{self.subscriptions} of {count} subscriptions"
            time.sleep(0.002)
            self.drain()

    def change(self, session=None, connected=True, mute=False):
        from worker.envelope import STRETCHES

        self.mute, self.connected = mute, connected
        if session is not None:
            self.session = session
        if connected and self.session != self.session_before:
            self.stretch, self.session_before = (self.stretch + 1) % STRETCHES, self.session
        if not mute:
            self.state(4)

    def stop(self):
        self.xpub.close(1000)
        self.context.term()
        sys.exit(0)


def main(shm_dir, runtime_dir, name, epoch, journal, listener):
    import select

    source = Source(Path(shm_dir), Path(runtime_dir), name, int(epoch), int(journal), int(listener))
    print("ready", flush=True)
    due = time.monotonic() + LIVENESS_S
    buffered = b""
    while True:
        readable, _, _ = select.select([0], [], [], max(0, min(0.01, due - time.monotonic())))
        source.drain()
        if time.monotonic() >= due:
            source.liveness()
            due += LIVENESS_S
        if not readable:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *lines, buffered = (buffered + chunk).split(b"\n")
        for line in lines:
            arguments = json.loads(line)
            getattr(source, arguments.pop("verb"))(**arguments)
            print("ok", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
