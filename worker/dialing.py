"""Dialing: from a session's wish to dial to a route, through budget, secrets and login.

The I/O shell of what comes before a socket. Ends with exactly one call of ``on_routed``,
``on_refused`` or ``on_postponed``, unless it is cancelled.
"""

import asyncio
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from worker.addresses import AddressOrder
from worker.announcement import Cause
from worker.budget import ConnectBudget
from worker.credentials import SecretMissing, masked, resolve
from worker.exits import Exit
from worker.handshake import header_fault, url_fault
from worker.login import HttpClient, Login, LoginContext, LoginFunction, LoginRefused, log_in
from worker.spec import ConnectionSpec, Secret
from worker.wire import Route

log = logging.getLogger("worker.dialing")

CROWDED_RETRY_NS = 1_000_000_000
ERROR_TEXT_MAX = 200


class DialEvents(Protocol):
    """Who is told how it went."""

    def on_routed(self, route: Route, logins: tuple[bytes, ...]) -> None:
        """Dial ``route``; say ``logins`` once it is open."""

    def on_postponed(self, delay_ns: int) -> None:
        """The host's budget is spent for so long."""

    def on_refused(self, cause: Cause, error: str, permanent: Exit | None) -> None:
        """There is nothing to dial with."""


class Dialing:
    """
    The way to a socket, again and again.

    Args:
        spec: The connection.
        login: Its login function, if it has one.
        events: Who is told.

    Attributes:
        is_crowded: Whether the last dial had to wait for another session of the host to end.

    """

    def __init__(
        self, spec: ConnectionSpec, login: LoginFunction | None, events: DialEvents
    ) -> None:
        self._spec, self._login, self._events = spec, login, events
        self._next = spec
        self._budget: ConnectBudget | None = None
        self._waited_for = False  # the budget keeps a place for the next dial
        self.is_crowded = False
        self._addresses = AddressOrder()
        self._http = HttpClient()
        self._task: asyncio.Task[None] | None = None

    def adjust(self, spec: ConnectionSpec) -> None:
        """Keep another budget from the next dial on; nothing else has changed in ``spec``."""
        self._next = spec

    def begin(self, session: int) -> None:
        """Go."""
        if self._next.budget != self._spec.budget:
            self.ended()
            self._budget, self._waited_for = None, False
        self._spec = self._next
        delay_ns = self._take()
        if delay_ns:
            self._events.on_postponed(delay_ns)
            return
        try:
            route = self._route()
            secrets = {name: resolve(secret) for name, secret in self._spec.secrets}
        except (SecretMissing, ValueError) as error:
            self._events.on_refused(Cause.LOGIN_FAILED, str(error), None)
            return
        if self._login is None:
            self._events.on_routed(route, ())
            return
        context = LoginContext(
            connection=self._spec.name,
            url=self._spec.url,
            session=session,
            secrets=secrets,
            _http=self._http,
        )
        self._task = asyncio.get_running_loop().create_task(self._log_in(context, route))

    def cancel(self) -> bool:
        """Give up a login that is under way; return whether there was one."""
        task, self._task = self._task, None
        if task is None or task.done():
            return False
        task.cancel()
        return True

    def opened(self) -> None:
        """The session is open: the address that was dialled is a good one."""
        self._addresses.succeeded()

    def ended(self) -> None:
        """The session has ended: give its place among the host's sessions back."""
        if self._budget is not None:
            self._budget.release()

    async def close(self) -> None:
        """Let go of everything kept between dials."""
        self.cancel()
        self.ended()
        await self._http.close()

    def _take(self) -> int:
        """Return how long to wait, in ns. A budget that cannot be kept must not stop trading."""
        spec = self._spec.budget
        if spec is None:
            return 0
        try:
            if self._budget is None:
                self._budget = ConnectBudget(
                    Path(spec.directory),
                    spec.host,
                    connects=spec.connects,
                    per_ns=spec.per_ns,
                    concurrent=spec.concurrent,
                )
            self.is_crowded = not self._budget.lease()
            if self.is_crowded:
                return CROWDED_RETRY_NS
            if self._waited_for:
                self._waited_for = False
                return 0
            delay_ns = self._budget.take(time.monotonic_ns())
            self._waited_for = delay_ns > 0 and self._budget.reserved
            return delay_ns
        except OSError as error:  # BudgetUnusable, or a disk that fails
            log.warning("connect budget unusable connection=%s error=%s", self._spec.name, error)
            return 0

    def _route(self) -> Route:
        headers = tuple((name, _plain(value)) for name, value in self._spec.headers)
        proxy = None if self._spec.proxy is None else _plain(self._spec.proxy)
        route = Route(url=self._spec.url, headers=headers, proxy=proxy, order=self._addresses)
        return self._checked(route)

    def _checked(self, route: Route) -> Route:
        """
        Return the route, if an upgrade request can carry it.

        The specification's own address was checked before it came here.

        Raises:
            ValueError: If not, by the name of the header: its value may be a secret.

        """
        if route.url != self._spec.url and (fault := url_fault(route.url)):
            raise ValueError(f"url {fault}")
        for name, value in route.headers:
            if fault := header_fault(name, value):
                raise ValueError(f"headers: {name!r} {fault}")
        return route

    async def _log_in(self, context: LoginContext, route: Route) -> None:
        assert self._login is not None
        refusal: tuple[str, Exit | None] | None = None
        try:
            said = await log_in(self._login, context)
            route = self._checked(_joined(route, said))
        except LoginRefused as error:
            refusal = _text(error, context), Exit.CREDENTIALS
        except Exception as error:  # an operator's function may raise anything
            refusal = _text(error, context), None
        if self._task is not asyncio.current_task():
            return  # given up meanwhile, which a function may fail to notice
        if refusal is not None:
            self._events.on_refused(Cause.LOGIN_FAILED, *refusal)
        else:
            self._events.on_routed(route, tuple(text.encode() for text in said.messages))


def _joined(route: Route, said: Login) -> Route:
    headers = (*route.headers, *said.headers.items())
    return replace(route, url=said.url or route.url, headers=headers)


def _plain(value: str | Secret) -> str:
    return value if isinstance(value, str) else resolve(value)


def _text(error: Exception, context: LoginContext) -> str:
    said = masked(f"{type(error).__name__}: {error}", context.secrets.values())
    return said[:ERROR_TEXT_MAX]
