"""The simulated exchange as a test's child process."""

import contextlib
import json
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request


class Exchange:
    """A running simulator."""

    def __init__(self, process, port):
        self.process, self.port = process, port

    def url(self, path, tag=""):
        """The WebSocket URL of a dialect."""
        return f"ws://127.0.0.1:{self.port}{path}" + (f"?tag={tag}" if tag else "")

    def command(self, name, **query):
        """Give a command; return its JSON document."""
        target = f"http://127.0.0.1:{self.port}/-/{name}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(target, timeout=60) as response:
            return json.loads(response.read())

    def fault(self, kind, **query):
        """Put up a fault, or let one happen."""
        return self.command("fault", kind=kind, **query)

    def sessions(self, tag=""):
        """The open sessions, of one tag if given."""
        return [s for s in self.command("sessions") if not tag or s["tag"] == tag]


def simulator(**options):
    """The command of a simulator; options as of its ``SimulatorSpec``."""
    return [sys.executable, "-P", "-m", "supervisor.simulator", json.dumps(options)]


@contextlib.contextmanager
def running_exchange(**options):
    """A simulator on a free port; options as of its ``SimulatorSpec``."""
    command = simulator(port=0, **options)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            words = process.stdout.readline().split()
            assert words[:1] == ["LISTENING"], words
            yield Exchange(process, int(words[2]))
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
