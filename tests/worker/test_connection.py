"""Most of it is seen from its owners: tests/conformance, test_runner, test_session_discipline.

Here stands what neither shows.
"""

import asyncio
import ssl

import trustme
from library import Answering, exchange_of, run, until

from shm.layout import WORDS_IN_PAGE, Counter
from worker.connection import Connection
from worker.login import Login
from worker.session import State
from worker.spec import ConnectionSpec


class Told:
    """An ``Output`` that writes down the end."""

    code = None

    def message(self, payload, is_text, now_ns, wall_ns):
        pass

    def state(self, machine, now_ns):
        pass

    def ping(self, body, sent_ns):
        pass

    def pong(self, rtt_ns, now_ns, payload):
        pass

    def announce(self, announcement):
        pass

    def dialect_error(self, error):
        pass

    def ended(self, code):
        self.code = code


def test_a_login_that_leads_from_ws_to_wss_gets_tls_and_is_verified(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)

    async def state_after_dial(**keys):
        async with exchange_of(Answering(), context=context) as exchange:
            spec = ConnectionSpec(name="x", url="ws://127.0.0.1:1/", heartbeat=None, **keys)
            told, words, counters = Told(), [0] * WORDS_IN_PAGE, [0] * len(Counter)
            connection = Connection(
                spec, told, words, counters, login=lambda context: Login(url=exchange.url)
            )
            connection.start()
            await until(
                lambda: connection.session.state is State.UP or counters[Counter.CONNECT_FAILURES]
            )
            state = connection.session.state
            connection.stop()
            await until(lambda: told.code is not None)
            await connection.close()
            await asyncio.sleep(0)
        return state

    assert run(state_after_dial(tls_ca=str(tmp_path / "ca.pem"))) is State.UP
    assert run(state_after_dial()) is not State.UP, "nobody knows the authority"
