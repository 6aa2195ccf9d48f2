"""The routes: each reads ids from the address, asks the session in a thread, and answers."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from convscope import __version__
from convscope.data.decoding import Decoder
from convscope.errors import ConvscopeError, InputError
from convscope.lab import answers, members
from convscope.lab.alone import page
from convscope.lab.answers import Json, packed
from convscope.lab.guard import PAGES, Door, Guard
from convscope.lab.maps import maps_of
from convscope.lab.reached import reached
from convscope.lab.runs_known import RunsKnown
from convscope.lab.session import MissingError, Session
from convscope.lab.steps import Board, Steps, Stopped
from convscope.lab.work import BusyError, Pool, Rank

TYPES = {"css": "text/css", "js": "text/javascript", "html": "text/html", "svg": "image/svg+xml"}
Work = Callable[[Request], Any]
WATCH = 0.25  # s between looks at whether who asked still waits
RANKS = {  # what answers from what is held; all else may run a network, for a picture that is new
    "pictures/{picture}/layers/{layer}/units/{unit}": Rank.CLICK,
    "work": Rank.CLICK,
    "session": Rank.PAGE,
    "pictures/{picture}/pixels": Rank.PAGE,
    "pictures/{picture}/layers": Rank.PAGE,
    "pictures/{picture}/layers/{layer}/maps": Rank.PAGE,
    "runs": Rank.PAGE,
    "runs/{run}/metrics": Rank.PAGE,
}


def make_app(
    session: Callable[[], Session], door: Door, *, runs: RunsKnown | None = None, pool: Pool | None = None
) -> ASGIApp:
    """The whole application behind its guard; what is asked before there is a session waits for it."""
    decoder, board = Decoder(), Board()
    pool = pool or Pool()
    static = _static()
    asked = _Asked(session, runs or RunsKnown(), board)

    async def home(request: Request) -> Response:
        return static["lab.html"]

    async def asset(request: Request) -> Response:
        found = static.get(request.path_params["name"])
        return found or PlainTextResponse("No such file.", 404)

    def api(path: str, work: Work, method: str = "GET") -> Route:
        return Route(f"/api/{path}", _in_pool(pool, board, work, RANKS.get(path, Rank.COSTLY)), methods=[method])

    routes = [
        *(Route(path, home) for path in PAGES),
        Route("/static/{name}", asset),
        Route("/api/pictures", _upload(partial(_in_pool, pool, board), session, decoder), methods=["POST"]),
        *(api(path, work) for path, work in asked.paths().items()),
    ]

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        decoder.start()
        yield
        pool.close()
        decoder.close()

    return Guard(Starlette(routes=routes, lifespan=lifespan), door)


class _Asked:
    """One method an address; they run in threads."""

    def __init__(self, session: Callable[[], Any], runs: RunsKnown, board: Board) -> None:
        self._opening, self._runs, self._board = session, runs, board

    def paths(self) -> dict[str, Work]:
        """What is answered, by its address."""
        return {
            "session": self.session,
            "work": self.work,
            "pictures/{picture}": self.picture,
            "pictures/{picture}/pixels": self.pixels,
            "pictures/{picture}/page": self.page,
            "pictures/{picture}/layers": self.layers,
            "pictures/{picture}/layers/{layer}/maps": self.maps,
            "pictures/{picture}/layers/{layer}/values": self.values,
            "pictures/{picture}/layers/{layer}/units/{unit}": self.unit,
            "pictures/{picture}/layers/{layer}/units/{unit}/reach": self.reach,
            "pictures/{picture}/attributions/{method}": self.attribution,
            "family/{picture}": self.family,
            "family/{picture}/maps": self.members,
            "family/{picture}/times": self.times,
            "runs": self.runs,
            "runs/{run}/metrics": self.metrics,
            "runs/{run}/evaluation": self.evaluation,
            "runs/{run}/cells/{true}/{said}": self.cell,
            "runs/{run}/predictions/{index}": self.predictions,
            "runs/{run}/{task}/pictures": self.found,
            "runs/{run}/{task}/pictures/{index}": self.found_in,
        }

    @property
    def _session(self) -> Any:
        return self._opening()

    def session(self, request: Request) -> Response:
        return Json(answers.session_facts(self._session, version=__version__))

    def work(self, request: Request) -> Response:
        return Json(self._board.told())

    def picture(self, request: Request) -> Response:
        return Json(answers.picture_facts(self._session, self._session.picture(request.path_params["picture"])))

    def pixels(self, request: Request) -> Response:
        shown = self._session.picture(request.path_params["picture"])
        return packed({"shape": shown.pixels.shape}, shown.pixels)

    def page(self, request: Request) -> Response:
        text = page(self._session, request.path_params["picture"])
        return Response(text.encode(), media_type="application/octet-stream")

    def layers(self, request: Request) -> Response:
        return Json(answers.layer_rows(self._session.look(request.path_params["picture"])))

    def maps(self, request: Request) -> Response:
        look, op = self._layer(request)
        by = request.query_params.get("by", "index")
        page = _number(request.query_params.get("page", "0"), "page")
        return packed(*maps_of(look.recording, op).page(page, by=by))

    def values(self, request: Request) -> Response:
        look, op = self._layer(request)
        return answers.npz(op, look.recording)

    def unit(self, request: Request) -> Response:
        look, op = self._layer(request)
        unit = _unit(request)
        channel = request.query_params.get("channel")
        return Json(
            answers.unit_facts(look, op, unit, channel=None if channel is None else _number(channel, "channel"))
        )

    def reach(self, request: Request) -> Response:
        look, op = self._layer(request)
        effective = request.query_params.get("effective") == "1"
        measure = partial(self._session.effective, request.path_params["picture"]) if effective else None
        return packed(*reached(look, op, _unit(request), measure=measure))

    def attribution(self, request: Request) -> Response:
        label = request.query_params.get("class")
        told = self._session.attribution(
            request.path_params["picture"], request.path_params["method"],
            None if label is None else _number(label, "class"),
        )  # fmt: skip
        return packed(*answers.attribution(*told))

    def family(self, request: Request) -> Response:
        return Json(members.family(self._setting(request)[1]).data())

    def members(self, request: Request) -> Response:
        return packed(*members.outputs(*self._setting(request)))

    def times(self, request: Request) -> Response:
        return Json(members.times(self._setting(request)[1]))

    def _setting(self, request: Request) -> tuple[Any, Any]:
        """The picture, and what the members are given for it."""
        asked = {k: _number(request.query_params.get(k, "0"), k) for k in ("channels", "kernel", "groups", "dilation")}
        x = members.thinned(self._session, request.path_params["picture"])
        return x, members.setting_of(x, asked)

    def runs(self, request: Request) -> Response:
        return Json({"runs": self._runs.facts()})

    def metrics(self, request: Request) -> Response:
        return Json(self._runs.metrics(_path_number(request, "run")))

    def evaluation(self, request: Request) -> Response:
        return Json(self._runs.evaluation(_path_number(request, "run")))

    def cell(self, request: Request) -> Response:
        return packed(*self._runs.cell(*(_path_number(request, k) for k in ("run", "true", "said"))))

    def predictions(self, request: Request) -> Response:
        return Json(self._runs.predictions(_path_number(request, "run"), _path_number(request, "index")))

    def found(self, request: Request) -> Response:
        return Json(self._runs.pictures(_path_number(request, "run"), request.path_params["task"]))

    def found_in(self, request: Request) -> Response:
        run, index = (_path_number(request, k) for k in ("run", "index"))
        return packed(*self._runs.picture(run, request.path_params["task"], index))

    def _layer(self, request: Request) -> tuple[Any, Any]:
        picture = request.path_params["picture"]
        index = _path_number(request, "layer")
        look = self._session.look(picture, index)
        return look, self._session.operator(look, index)


def answerer(session: Any) -> Callable[[str], Response]:
    """What the server would say to a question, without a server: an address below /api, with its query."""
    works = _Asked(lambda: session, RunsKnown(base=None), Board()).paths()
    routes = [(Route(f"/{path}", work), work) for path, work in works.items()]

    def answer(asked: str) -> Response:
        path, _, query = asked.partition("?")
        scope = {"type": "http", "method": "GET", "path": f"/{path}", "query_string": query.encode(), "headers": []}
        for route, work in routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                return _said(partial(work, Request({**scope, **found})))
        return Json({"error": f"{path[:80]}: there is no such question"}, 404)

    return answer


def _upload(
    in_pool: Callable[[Work, Rank], Callable[[Request], Awaitable[Response]]],
    session: Callable[[], Session],
    decoder: Decoder,
) -> Callable[[Request], Awaitable[Response]]:
    """A picture in the body; its name is shown and nothing else."""

    async def upload(request: Request) -> Response:
        body = await request.body()
        name = "".join(c for c in request.query_params.get("name", "") if c.isprintable())[:80] or "picture"

        def work(_: Request) -> Response:
            picture = decoder.decode(body, source=name)
            return Json(answers.picture_facts(session(), session().add(picture, name=name)))

        return await in_pool(work, Rank.COSTLY)(request)

    return upload


def _in_pool(pool: Pool, board: Board, work: Work, rank: Rank) -> Callable[[Request], Awaitable[Response]]:
    """The work in a thread; it ends early once nobody waits for the answer."""

    async def answer(request: Request) -> Response:
        steps = Steps()
        try:
            running = pool.run(lambda: board.run(steps, lambda: _said(lambda: work(request))), rank)
            return await (running if rank is Rank.CLICK else _watched(running, request, steps))
        except Stopped:
            return Json({"error": "stopped: who asked has gone"}, 503)
        except asyncio.CancelledError:  # the server ends, and waits no longer
            return Json({"error": "the lab is ending"}, 503)
        except BusyError:
            return Json({"error": "busy: more requests wait than the lab holds; try again in a second"}, 503,
                        {"retry-after": "1"})  # fmt: skip

    return answer


async def _watched(running: Coroutine[Any, Any, Response], request: Request, steps: Steps) -> Response:
    """The answer; its work is stopped if the connection ends before."""
    job = asyncio.ensure_future(running)
    while not (await asyncio.wait([job], timeout=WATCH))[0]:
        steps.stopped = steps.stopped or await request.is_disconnected()
    return await job


def _said(work: Callable[[], Response]) -> Response:
    """What the work answers; what it refuses becomes a status and a sentence."""
    try:
        return work()
    except MissingError as error:
        return Json({"error": str(error)}, 404)
    except InputError as error:
        too_large = "; the limit is" in str(error)
        return Json({"error": str(error)}, 413 if too_large else 400)
    except ConvscopeError as error:
        return Json({"error": str(error)}, 500)


def _number(text: str, name: str) -> int:
    """A whole number that is written as one.

    Raises: InputError.
    """
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise InputError(f"{name}: {text[:20]!r} is no whole number; use one from 0 on")
    return int(text)


def _unit(request: Request) -> tuple[int, ...]:
    return tuple(_number(i, "unit") for i in request.path_params["unit"].split(","))


def _path_number(request: Request, name: str) -> int:
    return _number(request.path_params[name], name)


def _static() -> dict[str, Response]:
    """Every file of the page by its name, read once: no path is ever made from a request."""
    folder = files("convscope.lab") / "static"
    return {
        f.name: Response(f.read_bytes(), media_type=TYPES[f.name.rpartition(".")[2]] + "; charset=utf-8")
        for f in folder.iterdir()
        if f.name.rpartition(".")[2] in TYPES
    }
