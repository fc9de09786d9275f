"""Login: the operator's function that is asked before each dial what to say and where to.

``login = "package.module:function"`` in fleet.toml. The function may be plain or a coroutine, takes
a ``LoginContext`` and returns a ``Login``. It sees secrets that were resolved this moment, and an
HTTP client that is kept from dial to dial, for the exchanges that give out tokens by HTTP.
"""

import inspect
from collections.abc import Awaitable, Callable, Mapping
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


async def log_in(function: LoginFunction, context: LoginContext) -> Login:
    """
    Return what the operator's function says.

    Raises:
        LoginRefused: If it raises that.
        TypeError: If it returns something else than a ``Login`` or ``None``.
        Exception: Whatever else it raises.

    """
    found = function(context)
    if inspect.isawaitable(found):
        found = await found
    if found is None:
        return Login()
    if not isinstance(found, Login):
        raise TypeError(f"the login function returned {type(found).__name__}, not a Login")
    return found
