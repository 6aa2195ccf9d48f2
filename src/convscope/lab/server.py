"""From a model and a picture to a page that is being served: socket, token, server.

The page is there before the session is: libraries that take a second to import are imported by a thread.
"""

import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from sys import setswitchinterval

import uvicorn

from convscope.data.named import open_picture
from convscope.errors import InputError, RunError
from convscope.lab.alone import write_page
from convscope.lab.app import make_app
from convscope.lab.guard import Door
from convscope.lab.protocol import PatientProtocol
from convscope.lab.runs_known import RunsKnown
from convscope.lab.session import Session
from convscope.runs.folder import CONFIG
from convscope.runs.loaded import LoadedModel, load_model

PORT, TRIES = 8765, 100
TURN = 0.0005  # s that a thread computes before another may: after each read and write, the server waits for its turn
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Opening:
    """A session that a thread makes: call it to wait for it, or for what it failed with."""

    def __init__(self, spec: str, make: Callable[[], Session]) -> None:
        self.spec = spec
        threads = ThreadPoolExecutor(1, thread_name_prefix="lab-opening")
        self.future = threads.submit(make)
        threads.shutdown(wait=False)

    def __call__(self) -> Session:
        """The session."""
        return self.future.result()


def open_socket(host: str, port: int | None = None, *, tries: int = TRIES) -> socket.socket:
    """A listening socket: on `port`, or on the first free one from 8765 on if none is given.

    The protocol is named (IPPROTO_TCP), without which asyncio leaves Nagle's algorithm on: 40 ms a request.
    Raises: InputError if the host is not this machine's; RunError if the port is taken.
    """
    family, reason = socket.AF_INET6 if ":" in host else socket.AF_INET, ""
    for candidate in [port] if port is not None else range(PORT, PORT + tries):
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, candidate))
            sock.listen(1024)
            return sock
        except socket.gaierror as error:
            sock.close()
            raise InputError(f"--host {host}: is no address of this machine ({error.strerror}); leave it out") from None
        except OSError as error:
            sock.close()
            reason = error.strerror or str(error)
    if port is not None:
        raise RunError(f"--port {port}: cannot be opened ({reason}); leave it out for the next free one")
    raise RunError(f"lab: no free port from {PORT} to {PORT + tries - 1}; give one by --port")


def open_lab(
    model: str, image: str, *, shape: tuple[int, ...] | None = None, host: str = "127.0.0.1", port: int | None = None,
    allow_remote: bool = False,
) -> tuple[socket.socket, Door, Opening]:  # fmt: skip
    """All that `serve` needs; the socket already listens, so the address can be opened.

    Raises: InputError if the host is not loopback and `allow_remote` is not set, or the model or picture is not found;
    what only another library knows (`torchvision:NAME`, `digits:N`), `opening()` raises.
    """
    if host not in LOOPBACK and not allow_remote:
        raise InputError(
            f"--host {host}: would show the lab to other machines, without encryption; "
            "add --allow-remote if that is wanted"
        )
    loaded = None if ":" in model else load_model(model, shape=shape)
    picture = None if image.startswith(("digits:", "scenes:")) else open_picture(image)

    def made() -> Session:
        return Session(loaded or load_model(model, shape=shape), picture or open_picture(image), image)

    sock = open_socket(host, port)
    return sock, Door.make(host, sock.getsockname()[1]), Opening(model, made)


def export_page(model: str, image: str, path: str, *, shape: tuple[int, ...] | None = None) -> tuple[LoadedModel, Path]:
    """Write a network and a picture as one HTML file; the network, and where the file is.

    Raises: InputError if it would be too large, or the model or picture is not found; RunError if it cannot be written.
    """
    loaded = load_model(model, shape=shape)
    return loaded, write_page(Session(loaded, open_picture(image), image), path)


def server_of(session: Callable[[], Session], door: Door, *, spec: str = "") -> uvicorn.Server:
    """The server, not yet running. `spec`: the model as it was named; a run folder is the first of the runs."""
    runs = RunsKnown([Path(spec)] if (Path(spec) / CONFIG).is_file() else [])
    config = uvicorn.Config(
        make_app(session, door, runs=runs),
        http=PatientProtocol, ws="none", lifespan="on", log_level="warning", access_log=False,
        server_header=False, timeout_keep_alive=5, timeout_graceful_shutdown=2,
        proxy_headers=False,
    )  # fmt: skip
    return uvicorn.Server(config)


def serve(sock: socket.socket, door: Door, opening: Opening) -> None:
    """Serve until the process is interrupted.

    Raises: what the session could not be opened for.
    """
    server = server_of(opening, door, spec=opening.spec)
    setswitchinterval(TURN)

    def end_if_failed(made: Future[Session]) -> None:
        server.should_exit = server.should_exit or made.exception() is not None

    opening.future.add_done_callback(end_if_failed)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[sock])
    if opening.future.done():
        opening()
