"""The lab under a crowd, and under requests of any bytes."""

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benches import bench
from convscope.lab.app import make_app
from fuzzing import budget


def test_a_crowd_with_slow_and_half_open_clients():
    told = bench("load").load(clients=200, slows=10, halves=40, seconds=0.5)
    assert set(told.statuses) <= {200, 503}
    assert told.statuses[200] > 100
    assert told.without_hint == 0
    assert told.broken == {}
    assert told.clicks
    assert max(told.memory) - told.memory[0] < 300 * 2**20


def test_one_connection_too_many_is_told_when_to_come_again(lab, monkeypatch):
    monkeypatch.setattr("convscope.lab.protocol.MOST_CONNECTIONS", 3)
    held = [socket.create_connection(("127.0.0.1", lab.door.port), timeout=5) for _ in range(3)]
    try:
        time.sleep(0.1)
        with socket.create_connection(("127.0.0.1", lab.door.port), timeout=5) as late:
            answer = late.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in answer
    finally:
        for sock in held:
            sock.close()


def test_an_upload_that_kills_the_decoder_is_a_sentence_and_the_next_is_taken(lab, tmp_path):
    from PIL import Image

    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    assert lab.ask("/api/pictures?name=a.png", "POST", content)[0] == 200
    for child in _children(os.getpid()):
        if "convscope.data" in child[1]:
            os.kill(child[0], signal.SIGSEGV)
    status, _, body = lab.ask("/api/pictures?name=a.png", "POST", content)
    assert (status, b"a.png: made the decoder crash (SIGSEGV)" in body) == (400, True)
    assert lab.ask("/api/pictures?name=a.png", "POST", content)[0] == 200


def _children(parent):
    """(pid, command line) of the processes that a process began."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append((int(entry.name), (entry / "cmdline").read_text()))
    return found


def test_a_request_never_names_a_model(lab):
    before = lab.json("/api/session")
    assert lab.json("/api/session?model=os:system&spec=os:system&image=/etc/passwd") == before
    blanks = {name for r in make_app(lambda: lab.session, lab.door)._app.routes for name in r.param_convertors}
    assert blanks == {"name", "picture", "layer", "unit", "run", "true", "said", "index", "task", "method"}
    for path in ("/api/models/os:system", "/api/session/os:system"):
        assert lab.ask(path)[0] == 404


words = st.sampled_from(
    ["api", "pictures", "given", "digits:0", "layers", "0", "maps", "units", "0,0,0,0", "reach", "family", "times",
     "runs", "metrics", "cells", "work", "attributions", "saliency",
     "..", "%00", "%2e", "-1", "1e9", "own-1", "static", "main.js", "", "é", "99999999999"]
)  # fmt: skip
queries = st.lists(
    st.tuples(st.sampled_from(["page", "by", "channel", "effective", "channels", "kernel", "groups", "dilation",
               "name", "class"]),
              st.sampled_from(["0", "1", "-1", "3", "x", "", "99999999", "NaN", "variance", "%ff", "64"])), max_size=4
)  # fmt: skip
methods = st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "X"])


@pytest.fixture
def status_of(lab):
    def status_of(method, path, body, extra):
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{lab.door.port}\r\n"
        head += f"Cookie: {lab.door.cookie}={lab.door.token}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        with socket.create_connection(("127.0.0.1", lab.door.port), timeout=30) as sock:
            sock.sendall(head.encode() + extra + b"\r\n" + body)
            line = sock.makefile("rb").readline()
        return int(line.split()[1]) if line else 0

    return status_of


@budget(60)
@given(method=methods, path=st.lists(words, max_size=8), query=queries, body=st.binary(max_size=40))
def test_any_request_gets_a_status_of_ours(status_of, method, path, query, body):
    asked = "/" + "/".join(path) + "?" + "&".join(f"{k}={v}" for k, v in query)
    if path[-1:] == ["times"]:
        return  # measured for seconds, on purpose
    assert 200 <= status_of(method, asked, body, b"") < 500


@budget(40)
@given(extra=st.binary(max_size=60))
def test_any_bytes_in_headers_get_a_status_of_ours(status_of, extra, monkeypatch):
    monkeypatch.setattr("convscope.lab.protocol.SILENT_SECONDS", 0.1)  # what makes no whole request is closed
    assert status_of("GET", "/api/session", b"", extra) < 500
