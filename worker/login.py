"""Login: the operator's function that is asked before each dial what to say and where to.

``login = "package.module:function"`` in fleet.toml. The function may be plain or a coroutine, takes
a ``LoginContext`` and returns a ``Login``. It sees secrets that were resolved this moment, and an
HTTP client that is kept from dial to dial, for the exchanges that give out tokens by HTTP.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

HTTP_TIMEOUT_S = 10.0


class LoginRefused(Exception):
    """Raised by the operator's function: the credentials are wrong and trying again is no use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """
    What a login makes of a dial.

    Attributes:
        url: To dial instead of the configured one, for instance with a token in it.
        headers: Added to the handshake.
        messages: Text messages to send before anything is subscribed.

    """

    url: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    messages: tuple[str, ...] = ()


class HttpClient:
    """An ``httpx.AsyncClient`` that is made when it is first asked for: most workers need none."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    def get(self) -> "httpx.AsyncClient":
        """Return the client; its connections are kept for the next login."""
        if self._client is None:
            import httpx  # 8 MiB that only logins pay

            self._client = httpx.AsyncClient(timeout=HTTP_TIMEOUT_S)
        return self._client

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginContext:
    """
    What a login function is given.

    Attributes:
        connection: The connection's name.
        url: As configured.
        session: Number of the session that is being dialled, from 1.
        secrets: The connection's ``secrets``, resolved.

    """

    connection: str
    url: str
    session: int
    secrets: Mapping[str, str] = field(repr=False)
    _http: HttpClient = field(repr=False)

    @property
    def http(self) -> "httpx.AsyncClient":
        """An HTTP client of the worker's, kept between logins."""
        return self._http.get()


LoginFunction = Callable[[LoginContext], Login | Awaitable[Login | None] | None]


def as_configured(_context: LoginContext) -> Login:
    """Add nothing: what deploy/fleet.example.toml names where an operator's function will stand."""
    return Login()


async def log_in(function: LoginFunction, context: LoginContext) -> Login:
    """
    Return what the operator's function says.

    Raises:
        LoginRefused: If it raises that.
        TypeError: If it returns something else than a ``Login`` of texts, or ``None``.
        UnicodeEncodeError: If a message is a text of which no UTF-8 can be made.
        Exception: Whatever else it raises.

    """
    found = function(context)
    if inspect.isawaitable(found):
        found = await found
    if found is None:
        return Login()
    if not isinstance(found, Login):
        raise TypeError(f"the login function returned {type(found).__name__}, not a Login")
    _check(found)
    return found


def _check(said: Login) -> None:
    # No value is quoted: they are what is secret here.
    if not isinstance(said.url, str | None):
        raise TypeError(f"the login's url is {type(said.url).__name__}, not text")
    if not isinstance(said.headers, Mapping) or not _are_texts(said.headers.items()):
        raise TypeError("the login's headers are no mapping of texts")
    if not isinstance(said.messages, tuple | list) or not _are_texts([said.messages]):
        raise TypeError("the login's messages are no tuple of texts")
    for text in said.messages:
        text.encode()


def _are_texts(rows: Iterable[Sequence[object]]) -> bool:
    return all(isinstance(item, str) for row in rows for item in row)
