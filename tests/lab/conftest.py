"""A lab that is served in this process, and requests to it as raw as a test wants them."""

import http.client
import json
import os
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from convscope.data.images import Picture
from convscope.data.sets import Normalisation
from convscope.lab import Door, Session, open_lab, server_of
from convscope.lab.guard import HEADERS
from convscope.lab.server import open_socket
from convscope.runs import resolve
from convscope.runs.loaded import LoadedModel
from convscope.train import train

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@dataclass
class Lab:
    door: Door
    session: object
    server: object

    def ask(self, path, method="GET", body=None, *, cookie=True, **headers):
        """Status, headers and body. cookie: the right one, none, or this one."""
        right = f"{self.door.cookie}={self.door.token}"
        sent = {"cookie": right if cookie is True else cookie} if cookie else {}
        sent |= {k.replace("_", "-"): v for k, v in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.door.port, timeout=60)
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def json(self, path):
        status, _, body = self.ask(path)
        assert status == 200, body
        return json.loads(body)


class Watched:
    """An application of which every answer, of any route in any test, is checked for its headers."""

    def __init__(self, app):
        self.app, self.bare = app, []

    async def __call__(self, scope, receive, send):
        async def checked(message):
            if message["type"] == "http.response.start":
                sent = {k.decode().lower(): v.decode() for k, v in message["headers"]}
                if not HEADERS.items() <= sent.items() or any(k.startswith("access-control") for k in sent):
                    self.bare.append(f"{scope['method']} {scope['path']}: {message['status']} {sent}")
            await send(message)

        await self.app(scope, receive, checked)


@contextmanager
def lab_of(sock, door, opening):
    session = opening()
    server = server_of(opening, door, spec=session.loaded.spec)
    server.config.app = watched = Watched(server.config.app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    try:
        yield Lab(door, session, server)
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()
        assert not thread.is_alive()
        assert watched.bare == []


@pytest.fixture(scope="session")
def lab_of_opened():
    """Serves what `open_lab` gives."""
    return lab_of


@pytest.fixture(scope="module", autouse=True)
def _where_there_are_no_runs(tmp_path_factory):
    """The lab shows what lies below `runs`, and a demo may have been here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        yield


@pytest.fixture(scope="session")
def lab():
    with lab_of(*open_lab("LeNet5", "digits:0", port=0)) as served:
        yield served


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A LeNet5 that learnt the digits for three epochs."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(resolve({"epochs": 3}), out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def lab_of_run(run, lab_of_opened):
    with lab_of_opened(*open_lab(str(run), "digits:0", port=0)) as served:
        yield served


@pytest.fixture(scope="session")
def violations():
    """What axe finds on a page, as sentences."""
    from axe_playwright_python.sync_playwright import Axe

    def violations(page):
        found = Axe().run(page).response["violations"]
        return [f"{v['id']}: {n['html'][:120]} {n['failureSummary']}" for v in found for n in v["nodes"]]

    return violations


@pytest.fixture(scope="module")  # two of Playwright's loops cannot run at once, and other folders have their own
def chromium():
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None and "CI" not in os.environ:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(chromium):
    """Opens a page in a context of its own; whatever it says on the console or asks elsewhere fails the test."""

    @contextmanager
    def opened(lab, path="/", *, width=1440, height=900, **options):
        options = {"locale": "en-GB", "viewport": {"width": width, "height": height}} | options
        context = chromium.new_context(**options)
        page, trouble, own = context.new_page(), [], f"http://127.0.0.1:{lab.door.port}/"
        page.on("console", lambda m: trouble.append(f"console: {m.text}"))
        page.on("pageerror", lambda e: trouble.append(f"error: {e}"))
        page.on("request", lambda r: r.url.startswith((own, "blob:")) or trouble.append(f"asked: {r.url}"))
        page.trouble, page.settled, page.until = (
            trouble,
            lambda: settled(page),
            lambda true, **k: until(page, true, **k),
        )
        page.goto(own.removesuffix("/") + path + ("&" if "?" in path else "?") + f"token={lab.door.token}")
        settled(page)
        yield page
        context.close()
        assert trouble == []

    return opened


@pytest.fixture(scope="session")
def lab_of_model():
    """Serves a network of the test's own."""

    @contextmanager
    def lab_of_model(model, shape, *, pixels=None, classes=None, **options):
        loaded = LoadedModel("test", model.eval(), shape, Normalisation(), classes, trained=True)
        pixels = np.ones((*shape[1:], shape[0]), np.float32) if pixels is None else pixels
        sock = open_socket("127.0.0.1", 0)
        session = Session(loaded, Picture(pixels, "L", "test"), "test picture", **options)
        with lab_of(sock, Door.make("127.0.0.1", sock.getsockname()[1]), lambda: session) as served:
            yield served

    return lab_of_model


def settled(page, seconds=20):
    """Wait until the page says that it has drawn what was asked (a strict CSP forbids `wait_for_function`)."""
    for _ in range(int(seconds * 50)):
        if page.evaluate("document.body.dataset.state") == "ready":
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"the page is {page.evaluate('document.body.dataset.state')!r} after {seconds} s")


def until(page, true, seconds=20):
    """Wait until something is so."""
    for _ in range(int(seconds * 20)):
        if true():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never so: {page.inner_text('main')[:2000]}")
