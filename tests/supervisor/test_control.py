"""Orders over a real socket pair of ZeroMQ endpoints."""

import asyncio
import threading
import time

import msgspec
import pytest
import zmq

from supervisor.control import BUDGET, Control, Order, Reply, send_order
from supervisor.listener import listen


@pytest.fixture
def control(tmp_path):
    """A control end that is drained by a thread; yields its path and what it was ordered."""
    orders, stop = [], threading.Event()

    def obey(order):
        orders.append(order)
        return Reply("no" if "refuse" in order.names else "")

    path = tmp_path / "control.sock"
    context = zmq.Context()
    served = Control(context, listen(path), path, obey)

    def serve():
        while not stop.is_set():
            served.drain()
            time.sleep(0.002)

    thread = threading.Thread(target=serve)
    thread.start()
    yield path, orders
    stop.set()
    thread.join()
    served.close()
    context.term()


def test_an_accepted_order_is_answered_without_error(control):
    path, orders = control
    assert send_order(path, Order("stop", ("a", "b")), 5) == Reply("")
    assert orders == [Order("stop", ("a", "b"))]


def test_a_refusal_carries_its_reason(control):
    path, _orders = control
    assert send_order(path, Order("stop", ("refuse",)), 5) == Reply("no")


@pytest.mark.parametrize("rubbish", [b"", b"{}", b'{"verb":"fly"}', b"\xff\xfe", b"[" * 5000])
def test_rubbish_is_answered_and_carried_out_by_nobody(control, rubbish):
    path, orders = control
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"ipc://{path}")
        dealer.send(rubbish)
        assert dealer.poll(5000)
        assert "not an order" in msgspec.json.decode(dealer.recv())["error"]
    assert orders == []
    assert send_order(path, Order("start", ("a",)), 5) == Reply("")


def test_nobody_there_is_none_not_a_hang(tmp_path):
    path = tmp_path / "control.sock"
    with listen(path):
        assert send_order(path, Order("shutdown"), 0.2) is None


def test_json_too_deep_to_be_read_is_no_order_and_the_next_one_is_answered(control):
    path, orders = control
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.connect(f"ipc://{path}")
        for deep in (b'{"x":' + b"[" * 200_000, b'{"verb":"stop","q":' + b'{"a":' * 100_000):
            dealer.send(deep)
            assert dealer.poll(5000)
            assert b"not an order" in dealer.recv()
    assert send_order(path, Order("stop", ("a",)), 5) == Reply()
    assert [order.verb for order in orders] == ["stop"]


def test_more_orders_than_one_look_takes_are_answered_without_another_sign_of_them(tmp_path):
    """The descriptor tells of the first only: it is edge-triggered."""
    many = 3 * BUDGET

    async def act(context, dealer):
        path = tmp_path / "control.sock"
        served = Control(context, listen(path), path, lambda _order: Reply())
        dealer.connect(f"ipc://{path}")
        for _ in range(many):
            dealer.send(msgspec.json.encode(Order("start", ("a",))))
        await asyncio.sleep(0.3)  # until all have come
        served.drain()
        deadline = time.monotonic() + 20
        answers = 0
        while answers < many and time.monotonic() < deadline:
            await asyncio.sleep(0.001)
            while dealer.poll(0):
                dealer.recv()
                answers += 1
        served.close()
        return answers

    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        assert asyncio.run(act(context, dealer)) == many
