"""Who goes first: a click before a page, a page before what takes long, and no queue is long."""

import asyncio
from concurrent.futures import ThreadPoolExecutor, as_completed
from itertools import islice
from threading import Event

import pytest
from torch import nn

from convscope.lab.session import MOST_LOOKS
from convscope.lab.work import BusyError, Pool, Rank


def test_the_lowest_rank_goes_first():
    async def ordered():
        pool, go, order = Pool(threads=[tuple(Rank)]), Event(), []
        jobs = [pool.run(go.wait, Rank.CLICK)]
        jobs += [pool.run(lambda rank=rank: order.append(rank), rank) for rank in [*reversed(Rank)] * 2]
        waiting = [asyncio.ensure_future(job) for job in jobs]
        await asyncio.sleep(0.05)
        go.set()
        await asyncio.gather(*waiting)
        pool.close()
        return order

    assert asyncio.run(ordered()) == sorted([*Rank] * 2)


def test_one_thread_never_takes_what_takes_long():
    async def beside():
        pool, go = Pool(), Event()
        long = [asyncio.ensure_future(pool.run(go.wait, Rank.COSTLY)) for _ in range(4)]
        assert await asyncio.wait_for(pool.run(lambda: 3, Rank.PAGE), 5) == 3
        assert not any(job.done() for job in long)
        go.set()
        await asyncio.gather(*long)
        pool.close()

    asyncio.run(beside())


def test_a_full_queue_refuses_its_own_rank_alone():
    async def full():
        pool, go = Pool(limits=dict.fromkeys(Rank, 1)), Event()
        first = asyncio.ensure_future(pool.run(go.wait, Rank.COSTLY))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await pool.run(lambda: None, Rank.COSTLY)
        assert await pool.run(lambda: 3, Rank.CLICK) == 3
        go.set()
        await first
        assert await pool.run(lambda: 4, Rank.COSTLY) == 4
        pool.close()

    asyncio.run(full())


def test_what_waits_when_the_lab_ends_is_forgotten():
    async def ended():
        pool, go = Pool(threads=[tuple(Rank)]), Event()
        running, waiting = (asyncio.ensure_future(pool.run(go.wait)) for _ in range(2))
        await asyncio.sleep(0.05)
        pool.close()
        go.set()
        assert await running
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(ended())


def test_what_the_work_raises_comes_back():
    async def raising():
        pool = Pool()
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 // 0)
        pool.close()

    asyncio.run(raising())


class Slow(nn.Conv2d):
    """A network that takes as long as the test lets it."""

    go = Event()

    def forward(self, input):
        assert self.go.wait(60)
        return super().forward(input)


def test_a_click_does_not_wait_for_what_takes_seconds(lab_of_model):
    Slow.go.set()
    with lab_of_model(Slow(1, 2, 3), (1, 8, 8)) as lab, ThreadPoolExecutor(12) as crowd:
        click = "/api/pictures/given/layers/0/units/0,0,3,4"
        lab.json(click)
        Slow.go.clear()
        asked = [crowd.submit(lab.ask, f"/api/pictures/digits:{index}") for index in range(12)]
        refused = [job.result() for job in islice(as_completed(asked), 4)]
        assert {status for status, _, _ in refused} == {503}
        assert all(headers["retry-after"] == "1" and b"try again in a second" in body for _, headers, body in refused)
        for _ in range(5):
            lab.json(click)
        assert sum(job.done() for job in asked) == 4, "the others still wait for the network"
        Slow.go.set()
        assert sorted(job.result()[0] for job in asked) == [200] * 8 + [503] * 4


def test_forgotten_pictures_leave_nothing_behind(lab):
    session = lab.session
    for index in range(MOST_LOOKS + 10):
        session.look(f"digits:{index}")
    assert len(session._looks) == MOST_LOOKS
    assert session._looks.keys() == session._sizes.keys()
