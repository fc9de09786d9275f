import asyncio

import pytest

from worker.announcement import Cause
from worker.dialing import Dialing
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
                dialing.begin(session, reserved=False)
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
        dialing.begin(1, reserved=False)
        await asyncio.sleep(0)
        assert dialing.cancel()
        assert not dialing.cancel()
        await asyncio.sleep(0.01)
        assert told.events == []
        await dialing.close()

    asyncio.run(act())


def test_a_spent_budget_postpones_and_one_that_cannot_be_kept_does_not(tmp_path):
    spec = BudgetSpec(directory=str(tmp_path), host="a", connects=1, per_ns=10**12)
    first, second = dialled(times=2, budget=spec)
    assert first[0] == "routed"
    assert second[0] == "postponed"
    assert 0 < second[1] <= 10**12
    (tmp_path / "file").write_text("")
    broken = BudgetSpec(directory=str(tmp_path / "file"), host="a", connects=1)
    assert [event[0] for event in dialled(times=2, budget=broken)] == ["routed"] * 2
