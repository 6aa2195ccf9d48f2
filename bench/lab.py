"""The lab with the browser in the loop: `python bench/lab.py [--model torchvision:resnet18] [--rounds 40]`.

- start: from the end of torch's import to the address that answers, and to the recorded model; from there to the first
  page that is drawn
- click: from a click on a value to its field and arithmetic drawn (after the frame that shows them)
- hover: what the page does for a move of the pointer over 64 maps of 56x56, without the server
- maps: from the choice of a layer to its 64 maps of 56x56 drawn
- large: the first page of 2,000 layers, and of 4,096 channels; a word typed into the search of 2,000 layers
- crowd: 200 clients, 1,000 requests for a unit's arithmetic, all answered
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time

from convscope.machine import describe, tune

tune()

import numpy as np
from torch import nn

from convscope.data.images import Picture
from convscope.data.sets import Normalisation
from convscope.lab import Door, Session, open_lab, server_of
from convscope.lab.server import open_socket
from convscope.runs.loaded import LoadedModel
from convscope.table import Column, Table

CLIENTS, REQUESTS = 200, 1000
CHROMIUM = "/usr/bin/chromium"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
START = """
import sys, time, torch
start = time.perf_counter()
from convscope.lab import open_lab
sock, door, opening = open_lab(sys.argv[1], sys.argv[2], port=0)
listens = time.perf_counter()
opening()
print(listens - start, time.perf_counter() - start)
"""
CLICK = """async ([x, y]) => {
  const sheet = document.querySelector('.sheet');
  const before = document.querySelector('.arithmetic h2').textContent;
  const box = sheet.getBoundingClientRect();
  const start = performance.now();
  sheet.dispatchEvent(new MouseEvent('click', { clientX: box.left + x, clientY: box.top + y, bubbles: true }));
  while (document.querySelector('.arithmetic h2').textContent === before) await new Promise(f => setTimeout(f, 0));
  await new Promise(f => requestAnimationFrame(() => setTimeout(f, 0)));
  return performance.now() - start;
}"""
LAYER = """async name => {
  performance.clearResourceTimings(); // a browser keeps 250 of them, and forgets the newest
  const start = performance.now();
  document.querySelector(`.rows button[title="${name}"]`).click();
  while (document.body.dataset.state === 'ready') await new Promise(f => setTimeout(f, 0));
  while (!performance.getEntriesByType('resource').some(e => e.startTime >= start && e.name.includes('/maps?')))
    await new Promise(f => setTimeout(f, 1));
  await new Promise(f => requestAnimationFrame(() => setTimeout(f, 0)));
  return performance.now() - start;
}"""


HOVER = """i => {
  const sheet = document.querySelector('.sheet');
  const box = sheet.getBoundingClientRect();
  const start = performance.now();
  const at = { clientX: box.left + 12 + i % 50, clientY: box.top + 30 + (7 * i) % 50, bubbles: true };
  sheet.dispatchEvent(new PointerEvent('pointermove', at));
  return performance.now() - start;
}"""
SEARCH = """async word => {
  const search = document.querySelector('.search');
  const start = performance.now();
  search.value = word;
  search.dispatchEvent(new Event('input'));
  await new Promise(f => requestAnimationFrame(() => setTimeout(f, 0)));
  return performance.now() - start;
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="torchvision:resnet18")
    parser.add_argument("--image", default="flower")
    parser.add_argument("--rounds", type=int, default=40)
    wanted = parser.parse_args()
    listens, opened = started(wanted.model, wanted.image)
    rows = [row("address after torch's import", listens), row("model recorded after torch's import", opened)]
    sock, door, opening = open_lab(wanted.model, wanted.image, port=0)
    opening()
    server = serving(sock, door, opening)
    rows += in_browser(door, wanted.rounds)
    rows += large("2,000 layers", nn.Sequential(*(nn.ReLU() for _ in range(2000))), rounds=wanted.rounds)
    rows += large("4,096 channels", nn.Conv2d(1, 4096, 1))
    statuses, taken, seconds = asyncio.run(crowd(door))
    server.should_exit = True
    rows.append(row(f"{REQUESTS} requests of {CLIENTS} clients, each", taken))
    answered = ", ".join(f"{statuses.count(s)} x {s}" for s in sorted(set(statuses)))
    facts = describe()
    notes = (
        f"crowd: {answered} in {seconds:.1f} s",
        f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, {wanted.model}",
    )
    columns = (Column("what", "what"), Column("median", "median", "ms"), Column("p95", "p95", "ms"), Column("n", "n"))
    print(Table(columns, tuple(rows), "The lab", None, notes))


def row(what: str, milliseconds: list[float]) -> dict[str, object]:
    ordered = sorted(milliseconds)
    p95 = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
    return {"what": what, "median": statistics.median(ordered), "p95": p95, "n": len(ordered)}


def started(model: str, image: str) -> tuple[list[float], list[float]]:
    command = [sys.executable, "-c", START, model, image]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ) for _ in range(3)]
    told = [[1000 * float(v) for v in run.stdout.split()] for run in runs]
    return [t[0] for t in told], [t[1] for t in told]


def serving(sock, door, session):
    server = server_of(session, door)
    threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True).start()
    return server


def ready(page) -> None:
    while page.evaluate("document.body.dataset.state") != "ready":
        time.sleep(0.01)


def large(what: str, model: nn.Module, *, rounds: int = 0) -> list[dict[str, object]]:
    from playwright.sync_api import sync_playwright

    loaded = LoadedModel("bench", model.eval(), (1, 28, 28), Normalisation(), None, trained=True)
    session = Session(loaded, Picture(np.ones((28, 28, 1), np.float32), "L", "bench"), "bench")
    sock = open_socket("127.0.0.1", 0)
    door = Door.make("127.0.0.1", sock.getsockname()[1])
    server = serving(sock, door, lambda: session)
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET).new_page()
        begun = time.perf_counter()
        page.goto(door.url)
        ready(page)
        first = row(f"{what}: first page drawn", [1000 * (time.perf_counter() - begun)])
        searched = [page.evaluate(SEARCH, ("relu", "19", "x")[i % 3]) for i in range(rounds)]
        page.context.browser.close()
    server.should_exit = True
    return [first, row(f"{what}: a word searched", searched)] if searched else [first]


def in_browser(door, rounds: int) -> list[dict[str, object]]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        begun = time.perf_counter()
        page.goto(door.url.replace("/?", "/?layer=layer1.0.conv1&zoom=1&"))
        ready(page)
        first = [1000 * (time.perf_counter() - begun)]
        for i in range(5):
            page.evaluate(CLICK, [20 + i, 40])
        clicks = [page.evaluate(CLICK, [12 + i % 50, 30 + (3 * i) % 50]) for i in range(rounds)]
        hovers = [page.evaluate(HOVER, i) for i in range(3 * rounds)]
        layers = ["layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2", "layer1.0.conv1"]
        maps = []
        for i in range(rounds // 2):
            maps.append(page.evaluate(LAYER, layers[i % 4]))
            ready(page)
        browser.close()
    return [
        row("first page drawn", first),
        row("click: field and arithmetic drawn", clicks),
        row("hover over 64 maps of 56x56", hovers),
        row("64 maps of 56x56 fetched and drawn", maps),
    ]


async def crowd(door) -> tuple[list[int], list[float], float]:
    """Statuses and milliseconds of all requests, and the seconds that they took together."""
    path = "/api/pictures/given/layers/4/units/0,{},10,10"
    cookie = f"{door.cookie}={door.token}"
    statuses, taken = [], []

    async def client(number: int) -> None:
        for i in range(REQUESTS // CLIENTS):
            begun = time.perf_counter()
            reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
            head = (
                f"GET {path.format((number + i) % 64)} HTTP/1.1\r\nHost: 127.0.0.1:{door.port}\r\nCookie: {cookie}\r\n"
            )
            writer.write(f"{head}Connection: close\r\n\r\n".encode())
            answer = await reader.read()
            statuses.append(int(answer.split(b" ", 2)[1]))
            if statuses[-1] == 200:
                json.loads(answer.partition(b"\r\n\r\n")[2])
            writer.close()
            taken.append(1000 * (time.perf_counter() - begun))

    begun = time.perf_counter()
    await asyncio.gather(*(client(n) for n in range(CLIENTS)))
    return statuses, taken, time.perf_counter() - begun


if __name__ == "__main__":
    main()
