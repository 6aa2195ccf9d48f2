"""HTTP/1.1 as the lab speaks it: patient, not for ever, and with the same headers where no application answers."""

from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from convscope.lab.guard import HEADERS

MOST_CONNECTIONS = 900  # the system's usual limit of open files is 1,024
SILENT_SECONDS = 10  # a connection may keep silent, or leave a request unfinished
LINGER_SECONDS = 1  # a refused one may still be sending: closed at once, its system would drop the answer
PLAIN = {"content-type": "text/plain; charset=utf-8", "connection": "close"}


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that does not wait for ever: a connection without a whole request is closed after a while.

    What is no request, and one connection too many, is refused here, before the guard.
    """

    def connection_made(self, transport: Any) -> None:
        """Begin to watch the connection, or say when to come again."""
        super().connection_made(transport)
        self._refused = len(self.connections) > MOST_CONNECTIONS
        if self._refused:
            self._refuse(503, "Busy: too many connections; try again in a second.", {"retry-after": "1"})
            self._later = self.loop.call_later(LINGER_SECONDS, transport.close)
        else:
            self._later = self.loop.call_later(SILENT_SECONDS, self._look, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        self._later.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the connection was refused."""
        if not self._refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request."""
        self._refuse(400, msg, {})
        self.transport.close()

    def _refuse(self, status: int, why: str, more: dict[str, str]) -> None:
        headers = [(k.encode(), v.encode()) for k, v in (PLAIN | HEADERS | more).items()]
        refusal = h11.Response(status_code=status, headers=headers, reason=HTTPStatus(status).phrase.encode())
        for event in (refusal, h11.Data(data=why.encode("ascii", "replace")), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _look(self, before: Any) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is before:
            self.transport.close()
        else:
            self._later = self.loop.call_later(SILENT_SECONDS, self._look, self.cycle)
