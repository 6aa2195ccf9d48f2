"""What takes long is counted, told while it runs, and stopped when nobody waits for it any more."""

import http.client
import json
from threading import Event
from time import monotonic, sleep

import numpy as np
import pytest
import torch
from torch import nn

from convscope import models
from convscope.explain import METHODS, attribute
from convscope.explain.attribution import copies
from convscope.lab.steps import Board, Steps, Stopped, counting

LONG = ("smooth-grad", "integrated-gradients", "occlusion")


class Gated(nn.Module):
    """A classifier that runs once for each time that the test lets it."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.go, self.began = Event(), Event()
        self.go.set()
        self.runs = 0

    def forward(self, x):
        self.runs += 1
        self.began.set()
        assert self.go.wait(30)
        return self.net(x)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1, 32, 32), (1, 1, 40, 33)])
def test_as_many_pictures_run_through_the_network_as_is_said(method, shape):
    model, seen = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(), []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    attribute(model, torch.rand(shape), method, target=1)
    beside = 1 + {"integrated-gradients": 2, "occlusion": 1, "grad-cam": 1, "grad-cam++": 1}.get(method, 0)
    assert sum(seen) == copies(method, shape) + beside


def test_the_board_tells_what_is_counted_and_stops_it():
    board, steps, model = Board(), Steps(), models.build("LeNet5").eval()

    def work():
        with counting(model, 20):
            model(torch.zeros(5, 1, 32, 32))
            told.append(board.told())
            steps.stopped = True
            model(torch.zeros(5, 1, 32, 32))

    told = []
    with pytest.raises(Stopped):
        board.run(steps, work)
    assert (told[0]["done"], told[0]["of"]) == (5, 20)
    assert board.told()["of"] == 0
    assert not model._forward_pre_hooks
    with pytest.raises(Stopped):
        board.run(steps, lambda: pytest.fail("began although nobody waited"))


def test_modules_are_counted_one_by_one_and_a_failure_of_the_network_stays_its_own():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    with counting(model, 3, modules=True) as steps:
        model(torch.zeros(1, 1, 8, 8))
    assert steps.done == 3
    with pytest.raises(RuntimeError), counting(model, 3):
        model(torch.zeros(1, 2, 8, 8))


def test_work_is_told_and_ends_when_who_asked_leaves(lab_of_model):
    model = Gated()
    with lab_of_model(model, (1, 8, 8)) as lab:
        lab.json("/api/session")
        model.go.clear(), model.began.clear()
        asking = http.client.HTTPConnection("127.0.0.1", lab.door.port, timeout=30)
        cookie = {"cookie": f"{lab.door.cookie}={lab.door.token}"}
        asking.request("GET", "/api/pictures/given/attributions/occlusion?class=1", headers=cookie)
        assert model.began.wait(20)
        told = lab.json("/api/work")
        assert told["of"] == copies("occlusion", (1, 1, 8, 8))
        assert told["done"] >= 1
        before = model.runs
        asking.close()
        sleep(0.8)  # the server looks four times a second
        model.go.set()
        until = monotonic() + 10
        while lab.json("/api/work")["of"] and monotonic() < until:
            sleep(0.05)
        assert model.runs <= before + 1
        status, _, body = lab.ask("/api/pictures/given/attributions/saliency")
        assert status == 200, body


def unpacked(body):
    length = int.from_bytes(body[:4], "little")
    return json.loads(body[4 : 4 + length]), np.frombuffer(body[4 + length :], "<f4")


@pytest.mark.parametrize("method", METHODS)
def test_an_attribution_is_that_of_the_package(lab, method):
    status, _, body = lab.ask(f"/api/pictures/digits:3/attributions/{method}?class=7")
    assert status == 200, body
    head, values = unpacked(body)
    session = lab.session
    told = attribute(session.loaded.model, session.picture("digits:3").x, method, target=7)
    assert values.reshape(head["shape"]) == pytest.approx(told.map, abs=1e-7)
    assert (head["score"], head["signed"], head["layer"]) == (pytest.approx(told.score), told.signed, told.layer)
    assert head["limit"] == pytest.approx(np.abs(told.map).max())
    assert (head["class"], head["label"]) == ("7", 7)


def test_the_likeliest_class_is_explained_unless_another_is_asked_for(lab):
    head, _ = unpacked(lab.ask("/api/pictures/given/attributions/saliency")[2])
    assert head["class"] == lab.json("/api/pictures/given")["top"][0]["label"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [("given/attributions/odd", "use one of saliency"), ("given/attributions/saliency?class=10", "use 0 to 9"),
     ("given/attributions/saliency?class=-1", "no whole number"), ("digits:9999/attributions/saliency", "not held")],
)  # fmt: skip
def test_what_cannot_be_attributed_is_refused(lab, asked, said):
    status, _, body = lab.ask(f"/api/pictures/{asked}")
    assert status in (400, 404)
    assert said in body.decode()


def test_a_network_that_answers_nothing_known_offers_no_attribution(lab_of_model):
    with lab_of_model(nn.Conv2d(1, 2, 3), (1, 8, 8)) as lab:
        assert not lab.json("/api/session")["can"]["why"]
        status, _, body = lab.ask("/api/pictures/given/attributions/saliency")
        assert status == 400
        assert b"open a classifier" in body
