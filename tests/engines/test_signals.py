"""Engines leave the first thread the stack that its signals run on: a Ctrl-C after them must not crash."""

import ctypes
import signal
import sys
import threading

import pytest
import torch
from torch import nn

from convscope.engines import Card, OpenVinoModel, int8_bytes, onnx_bytes, openvino_from, output_names
from convscope.engines.aside import aside

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stack_t is laid out as Linux has it")


class Stack(ctypes.Structure):
    """stack_t of <signal.h>, as Linux has it."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> int | None:
    """Where this thread's alternate stack for signals starts; None is none."""
    stack = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack)) == 0
    return stack.start


@pytest.fixture(scope="module")
def onnx_and_card():
    x = torch.randn(1, 1, 8, 8)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2)).eval()
    card = Card(
        task="classify", classes=("a", "b"), shape=(1, 8, 8), mean=(0.5,), std=(0.25,), outputs=output_names(model, x)
    )
    return onnx_bytes(model, x, card), card


def test_an_engine_let_go_on_another_thread_takes_no_signal_stack_with_it(onnx_and_card):
    before = signal_stack()
    held = [OpenVinoModel(*openvino_from(*onnx_and_card), source="m.xml")]
    held[0](torch.randn(1, 1, 8, 8))
    assert signal_stack() == before
    other = threading.Thread(target=held.clear)
    other.start()
    other.join()
    heard = []
    earlier = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    signal.raise_signal(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, earlier)
    assert heard == [signal.SIGUSR1]


def test_quantising_leaves_the_signal_stack(onnx_and_card):
    before = signal_stack()
    int8_bytes(*onnx_and_card, [torch.randn(1, 1, 8, 8) for _ in range(4)])
    assert signal_stack() == before


def test_who_waits_for_work_aside_can_be_interrupted():
    going, stopped = threading.Event(), threading.Event()

    def work():
        going.set()
        return stopped.wait(10)

    def press():
        going.wait(10)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
    threading.Thread(target=press).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            aside(work, stop=stopped.set)
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.is_set()
    assert aside(lambda: 3) == 3
