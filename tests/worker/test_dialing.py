import asyncio
import time
from urllib.parse import quote_plus

import httpx
import pytest

from worker.announcement import Cause
from worker.budget import ConnectBudget
from worker.dialing import CROWDED_RETRY_NS, Dialing
from worker.exits import Exit
from worker.login import Login, LoginRefused
from worker.spec import BudgetSpec, ConnectionSpec, Secret
from worker.wire import Route


class Told:
    """What a dialing told."""

    def __init__(self):
        self.events = []
        self.happened = asyncio.Event()

    def _tell(self, *event):
        self.events.append(event)
        self.happened.set()

    def on_routed(self, route, logins):
        self._tell("routed", route, logins)

    def on_postponed(self, delay_ns):
        self._tell("postponed", delay_ns)

    def on_refused(self, cause, error, permanent):
        self._tell("refused", cause, error, permanent)


def dialled(login=None, *, times=1, **keys):
    """Return what was told of so many dials."""

    async def act():
        told = Told()
        dialing = Dialing(ConnectionSpec(name="a", url="ws://a/", **keys), login, told)
        async with asyncio.timeout(10):
            for session in range(1, times + 1):
                told.happened.clear()
                dialing.begin(session)
                await told.happened.wait()
                dialing.ended()
            await dialing.close()
        return told.events

    return asyncio.run(act())


def test_without_login_the_way_is_as_configured_and_secrets_are_read(monkeypatch):
    monkeypatch.setenv("KEY", "hush")
    keys = {"headers": (("X", "y"), ("Key", Secret("env", "KEY"))), "proxy": "http://p:1"}
    assert dialled(**keys) == [
        (
            "routed",
            Route(url="ws://a/", headers=(("X", "y"), ("Key", "hush")), proxy="http://p:1"),
            (),
        )
    ]


def test_a_login_adds_url_headers_and_messages():
    async def login(context):
        headers = {"T": str(context.session)}
        return Login(url="ws://b/", headers=headers, messages=("ä",))

    first, second = dialled(login, times=2, headers=(("X", "y"),))
    assert first == (
        "routed",
        Route(url="ws://b/", headers=(("X", "y"), ("T", "1"))),
        ("ä".encode(),),
    )
    assert second[1].headers[1] == ("T", "2")


@pytest.mark.parametrize(
    ("error", "permanent"), [(LoginRefused("no"), Exit.CREDENTIALS), (OSError("away"), None)]
)
def test_a_login_that_raises_is_a_refusal_and_only_refused_ones_are_for_good(error, permanent):
    def login(context):
        raise error

    text = f"{type(error).__name__}: {error}"
    assert dialled(login) == [("refused", Cause.LOGIN_FAILED, text, permanent)]


@pytest.mark.parametrize("kind", [httpx.HTTPError, LoginRefused])
def test_a_login_that_raises_what_quotes_a_secret_is_told_without_it(monkeypatch, kind):
    """As ``raise_for_status`` does of the URL. Cut only afterwards, or a part of it would stay."""
    monkeypatch.setenv("KEY", "hush/hush")

    def login(context):
        raise kind("x" * 180 + f" url 'https://h/?key={quote_plus(context.secrets['key'])}'")

    ((told, _cause, error, _permanent),) = dialled(login, secrets=(("key", Secret("env", "KEY")),))
    assert told == "refused"
    assert "hus" not in error
    assert len(error) <= 200


def test_a_secret_that_is_missing_is_named_by_its_reference(monkeypatch):
    monkeypatch.delenv("NOT_THERE", raising=False)
    for keys in (
        {"headers": (("Key", Secret("env", "NOT_THERE")),)},
        {"secrets": (("key", Secret("env", "NOT_THERE")),)},
    ):
        ((kind, cause, error, permanent),) = dialled(**keys)
        assert (kind, cause, permanent) == ("refused", Cause.LOGIN_FAILED, None)
        assert "NOT_THERE" in error


def test_a_login_can_be_given_up_and_tells_nothing_then():
    async def act():
        told = Told()

        async def login(context):
            await asyncio.sleep(60)

        dialing = Dialing(ConnectionSpec(name="a", url="ws://a/"), login, told)
        assert not dialing.cancel()
        dialing.begin(1)
        await asyncio.sleep(0)
        assert dialing.cancel()
        assert not dialing.cancel()
        await asyncio.sleep(0.01)
        assert told.events == []
        await dialing.close()

    asyncio.run(act())


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Login(url="http://b/"), "url must begin with ws"),
        (Login(url="ws://b:99999/"), "url is not a URL"),
        (Login(headers={"X": "hush\r\nY: z"}), "headers: 'X' its value"),
        (Login(headers={"X": "hush€"}), "headers: 'X' its value"),
        (Login(headers={"Sec-WebSocket-Key": "hush"}), "is made by the handshake"),
        (Login(messages="hush"), "TypeError"),
        (Login(url=5), "TypeError"),
    ],
)
def test_a_login_that_no_handshake_can_carry_is_a_refusal_that_keeps_its_secrets(said, words):
    ((kind, cause, error, permanent),) = dialled(lambda context: said)
    assert (kind, cause, permanent) == ("refused", Cause.LOGIN_FAILED, None)
    assert words in error
    assert "hush" not in error


def test_a_secret_that_no_header_can_carry_is_a_refusal_that_does_not_quote_it(monkeypatch):
    monkeypatch.setenv("KEY", "hush\nX: y")
    ((kind, _cause, error, _permanent),) = dialled(headers=(("K", Secret("env", "KEY")),))
    assert kind == "refused"
    assert "headers: 'K'" in error
    assert "hush" not in error


def test_a_login_that_does_not_let_itself_be_given_up_is_not_heard_afterwards():
    async def act():
        told = Told()
        done = asyncio.Event()

        async def login(context):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0.01)
                done.set()
            return Login()

        dialing = Dialing(ConnectionSpec(name="a", url="ws://a/"), login, told)
        dialing.begin(1)
        await asyncio.sleep(0)
        assert dialing.cancel()
        await done.wait()
        await asyncio.sleep(0.01)
        assert told.events == []
        await dialing.close()

    asyncio.run(act())


def test_a_dial_that_waited_for_a_slot_still_takes_its_token(tmp_path):
    """Whoever finds all slots taken has reserved nothing, and must ask when one is free."""
    spec = BudgetSpec(directory=str(tmp_path), host="a", connects=1, per_ns=10**12, concurrent=1)
    keys = {"connects": 1, "per_ns": 10**12, "concurrent": 1}
    holder = ConnectBudget(tmp_path, "a", **keys)
    assert holder.lease()
    assert holder.take(time.monotonic_ns()) == 0

    async def act():
        told = Told()
        dialing = Dialing(ConnectionSpec(name="a", url="ws://a/", budget=spec), None, told)
        dialing.begin(1)
        holder.release()
        dialing.begin(1)
        dialing.begin(1)
        await dialing.close()
        return told.events

    crowded, spent, waited_for = asyncio.run(act())
    assert crowded == ("postponed", CROWDED_RETRY_NS)
    assert spent[0] == "postponed"
    assert spent[1] > 9 * 10**11
    assert waited_for[0] == "routed"


def test_a_dial_for_which_nothing_could_be_reserved_asks_again(tmp_path):
    spec = BudgetSpec(directory=str(tmp_path), host="a", connects=1, per_ns=10**12)
    others = ConnectBudget(tmp_path, "a", connects=1, per_ns=10**12)
    for _ in range(70):  # more than may be reserved ahead
        others.take(time.monotonic_ns())
    assert [event[0] for event in dialled(times=3, budget=spec)] == ["postponed"] * 3


def test_a_spent_budget_postpones_and_one_that_cannot_be_kept_does_not(tmp_path):
    spec = BudgetSpec(directory=str(tmp_path), host="a", connects=1, per_ns=10**12)
    first, second = dialled(times=2, budget=spec)
    assert first[0] == "routed"
    assert second[0] == "postponed"
    assert 0 < second[1] <= 10**12
    (tmp_path / "file").write_text("")
    broken = BudgetSpec(directory=str(tmp_path / "file"), host="a", connects=1)
    assert [event[0] for event in dialled(times=2, budget=broken)] == ["routed"] * 2
