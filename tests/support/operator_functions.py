"""What an operator would write: login functions named in a connection."""

import httpx

from worker import Login, LoginContext, LoginRefused


async def token(context: LoginContext) -> Login:
    """Fetch a token by HTTP and dial with it."""
    reply = await context.http.post(context.secrets["token_url"])
    reply.raise_for_status()
    return Login(
        url=f"{context.url}?token={reply.json()['token']}",
        headers={"X-Session": str(context.session)},
        messages=('{"op":"auth"}',),
    )


def refused(_context: LoginContext) -> Login:
    """Know that the credentials are wrong."""
    raise LoginRefused("key expired")


def broken(_context: LoginContext) -> Login:
    """Have a bug."""
    raise httpx.ConnectError("token server is down")


def garbled(_context: LoginContext) -> Login:
    """Return a login that no handshake can carry."""
    return Login(headers={"X-Token": "a\nb"}, messages="auth")


def unreachable(_context: LoginContext) -> Login:
    """Return what is no URL of an exchange."""
    return Login(url="http://exchange.test/")


async def match_later(_message: object) -> bool:
    """Be no matcher: whether it matches is known too late."""
    return True


def wrong(_context: LoginContext):
    """Return what is no login."""
    return "token"
