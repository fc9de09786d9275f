"""A running fleet takes over a changed file: what has not changed is not touched."""

import json
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from exchange import running_exchange
from fleet import PATIENCE_S, TOPICS, binance, running_fleet, wait_for

from supervisor import checked
from supervisor.control import Order, Reply, send_order
from supervisor.status import gather
from supervisor.subscriber import Message, SessionChange, Subscriber
from worker.endpoints import CONTROL

LARGE, MOST_JOURNAL = 100, 4 << 30  # so many fill a disk of up to 400 GiB
LONG_BACKOFF = "restart = { initial_delay = 300, max_delay = 300 }\n"


@pytest.fixture
def exchange():
    with running_exchange(rate=50) as running:
        yield running


def topical(exchange, name, topics="'btcusdt@trade'", extra=""):
    url = exchange.url("/binance", name)
    return TOPICS.format(name=name, url=url, topics=topics) + extra


def rewrite(fleet, toml, head=None):
    former = fleet.file.read_text().split("[[connection]]")[0]
    fleet.file.write_text((former if head is None else head) + toml)


def reload(fleet, file=None, *, dry_run=False):
    """As the verb does it, without a process of its own: the document of ``--json``."""
    asked = Order("reload", path="" if file is None else str(file), dry_run=dry_run)
    reply = send_order(fleet.runtime_dir / CONTROL, asked, PATIENCE_S)
    assert reply is not None
    assert (reply.document["schema"], reply.code if reply.error else 0) in ((1, 0), (1, 5))
    return reply.document


def order(fleet, verb, name):
    assert send_order(fleet.runtime_dir / CONTROL, Order(verb, (name,)), PATIENCE_S) == Reply()


def rows(fleet):
    directory = fleet.shm_base / f"feedwarden-{os.geteuid()}" / fleet.name
    return {row["name"]: row for row in gather(directory).document["connections"]}


def wait_up(fleet, *names):
    """Wait until exactly these are kept, and up."""
    return wait_for(
        lambda: (
            (found := rows(fleet)).keys() == set(names)
            and all(row["state"] == "up" for row in found.values())
            and found
        ),
        f"up: {names}",
    )


def changes(document):
    assert document["ok"], document
    return {row["connection"]: row["action"] for row in document["changes"]}


def identity(row):
    return row["pid"], row["incarnation"], row["reconnects"]


def test_each_change_costs_what_it_must_and_the_others_nothing(tmp_path, exchange, monkeypatch):
    """Live, new session, new process, gone and new in one file, beside one that is untouched."""
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path / "shm"))
    names = ("still", "live", "again", "anew", "gone")
    toml = {name: topical(exchange, name) for name in names}
    with running_fleet(tmp_path, "".join(toml.values())) as fleet:
        before = wait_up(fleet, *names)
        with Subscriber(fleet.name, "still") as subscriber:
            items = iter(subscriber)
            first = next(item for item in items if isinstance(item, Message))
            toml["live"] = topical(
                exchange, "live", "'btcusdt@trade', 'ethusdt@trade'", "stop_timeout = 4\n"
            )
            toml["again"] = topical(exchange, "again", extra="heartbeat = 7\n")
            toml["anew"] = topical(
                exchange, "anew", extra='publish = { journal = { size = "1MiB" } }\n'
            )
            del toml["gone"]
            toml["new"] = topical(exchange, "new")
            rewrite(fleet, "".join(toml.values()))
            wanted = {
                "live": "live", "again": "reconnect", "anew": "restart", "gone": "stop",
                "new": "start",
            }  # fmt: skip
            assert changes(reload(fleet, dry_run=True)) == wanted
            assert {name: identity(row) for name, row in rows(fleet).items()} == {
                name: identity(row) for name, row in before.items()
            }, "a dry run changes nothing"
            done = fleet.command("reload", "--json")
            assert changes(json.loads(done.stdout)) == wanted
            wait_for(
                lambda: (
                    (found := rows(fleet)).keys() == set(toml)
                    and found["again"]["reconnects"] == before["again"]["reconnects"] + 1
                    and found["anew"]["incarnation"] > before["anew"]["incarnation"]
                ),
                "begun",
            )
            after = wait_up(fleet, *toml)
            head = rows(fleet)["still"]["messages"]
            later = [next(items) for _ in range(head - first.seq)]
        assert identity(after["still"]) == identity(before["still"])
        assert identity(after["live"]) == identity(before["live"])
        assert after["again"]["pid"] == before["again"]["pid"]
        assert after["anew"]["pid"] != before["anew"]["pid"]
        assert all(isinstance(item, Message) for item in later), "no gap, no other session"
        assert [item.seq for item in later] == list(range(first.seq + 1, head + 1))
        wait_for(lambda: "cause=subscription_changed subscribed=1" in fleet.said(), "told")
        left = [file for file in fleet.shm_files() if "gone" in file]
        left += [path.name for path in fleet.runtime_dir.rglob("*gone*")]
        assert left == []
        for event in (
            "config connection=again",
            "down connection=again",
            "exit connection=gone",
            "spawn connection=new",
        ):
            wait_for(lambda event=event: event in fleet.said(), event)
        assert changes(reload(fleet)) == {}
        assert fleet.stop() == 0
    assert fleet.shm_files() == []


def test_whatever_is_wrong_nothing_is_applied(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        before = wait_up(fleet, "a")
        head = fleet.file.read_text().split("[[connection]]")[0]
        more = binance(exchange, "a", "b", extra="stop_timeout = 4\n")

        def refusal(toml, head=None):
            rewrite(fleet, toml, head)
            document = reload(fleet)
            assert not document["ok"]
            return [fault["message"] for fault in document["faults"]]

        faults = refusal(more + "nonsense = 1\nstart_timeout = 'x'\n", head)
        assert len(faults) == 2
        (why,) = refusal(more, head.replace('name = "t"', 'name = "u"'))
        assert 'fleet.name is "u" now, it was "t"' in why
        (why,) = refusal(more + "[simulator]\n", head)
        assert "[simulator] has changed" in why
        many = [f"c{number}" for number in range(LARGE)]
        size = os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize // LARGE
        if size < MOST_JOURNAL:
            large = f"publish = {{ journal = {{ size = {size} }} }}\n"
            (why,) = refusal(more + binance(exchange, *many, extra=large), head)
            assert "connections would fit" in why
        (fleet.runtime_dir / "data" / "b.sock").write_text("mine")
        (why,) = refusal(more, head)
        assert "b.sock" in why
        assert (fleet.runtime_dir / "data" / "b.sock").read_text() == "mine"
        done = fleet.command("reload", str(tmp_path / "none.toml"), "--json", check=False)
        assert (done.returncode, json.loads(done.stdout)["ok"]) == (5, False)
        assert {name: identity(row) for name, row in rows(fleet).items()} == {
            name: identity(row) for name, row in before.items()
        }
        assert [file for file in fleet.shm_files() if ".spec" in file or "/b" in file] == []
        (fleet.runtime_dir / "data" / "b.sock").unlink()
        rewrite(fleet, more, head)
        assert changes(reload(fleet)) == {"a": "live", "b": "start"}
        wait_up(fleet, "a", "b")


def test_what_was_stopped_by_hand_stays_stopped(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        wait_up(fleet, "a", "b")
        order(fleet, "stop", "a")
        wait_for(lambda: rows(fleet)["a"]["state"] == "stopped", "stopped")
        rewrite(fleet, binance(exchange, "a", "b", extra='engine = "websockets"\n'))
        assert changes(reload(fleet)) == {"a": "restart", "b": "restart"}
        wait_for(lambda: rows(fleet)["b"]["incarnation"] == 2, "b replaced")
        row = rows(fleet)["a"]
        assert (row["state"], row["desired"], row["pid"]) == ("stopped", "stopped", None)
        order(fleet, "start", "a")
        assert wait_up(fleet, "a", "b")["a"]["incarnation"] == 2


def test_one_that_waits_starts_next_as_the_file_says_and_one_that_failed_tries_again(
    tmp_path, exchange
):
    failing = binance(exchange, "f") + 'login = "no_such_module:login"\n'
    with running_fleet(tmp_path, binance(exchange, "w", extra=LONG_BACKOFF) + failing) as fleet:
        wait_for(lambda: rows(fleet)["w"]["state"] == "up", "up")
        wait_for(lambda: rows(fleet)["f"]["state"] == "failed", "refused for good")
        os.kill(rows(fleet)["w"]["pid"], signal.SIGKILL)
        wait_for(lambda: rows(fleet)["w"]["state"] == "backoff", "waiting")
        assert changes(reload(fleet)) == {}
        assert rows(fleet)["f"]["state"] == "failed"
        url = exchange.url("/binance", "elsewhere")
        waiting = binance(exchange, "w", extra=LONG_BACKOFF).replace(
            exchange.url("/binance", "w"), url
        )
        rewrite(fleet, waiting + binance(exchange, "f"))
        assert changes(reload(fleet)) == {"f": "restart", "w": "reconnect"}
        assert rows(fleet)["w"]["state"] == "backoff"
        wait_for(lambda: rows(fleet)["f"]["state"] == "up", "mended")
        order(fleet, "start", "w")
        wait_up(fleet, "f", "w")
        wait_for(lambda: fleet.said().count("up connection=w") == 2, "told")


def test_a_function_that_cannot_be_loaded_refuses_the_reload_and_is_tried_anew_each_time(
    tmp_path, exchange, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        before = wait_up(fleet, "a")["a"]
        login = 'login = "desk:login"\n'
        rewrite(fleet, binance(exchange, "a", extra=login))
        (fault,) = reload(fleet)["faults"]
        assert fault["key"] == "connection[0].login"
        assert "No module named 'desk'" in fault["message"]
        assert identity(rows(fleet)["a"]) == identity(before)
        (tmp_path / "desk.py").write_text("def login(context):\n    pass\n")
        assert changes(reload(fleet)) == {"a": "restart"}
        wait_for(lambda: rows(fleet)["a"]["incarnation"] == 2, "replaced")
        wait_up(fleet, "a")


def test_who_waits_for_a_reload_finds_it_done(tmp_path, exchange):
    """Whatever it costs; nobody waits for what is stopped by hand, nor for what nobody changed."""
    names = ("still", "live", "again", "anew", "gone", "stopped")
    toml = {name: binance(exchange, name) for name in names}
    with running_fleet(tmp_path, "".join(toml.values())) as fleet:
        before = wait_up(fleet, *names)
        fleet.command("stop", "stopped", "--wait", "20")
        toml["live"] += "stop_timeout = 4\n"
        toml["again"] += "headers = { X-Desk = 'two' }\n"
        toml["anew"] += "engine = 'websockets'\n"
        toml["stopped"] += "engine = 'websockets'\n"
        toml["new"] = binance(exchange, "new")
        del toml["gone"]
        rewrite(fleet, "".join(toml.values()))
        fleet.command("reload", "--wait", "40")
        found = rows(fleet)
        assert found.keys() == toml.keys()
        assert {name for name in found if found[name]["state"] != "up"} == {"stopped"}
        assert identity(found["still"]) == identity(before["still"])
        assert found["again"]["reconnects"] == before["again"]["reconnects"] + 1
        assert found["anew"]["incarnation"] == 2

        with socket.socket() as nobody:  # bound, and nobody listens
            nobody.bind(("127.0.0.1", 0))
            port = nobody.getsockname()[1]
            former = exchange.url("/binance", "again")
            toml["again"] = toml["again"].replace(former, f"ws://127.0.0.1:{port}/")
            rewrite(fleet, "".join(toml.values()))
            done = fleet.command("reload", "--json", "--wait", "0.5", check=False)
        assert done.returncode == 7
        assert changes(json.loads(done.stdout)) == {"again": "reconnect"}
        assert "not done within 0.5 s: reload again" in done.stderr
        done = fleet.command("reload", "--dry-run", "--wait", "0.5")
        assert done.stdout == "nothing has changed\n"


def test_the_next_run_knows_the_file_that_was_reloaded_without_a_check(
    tmp_path, exchange, monkeypatch
):
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path / "shm"))

    def known():
        found = checked.recall(fleet.file, checked.key_of(fleet.file))
        return None if found is None else [spec.name for spec in found.connections]

    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        assert known() == ["a"]
        elsewhere = tmp_path / "elsewhere.toml"
        elsewhere.write_text(fleet.file.read_text() + binance(exchange, "b"))
        assert changes(reload(fleet, elsewhere)) == {"b": "start"}
        assert known() == ["a"]  # which the next run would read
        rewrite(fleet, binance(exchange, "a", "b", "c"))
        assert changes(reload(fleet, dry_run=True)) == {"c": "start"}
        assert known() is None
        assert changes(reload(fleet)) == {"c": "start"}
        assert known() == ["a", "b", "c"]
        fleet.file.write_text(fleet.file.read_text() + "\n# a word\n")
        assert changes(reload(fleet, fleet.file)) == {}
        assert known() == ["a", "b", "c"]


def test_reloads_on_top_of_each_other_end_with_the_last_intent(tmp_path, exchange):
    """Among them one that brings back what is just going."""
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        wait_up(fleet, "a", "b")
        file = [tmp_path / f"{number}.toml" for number in range(4)]
        head = fleet.file.read_text().split("[[connection]]")[0]
        for number, path in enumerate(file):
            names = ("a", "b", "c") if number % 2 else ("a",)
            path.write_text(head + binance(exchange, *names))
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(lambda path: reload(fleet, path), file))
        assert all(one["ok"] for one in done)
        assert changes(reload(fleet, file[0])).keys() <= {"b", "c"}
        assert changes(reload(fleet, file[1])) == {"b": "start", "c": "start"}
        assert wait_up(fleet, "a", "b", "c")["a"]["incarnation"] == 1
        assert fleet.stop(PATIENCE_S) == 0
    assert fleet.shm_files() == []


def test_a_file_that_does_not_come_keeps_no_order_waiting(tmp_path, exchange):
    with running_fleet(tmp_path, binance(exchange, "a")) as fleet:
        wait_up(fleet, "a")
        slow = tmp_path / "slow.toml"
        os.mkfifo(slow)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(reload, fleet, slow)
            order(fleet, "stop", "a")
            wait_for(lambda: rows(fleet)["a"]["state"] == "stopped", "done meanwhile")
            assert not waiting.done()
            slow.write_text(fleet.file.read_text())
            assert changes(waiting.result()) == {}


def test_a_subscriber_reads_on_when_a_connection_comes_back(tmp_path, exchange, monkeypatch):
    monkeypatch.setenv("FEEDWARDEN_SHM", str(tmp_path / "shm"))
    with running_fleet(tmp_path, binance(exchange, "a", "b")) as fleet:
        wait_up(fleet, "a", "b")
        with Subscriber(fleet.name, "b") as subscriber:
            items = iter(subscriber)
            former = next(item for item in items if isinstance(item, Message) and item.seq > 3)
            rewrite(fleet, binance(exchange, "a"))
            assert changes(reload(fleet)) == {"b": "stop"}
            wait_for(lambda: rows(fleet).keys() == {"a"}, "gone")
            rewrite(fleet, binance(exchange, "a", "b"))
            assert changes(reload(fleet)) == {"b": "start"}
            wait_up(fleet, "a", "b")
            last = former.seq
            for item in items:
                if isinstance(item, SessionChange):
                    break
                if isinstance(item, Message):
                    assert item.seq > last
                    last = item.seq
            assert [next(items).seq for _ in range(5)] == [1, 2, 3, 4, 5]
