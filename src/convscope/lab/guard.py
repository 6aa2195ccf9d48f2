"""Guard: the one middleware through which every request comes in and every answer goes out.

What it refuses: other hosts than its own (DNS rebinding), requests that another site's page made, requests without
the token, bodies that are too large, and websockets, of which the lab has none.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from hmac import compare_digest
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from secrets import token_urlsafe
from socket import gethostname
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 24 * 2**20
MAX_UPLOADS = 4  # bodies that are read at the same time
BODY_SECONDS = 30
PAGES = ("/", "/convolution", "/family", "/runs")

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": CSP,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
_HEADERS = [(k.encode(), v.encode()) for k, v in HEADERS.items()]


@dataclass(frozen=True, slots=True)
class Door:
    """Where the lab is reached, and the secret that opens it.

    `host` is what the socket is bound to. The cookie's name holds the port: browsers keep cookies by host alone,
    and two labs must not put each other out.
    """

    host: str
    port: int
    token: str

    @classmethod
    def make(cls, host: str, port: int) -> "Door":
        """A door with a new random token."""
        return cls(host, port, token_urlsafe(24))

    @property
    def cookie(self) -> str:
        """The cookie's name."""
        return f"convscope_lab_{self.port}"

    @property
    def url(self) -> str:
        """What a person opens."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/?token={self.token}"

    def knows(self, host: str) -> bool:
        """Whether a Host header names this lab.

        Bound to every address, it goes by any address but by no other name than the machine's own: a name that
        an attacker's DNS points here is not among them.

        >>> door = Door("127.0.0.1", 8765, "t")
        >>> [door.knows(h) for h in ("127.0.0.1:8765", "localhost:8765", "127.0.0.1.evil.com:8765", "localhost.:8765")]
        [True, True, False, False]
        """
        name, _, port = host.rpartition(":")
        if not port.isdecimal():
            name, port = host, "80"
        if port != str(self.port):
            return False
        if name in {"127.0.0.1", "localhost", "[::1]", self.host, f"[{self.host}]"}:
            return bool(name)
        return self.host in ("0.0.0.0", "::") and (_is_address(name) or name == gethostname())


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door, self._uploads = app, door, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _Headers(scope["headers"])
        has_token = self._has_token(scope)
        send = _with_headers(send, self._cookie() if has_token else None)
        refusal = self._refusal(scope, headers, has_token)
        if refusal is None and scope["method"] == "POST":
            read = await self._read(headers, receive)
            refusal, receive = (read, receive) if isinstance(read, Response) else (None, _replayed(read, receive))
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: "_Headers", has_token: bool) -> Response | None:
        host = headers.only("host")
        if host is None or not self._door.knows(host):
            return PlainTextResponse("This is not the host that the lab serves.", 400)
        if any(origin != f"http://{host}" for origin in headers.all("origin")):
            return PlainTextResponse("Refused: the request came from a page of another origin.", 403)
        site = headers.all("sec-fetch-site") or ["none"]
        opened = has_token and headers.all("sec-fetch-dest") == ["document"]  # a click on the address in another page
        if not (opened or set(site) <= {"same-origin", "none"}):
            return PlainTextResponse("Refused: the request came from another site.", 403)
        if not (has_token or self._has_cookie(headers)):
            return PlainTextResponse("The address needs its token: open the one that the terminal shows.", 403)
        return None

    def _has_token(self, scope: Scope) -> bool:
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [])
        return scope["method"] == "GET" and scope["path"] in PAGES and len(given) == 1 and self._is_token(given[0])

    def _has_cookie(self, headers: "_Headers") -> bool:
        for line in headers.all("cookie"):
            try:
                found = SimpleCookie(line).get(self._door.cookie)
            except CookieError:
                continue
            if found is not None and self._is_token(found.value):
                return True
        return False

    def _is_token(self, given: str) -> bool:
        return compare_digest(given.encode(), self._door.token.encode())

    def _cookie(self) -> tuple[bytes, bytes]:
        value = f"{self._door.cookie}={self._door.token}; Path=/; HttpOnly; SameSite=Strict"
        return b"set-cookie", value.encode()

    async def _read(self, headers: "_Headers", receive: Receive) -> bytes | Response:
        """The body, counted as it comes; or the refusal."""
        said = headers.only("content-length")
        if said is not None and (not said.isdecimal() or int(said) > MAX_BODY):
            return _too_large()
        if self._uploads >= MAX_UPLOADS:
            return PlainTextResponse("BusyError: try again in a second.", 503, {"retry-after": "1"})
        self._uploads += 1
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await _counted(receive)
        except TimeoutError:
            return PlainTextResponse("The body did not arrive in time.", 408, {"connection": "close"})
        finally:
            self._uploads -= 1


class _Headers:
    """A request's headers as they were sent, doubled ones included."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = [(k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in raw]

    def all(self, name: str) -> list[str]:
        return [v for k, v in self._raw if k == name]

    def only(self, name: str) -> str | None:
        found = self.all(name)
        return found[0] if len(found) == 1 else None


async def _counted(receive: Receive) -> bytes | Response:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return PlainTextResponse("", 400)
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            return _too_large()
        if not message.get("more_body", False):
            return bytes(body)


def _too_large() -> Response:
    return PlainTextResponse(f"Too large: the limit is {MAX_BODY // 2**20} MiB.", 413, {"connection": "close"})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A channel that gives the body that was read, and then whatever comes."""
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again


def _with_headers(send: Send, cookie: tuple[bytes, bytes] | None) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            own = [(k, v) for k, v in message.get("headers", []) if k.decode("latin-1").lower() not in HEADERS]
            message = {**message, "headers": [*own, *_HEADERS, *([cookie] if cookie else [])]}
        await send(message)

    return guarded


def _is_address(name: str) -> bool:
    try:
        ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
