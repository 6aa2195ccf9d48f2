"""HTTP/1.1 as the lab speaks it: patient, not for ever, and with the same headers where no application answers."""

from typing import Any

import h11
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from convscope.lab.guard import HEADERS

MOST_CONNECTIONS = 900  # the system's usual limit of open files is 1,024
SILENT_SECONDS = 10  # a connection may keep silent, or leave a request unfinished
PLAIN = {"content-type": "text/plain; charset=utf-8", "connection": "close"}


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that does not wait for ever: a connection without a whole request is closed after a while.

    What is no request, and what comes over too many connections, is refused here, before the guard.
    """

    app: ASGIApp

    def connection_made(self, transport: Any) -> None:
        """Begin to watch the connection."""
        super().connection_made(transport)
        self._guarded, self.app = self.app, self._unless_full
        self._later = self.loop.call_later(SILENT_SECONDS, self._look, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop watching."""
        self._later.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request."""
        headers = [(k.encode(), v.encode()) for k, v in (PLAIN | HEADERS).items()]
        refusal = h11.Response(status_code=400, headers=headers, reason=b"Bad Request")
        for event in (refusal, h11.Data(data=msg.encode("ascii", "replace")), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    async def _unless_full(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._guarded
        if len(self.connections) > MOST_CONNECTIONS:
            app = PlainTextResponse("Busy: too many connections; try again in a second.", 503,
                                    {"retry-after": "1", **PLAIN, **HEADERS})  # fmt: skip
        await app(scope, receive, send)

    def _look(self, before: Any) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is before:
            self.transport.close()
        else:
            self._later = self.loop.call_later(SILENT_SECONDS, self._look, self.cycle)
