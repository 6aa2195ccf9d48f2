"""What the lab refuses, over real HTTP."""

import asyncio
import io
import socket
import time

import pytest
from PIL import Image
from starlette.routing import Route

from convscope.errors import InputError, RunError
from convscope.lab import Door, make_app, open_lab
from convscope.lab.guard import HEADERS, MAX_BODY, PAGES, Guard
from convscope.lab.server import open_socket


def raw(lab, text, *, wait=5.0):
    """What comes back for bytes sent as they are."""
    with socket.create_connection(("127.0.0.1", lab.door.port), timeout=wait) as sock:
        sock.sendall(text.encode())
        return sock.makefile("rb").readline().decode()


def png(width=32, height=32):
    buffer = io.BytesIO()
    Image.new("L", (width, height), 128).save(buffer, "PNG")
    return buffer.getvalue()


# Hosts


def test_other_hosts_are_refused(lab):
    port, cookie = lab.door.port, f"Cookie: {lab.door.cookie}={lab.door.token}"
    bad = [
        "Host: evil.com", f"Host: evil.com:{port}", f"Host: 127.0.0.1.evil.com:{port}", "Host:", "Host: ",
        "X-None: 1", f"Host: localhost.:{port}", f"Host: 127.0.0.1:{port + 1}", "Host: 127.0.0.1",
        f"Host: 127.0.0.1:{port}\r\nHost: evil.com", f"Host: evil@127.0.0.1:{port}", f"Host: 0x7f000001:{port}",
    ]  # fmt: skip
    for host in bad:
        answer = raw(lab, f"GET / HTTP/1.1\r\n{host}\r\n{cookie}\r\nConnection: close\r\n\r\n")
        assert " 400 " in answer, host
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        assert " 200 " in raw(lab, f"GET / HTTP/1.1\r\nHost: {host}\r\n{cookie}\r\nConnection: close\r\n\r\n")


def test_bound_to_every_address_only_addresses_are_its_names():
    door = Door("0.0.0.0", 8765, "t")
    assert door.knows("192.168.1.20:8765")
    assert not door.knows("evil.com:8765")
    assert not door.knows(":8765")


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "http://127.0.0.1:1", "https://127.0.0.1:{port}"])
def test_other_origins_are_refused(lab, origin):
    for method in ("GET", "POST"):
        status, headers, _ = lab.ask("/api/session", method, origin=origin.format(port=lab.door.port))
        assert status == 403
        assert not [h for h in headers if h.lower().startswith("access-control")]


def test_the_own_origin_is_let_in(lab):
    assert lab.ask("/api/session", origin=f"http://127.0.0.1:{lab.door.port}", sec_fetch_site="same-origin")[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "odd"])
def test_other_sites_are_refused(lab, site):
    assert lab.ask("/api/session", sec_fetch_site=site)[0] == 403
    assert lab.ask("/", sec_fetch_site=site, sec_fetch_dest="iframe")[0] == 403


def test_a_preflight_gets_no_permission(lab):
    asked = {"origin": "http://evil.com", "access_control_request_method": "POST"}
    status, headers, _ = lab.ask("/api/pictures", "OPTIONS", **asked)
    assert status == 403
    assert not [h for h in headers if h.lower().startswith("access-control")]


@pytest.mark.parametrize("name", ["own", "evil.com"])
def test_websockets_are_refused(lab, name):
    host = f"127.0.0.1:{lab.door.port}" if name == "own" else name
    ask = f"GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: http://evil.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    answer = raw(lab, ask + "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    assert " 101 " not in answer
    assert " 40" in answer


def test_a_websocket_scope_is_closed_whatever_the_server():
    sent = []

    async def never(*_):
        raise AssertionError

    async def send(message):
        sent.append(message)

    asyncio.run(Guard(never, Door("127.0.0.1", 1, "t"))({"type": "websocket"}, never, send))  # pyright: ignore
    assert sent == [{"type": "websocket.close", "code": 1008}]


# The token


def test_without_the_token_nothing_is_told(lab):
    for path in ("/", "/api/session", "/static/main.js", "/nothing"):
        assert lab.ask(path, cookie=False)[0] == 403
        assert lab.ask(path, cookie=f"{lab.door.cookie}=wrong")[0] == 403
        assert lab.ask(path, cookie=False, referer=lab.door.url)[0] == 403
    assert lab.ask("/?token=wrong", cookie=False)[0] == 403
    assert lab.ask(f"/api/session?token={lab.door.token}", cookie=False)[0] == 403


def test_the_token_becomes_a_cookie(lab):
    status, headers, _ = lab.ask(f"/?token={lab.door.token}", cookie=False)
    assert status == 200
    cookie = headers["set-cookie"]
    assert cookie.startswith(f"{lab.door.cookie}={lab.door.token};")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert lab.ask("/api/session", cookie=False)[0] == 403
    assert lab.ask("/api/session")[0] == 200


def test_two_doors_have_two_tokens_and_two_cookies():
    one, two = Door.make("127.0.0.1", 1), Door.make("127.0.0.1", 2)
    assert one.token != two.token
    assert one.cookie != two.cookie
    assert len(one.token) >= 32


# Headers


def routes(app):
    return [r for r in app._app.routes if isinstance(r, Route)]


def test_every_answer_of_every_route_has_the_headers(lab):
    found = routes(make_app(lambda: lab.session, lab.door))
    assert len(found) > 10
    paths = [r.path.format(**dict.fromkeys(r.param_convertors, "0")) for r in found]
    for path in [*paths, "/nothing", "/static/main.js"]:
        for method in ("GET", "POST", "PUT", "DELETE"):
            status, headers, _ = lab.ask(path, method)
            assert HEADERS.items() <= headers.items(), (path, method, status)
            assert "server" not in headers
            assert not [h for h in headers if h.lower().startswith("access-control")]
    assert HEADERS.items() <= lab.ask("/", cookie=False)[1].items()
    csp = HEADERS["content-security-policy"]
    assert "frame-ancestors 'none'" in csp
    assert "unsafe" not in csp


def test_the_pages_are_served(lab):
    for path in PAGES:
        status, headers, body = lab.ask(path)
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b'<script type="module"' in body


# Paths


@pytest.mark.parametrize(
    "path",
    ["/static/../guard.py", "/static/%2e%2e/guard.py", "/static/..%2fguard.py", "/static/..%5cguard.py", "//etc/passwd",
     "/static//etc/passwd", "/static/lab.html%00.js", "/static/%5c%5chost%5cshare", "/static_/main.js", "/static/",
     "/static/main.js/..", "/static/__init__.py", "/../../etc/passwd", "/static/....//guard.py"],
)  # fmt: skip
def test_no_path_leads_out(lab, path):
    assert lab.ask(path)[0] == 404


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "..%2f..%2fetc%2fpasswd", "README.md", "digits:360", "digits:-1", "own-99"]
)
def test_a_picture_is_never_a_path(lab, name):
    assert lab.ask(f"/api/pictures/{name}")[0] == 404


# Bodies


def test_a_body_is_limited_by_what_it_says(lab):
    ask = f"POST /api/pictures HTTP/1.1\r\nHost: 127.0.0.1:{lab.door.port}\r\n"
    ask += f"Cookie: {lab.door.cookie}={lab.door.token}\r\nContent-Length: {{}}\r\n\r\n"
    assert " 413 " in raw(lab, ask.format(MAX_BODY + 1))
    assert " 413 " in raw(lab, ask.format(10**9))
    assert " 400 " in raw(lab, ask.format("-1"))


def test_a_body_is_limited_by_what_comes(lab):
    sent = 0
    with socket.create_connection(("127.0.0.1", lab.door.port), timeout=20) as sock:
        sock.sendall(
            f"POST /api/pictures HTTP/1.1\r\nHost: 127.0.0.1:{lab.door.port}\r\n"
            f"Cookie: {lab.door.cookie}={lab.door.token}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        block = b"%x\r\n" % 2**20 + b"0" * 2**20 + b"\r\n"
        try:
            for _ in range(256):
                sock.sendall(block)
                sent += 2**20
        except OSError:
            pass
        assert sent < MAX_BODY + 40 * 2**20
        assert b" 413 " in sock.makefile("rb").readline()


def test_pictures_that_are_none_are_refused_in_a_sentence(lab):
    status, _, body = lab.ask("/api/pictures?name=cat.jpg", "POST", b"version https://git-lfs.github.com/spec/v1")
    assert status == 400
    assert b"cat.jpg: looks like a Git LFS pointer" in body
    assert lab.ask("/api/pictures", "POST", b"")[0] == 400
    assert lab.ask("/api/pictures", "POST", png()[:-20])[0] == 400


def test_a_huge_picture_is_refused_before_it_is_decoded(lab):
    start = time.perf_counter()
    status, _, body = lab.ask("/api/pictures", "POST", png(8000, 8000))
    assert (status, b"the limit is 40,000,000" in body) == (413, True)
    assert time.perf_counter() - start < 2


def test_the_pictures_name_is_text(lab):
    status, _, body = lab.ask("/api/pictures?name=%3Cimg%20src=x%20onerror=alert(1)%3E%00", "POST", png())
    assert status == 200
    assert b'"name":"<img src=x onerror=alert(1)>"' in body


# Numbers


@pytest.mark.parametrize("index", ["-1", "1000000000", "1e9", "NaN", "x", "%20", "99", "0.0", "%D9%A1"])
def test_a_layer_that_is_none_is_refused(lab, index):
    for what in ("maps", "values", "units/0,0,0,0"):
        status, _, body = lab.ask(f"/api/pictures/given/layers/{index}/{what}")
        assert status in (400, 404)
        assert b"from 0 on" in body or b"there are layers 0 to" in body


@pytest.mark.parametrize("unit", ["-1,0,0,0", "0,6,0,0", "0,0,0", "0,0,0,0,0", "a", "0,,0,0", "1e1,0,0,0", ""])
def test_a_unit_that_is_none_is_refused(lab, unit):
    assert lab.ask(f"/api/pictures/given/layers/0/units/{unit}")[0] in (400, 404)


@pytest.mark.parametrize("query", ["page=-1", "page=1", "page=NaN", "by=odd", "by="])
def test_a_page_that_is_none_is_refused(lab, query):
    assert lab.ask(f"/api/pictures/given/layers/0/maps?{query}")[0] == 400


# Load


def test_half_open_requests_do_not_hold_up_others(lab):
    half = [socket.create_connection(("127.0.0.1", lab.door.port)) for _ in range(300)]
    try:
        for sock in half:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: ")
        start = time.perf_counter()
        assert lab.ask("/api/session")[0] == 200
        assert time.perf_counter() - start < 1
    finally:
        for sock in half:
            sock.close()


def test_a_silent_connection_is_closed(lab, monkeypatch):
    monkeypatch.setattr("convscope.lab.protocol.SILENT_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", lab.door.port), timeout=5) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert sock.recv(10) == b""


def test_what_is_refused_before_the_guard_has_the_headers_too(lab, monkeypatch):
    def answer(text):
        with socket.create_connection(("127.0.0.1", lab.door.port), timeout=5) as sock:
            sock.sendall(text)
            head, _, body = sock.makefile("rb").read().partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        pairs = [line.split(": ", 1) for line in lines]
        assert len({k.lower() for k, _ in pairs}) == len(pairs), pairs
        return int(first.split()[1]), {k.lower(): v for k, v in pairs}, body

    for nonsense in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /\xff HTTP/9.9\r\nHost: a\r\n\r\n"):
        status, headers, _ = answer(nonsense)
        assert status == 400
        assert HEADERS.items() <= headers.items()
    monkeypatch.setattr("convscope.lab.protocol.MOST_CONNECTIONS", 0)
    status, headers, body = answer(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{lab.door.port}\r\n\r\n".encode())
    assert (status, headers["retry-after"]) == (503, "1")
    assert HEADERS.items() <= headers.items()
    assert b"try again in a second" in body


# The socket


def test_the_next_port_is_taken_unless_one_is_given():
    one = open_socket("127.0.0.1")
    try:
        two = open_socket("127.0.0.1")
        assert two.getsockname()[1] > one.getsockname()[1]
        assert two.proto == socket.IPPROTO_TCP
        socket.create_connection(two.getsockname()).close()  # it listens already
        two.close()
        with pytest.raises(RunError, match=r"--port \d+: cannot be opened"):
            open_socket("127.0.0.1", one.getsockname()[1])
    finally:
        one.close()


def test_another_host_needs_the_permission():
    with pytest.raises(InputError, match="add --allow-remote if that is wanted"):
        open_lab("LeNet5", "digits:0", host="0.0.0.0")
    with pytest.raises(InputError, match="no address of this machine"):
        open_socket("no.such.host.invalid", 0)
