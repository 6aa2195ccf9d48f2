"""The lab under a crowd: `python bench/load.py [--clients 200] [--slow 40] [--half 200] [--seconds 60]`.

The lab is a process of its own, on LeNet5. `clients` ask one thing after another as fast as they are answered, and send
a picture now and then; `slow` ones send a request byte by byte; `half` ones begin a request and then keep silent.
Meanwhile one more client clicks: it asks for the arithmetic of a value, and its waits are what a person would feel.
"""

import argparse
import asyncio
import io
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

LAB = "from convscope.cli import main; main()"
PATHS = (
    "/api/session",
    "/api/pictures/given/layers",
    "/api/pictures/given/layers/{layer}/maps",
    "/api/pictures/given/layers/{layer}/units/0,0,0,0",
    "/api/pictures/digits:{digit}",
    "/static/main.js",
)
CLICK = "/api/pictures/given/layers/0/units/0,0,3,4"


@dataclass
class Told:
    """Statuses, 503s without a hint when to come again, waits of who clicks, clicks refused, the lab's memory."""

    statuses: Counter[int] = field(default_factory=Counter)
    without_hint: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    clicks: list[float] = field(default_factory=list)
    refused: int = 0
    memory: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Lab:
    """Where the lab is, and its process."""

    port: int
    token: str
    pid: int

    def request(self, path: str, *, body: bytes = b"") -> bytes:
        """The bytes of a request that the lab lets in."""
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
        head += f"Cookie: convscope_lab_{self.port}={self.token}\r\nContent-Length: {len(body)}\r\n"
        return f"{head}Connection: close\r\n\r\n".encode() + body


def picture() -> bytes:
    """A PNG of 64x64."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "PNG")
    return buffer.getvalue()


@asynccontextmanager
async def connected(lab: Lab) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of its own, closed in the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def ask(lab: Lab, told: Told, path: str, *, body: bytes = b"") -> int:
    """One request on a connection of its own; its status, 0 if there was none."""
    try:
        async with connected(lab) as (reader, writer):
            writer.write(lab.request(path, body=body))
            answer = await asyncio.wait_for(reader.read(), 60)
    except (OSError, TimeoutError) as error:
        told.broken[type(error).__name__] += 1
        return 0
    status = int(answer.split(b" ", 2)[1]) if answer else 0
    told.statuses[status] += 1
    told.without_hint += status == 503 and b"retry-after" not in answer.split(b"\r\n\r\n")[0].lower()
    return status


async def client(lab: Lab, told: Told, chance: random.Random, *, until: float, png: bytes) -> None:
    """Ask until the time is over; wait a second after a 503, as it says."""
    while time.monotonic() < until:
        if chance.random() < 0.05:
            status = await ask(lab, told, "/api/pictures?name=noise.png", body=png)
        else:
            path = chance.choice(PATHS).format(layer=chance.randrange(5), digit=chance.randrange(300))
            status = await ask(lab, told, path)
        await asyncio.sleep(1 if status in (0, 503) else 0)


async def slow(lab: Lab, *, until: float) -> None:
    """Send a request a byte at a time."""
    while time.monotonic() < until:
        with suppress(OSError):
            async with connected(lab) as (_, writer):
                for byte in lab.request("/api/session"):
                    if time.monotonic() > until:
                        break
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.2)


async def half(lab: Lab, *, until: float) -> None:
    """Begin a request, and keep silent; begin again when the lab has closed."""
    while time.monotonic() < until:
        with suppress(OSError, TimeoutError):
            async with connected(lab) as (reader, writer):
                writer.write(b"GET / HTTP/1.1\r\nHost: ")
                await asyncio.wait_for(reader.read(), max(0.1, until - time.monotonic()))
        await asyncio.sleep(0.05)


async def clicking(lab: Lab, told: Told, *, until: float) -> None:
    """One person at work, and an eye on the lab's memory."""
    while time.monotonic() < until:
        start = time.monotonic()
        if await ask(lab, told, CLICK) == 200:
            told.clicks.append(time.monotonic() - start)
        else:
            told.refused += 1
        pages = int(Path(f"/proc/{lab.pid}/statm").read_text().split()[1])
        told.memory.append(pages * 4096)
        await asyncio.sleep(0.2)


async def crowd(lab: Lab, *, clients: int, slows: int, halves: int, seconds: float) -> Told:
    """All of them at once."""
    told, png = Told(), picture()
    for path in (*PATHS[:1], CLICK):
        await ask(lab, told, path)  # the session is there before the crowd is
    until = time.monotonic() + seconds
    await asyncio.gather(
        *(client(lab, told, random.Random(i), until=until, png=png) for i in range(clients)),
        *(slow(lab, until=until) for _ in range(slows)),
        *(half(lab, until=until) for _ in range(halves)),
        clicking(lab, told, until=until),
    )
    return told


def load(*, clients: int, slows: int, halves: int, seconds: float) -> Told:
    """Start a lab, let the crowd in, end the lab."""
    command = [sys.executable, "-u", "-c", LAB, "lab", "LeNet5", "digits:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ, text=True) as lab:
        try:
            assert lab.stdout is not None
            found = None
            while found is None:
                line = lab.stdout.readline()
                assert line, "the lab did not start"
                found = re.search(r":(\d+)/\?token=(\S+)", line)
            at = Lab(int(found[1]), found[2], lab.pid)
            return asyncio.run(crowd(at, clients=clients, slows=slows, halves=halves, seconds=seconds))
        finally:
            lab.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, count in (("clients", 200), ("slow", 40), ("half", 200)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--seconds", type=float, default=60)
    wanted = parser.parse_args()
    told = load(clients=wanted.clients, slows=wanted.slow, halves=wanted.half, seconds=wanted.seconds)
    waits = sorted(told.clicks)
    print(f"statuses: {dict(told.statuses)}; 503 without Retry-After: {told.without_hint}; broken: {dict(told.broken)}")
    print(f"clicks: {len(waits)}, median {statistics.median(waits):.3f} s, 95 of 100 within "
          f"{waits[int(0.95 * len(waits))]:.3f} s, longest {waits[-1]:.2f} s, refused {told.refused}")  # fmt: skip
    quarters = [max(told.memory[i * len(told.memory) // 4 :][: -(-len(told.memory) // 4)]) // 2**20 for i in range(4)]
    print(f"memory of the lab: {told.memory[0] // 2**20} MiB at first; at most {', '.join(map(str, quarters))} MiB in "
          "the four quarters of the time")  # fmt: skip


if __name__ == "__main__":
    main()
