import asyncio

import pytest

from worker.login import HttpClient, Login, LoginContext, LoginRefused, log_in


def context(**keys):
    given = {"connection": "a", "url": "ws://a/", "session": 1, "secrets": {"key": "hush"}}
    return LoginContext(**given | {"_http": HttpClient()} | keys)


def logged_in(function):
    async def act():
        async with asyncio.timeout(10):
            return await log_in(function, context())

    return asyncio.run(act())


async def coroutine(given):
    await asyncio.sleep(0)
    return Login(messages=(given.secrets["key"],))


def test_functions_and_coroutine_functions_may_log_in():
    assert logged_in(lambda given: Login(url=given.url + "?t=1")).url == "ws://a/?t=1"
    assert logged_in(coroutine).messages == ("hush",)


def test_nothing_returned_is_nothing_to_say():
    assert logged_in(lambda given: None) == Login()


@pytest.mark.parametrize("wrong", ["text", 1, {"url": "ws://a/"}, ("a",)])
def test_another_type_is_told_by_its_name(wrong):
    with pytest.raises(TypeError, match=f"returned {type(wrong).__name__}, not a Login"):
        logged_in(lambda given: wrong)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"url": 5}, "url is int"),
        ({"headers": None}, "headers"),
        ({"headers": {"X": 5}}, "headers"),
        ({"headers": [("X", "y")]}, "headers"),
        ({"messages": "auth"}, "messages"),
        ({"messages": (b"auth",)}, "messages"),
        ({"messages": None}, "messages"),
    ],
)
def test_a_login_of_what_is_no_text_is_told_by_the_field(keys, text):
    with pytest.raises(TypeError, match=text):
        logged_in(lambda given: Login(**keys))


def test_a_message_that_cannot_be_sent_is_refused():
    with pytest.raises(UnicodeEncodeError):
        logged_in(lambda given: Login(messages=("\ud800",)))


def test_what_the_function_raises_passes():
    def refuse(given):
        raise LoginRefused("no")

    with pytest.raises(LoginRefused):
        logged_in(refuse)


def test_secrets_are_not_in_the_text_of_a_context():
    assert "hush" not in repr(context())


def test_the_http_client_is_one_and_closing_it_twice_is_safe():
    async def act():
        http = HttpClient()
        await http.close()
        first = http.get()
        assert http.get() is first
        await http.close()
        assert first.is_closed
        await http.close()

    asyncio.run(act())
