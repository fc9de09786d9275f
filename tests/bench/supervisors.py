"""Supervisors: our fleet, supervisord and circus, each keeping workers that publish."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
from fleet import Fleet

from bench import names
from bench.children import PEERS, Exchange, Failed, wait_for
from bench.contenders import connection
from bench.options import Options, peer_python

SUPERVISORD = """[supervisord]
nodaemon = true
logfile = {folder}/log
pidfile = {folder}/pid
"""
SUPERVISORD_PROGRAM = """[program:{tag}]
command = {command}
autorestart = true
startsecs = 0
"""
CIRCUS = """[circus]
endpoint = ipc://{folder}/control
pubsub_endpoint = ipc://{folder}/events
check_delay = {check_delay}
"""
CIRCUS_PROGRAM = """[watcher:{tag}]
cmd = {command}
numprocesses = 1
"""


@dataclass(frozen=True, slots=True)
class Kept:
    """
    A supervisor with its workers.

    Attributes:
        pid: Of the supervisor.
        pids: Of the workers, called anew each time.
        endpoints: Where each worker publishes, by tag.
        prefix: What is subscribed there, with the tag to be filled in.
        stop: Ends all of it.

    """

    pid: int
    pids: object
    endpoints: dict[str, str]
    prefix: str
    stop: object


def start(name: str, options: Options, exchange: Exchange, tags: list[str]) -> Kept:
    """Start a supervisor and return before its workers are connected. Raises Failed."""
    if name == names.OURS:
        return _ours(options, exchange, tags)
    return _other(name, options.subfolder(), exchange, tags)


def _ours(options: Options, exchange: Exchange, tags: list[str]) -> Kept:
    toml = "".join(connection(exchange, tag, None) for tag in tags)
    fleet = Fleet(options.subfolder(), toml)
    log = fleet.log.open("wb")
    fleet.process = subprocess.Popen(
        [sys.executable, "-P", "-m", "supervisor", "run", str(fleet.file)],
        env=fleet.environment,
        stdin=subprocess.DEVNULL,
        stderr=log,
        start_new_session=True,
    )
    endpoints = {tag: f"ipc://{fleet.runtime_dir}/data/{tag}.sock" for tag in tags}
    pids = lambda: [row["pid"] for row in fleet.rows().values()]  # noqa: E731
    return Kept(fleet.process.pid, pids, endpoints, "data.{tag}", fleet.kill_everything)


def _other(name: str, folder: Path, exchange: Exchange, tags: list[str]) -> Kept:
    client = peer_python("clients", "websockets")
    endpoints = {tag: f"ipc://{folder}/{tag}" for tag in tags}
    commands = {
        tag: f"{client} {PEERS / 'by_hand.py'} {exchange.url(tag)} {endpoints[tag]}" for tag in tags
    }
    if name == names.SUPERVISORD:
        head, program, venv = SUPERVISORD.format(folder=folder), SUPERVISORD_PROGRAM, "supervisord"
        package, command = "supervisor", ["supervisord", "-c"]
    else:
        check_delay = 0.1 if name == names.CIRCUS_EAGER else 5
        head = CIRCUS.format(folder=folder, check_delay=check_delay)
        program, venv, package, command = CIRCUS_PROGRAM, "circus", "circus", ["circusd"]
    python = peer_python(venv, package)
    if python is None or client is None:
        raise Failed("not installed")
    file = folder / "configuration.ini"
    programs = (program.format(tag=tag, command=text) for tag, text in commands.items())
    file.write_text(head + "\n".join(programs))
    process = subprocess.Popen(
        [str(python.parent / command[0]), *command[1:], str(file)],
        env=os.environ,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    parent = psutil.Process(process.pid)

    def pids() -> list[int]:
        return [
            child.pid
            for child in parent.children(recursive=True)
            if str(PEERS / "by_hand.py") in child.cmdline()
        ]

    def stop() -> None:
        everyone = [*parent.children(recursive=True), parent]
        parent.kill()
        for each in everyone:
            if each.is_running():
                each.kill()
        process.wait()

    return Kept(process.pid, pids, endpoints, "hand", stop)


def wait_connected(exchange: Exchange, tags: list[str], timeout_s: float) -> None:
    """Wait until every worker has a session at the exchange."""
    wanted = set(tags)
    wait_for(lambda: wanted <= set(exchange.sessions()), f"{len(tags)} sessions", timeout_s)
