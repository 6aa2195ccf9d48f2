"""The tuned start: applied once, switchable, and a matter of speed alone."""

import json
import os
import subprocess
import sys

import pytest

from convscope import machine
from convscope.errors import InputError

GLIBC = hasattr(os, "confstr") and (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
OURS = ("CONVSCOPE_", "OMP_", "MKL_", "MALLOC_", "GLIBC_", "LD_PRELOAD")


def fresh(code: str, **environment: str) -> str:
    """What a new process prints, started without our own and the allocator's variables."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


TUNE = "from convscope.machine import tune; import json, dataclasses; print(json.dumps(dataclasses.asdict(tune())))"
# A block of 64 MiB, by malloc: given by mmap it stands apart from the heap, whose end `sbrk` tells.
FROM_THE_HEAP = """
import ctypes
from convscope.machine import tune
tune()
libc = ctypes.CDLL(None)
libc.sbrk.restype = libc.malloc.restype = ctypes.c_void_p
libc.sbrk.argtypes, libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_ssize_t], [ctypes.c_size_t], [ctypes.c_void_p]
block = libc.malloc(64 * 2**20)
end = libc.sbrk(0)
libc.free(block)
print(block < end, libc.sbrk(0) == end)
"""
FORWARD = """
import hashlib
from convscope.machine import tune
tune()
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3), nn.Flatten()).eval()
with torch.inference_mode():
    y = model(torch.randn(4, 3, 64, 64))
print(torch.get_num_threads(), hashlib.sha256(y.numpy().tobytes()).hexdigest())
"""


@pytest.mark.skipif(not GLIBC, reason="only glibc can be told to hold memory")
def test_freed_memory_is_held_and_with_the_switch_off_it_is_not():
    assert fresh(FROM_THE_HEAP) == "True True"
    assert fresh(FROM_THE_HEAP, CONVSCOPE_TUNE="0") == "False True"


def test_the_numbers_are_the_same_with_and_without():
    tuned = fresh(FORWARD, OMP_NUM_THREADS="1")
    assert tuned == fresh(FORWARD, OMP_NUM_THREADS="1", CONVSCOPE_TUNE="0")


def test_threads_are_the_usable_cores_whichever_comes_first():
    cores = machine.usable_cores()
    assert fresh(FORWARD).split()[0] == str(cores)
    assert fresh("import torch\ntorch.set_num_threads(7)\n" + FORWARD).split()[0] == str(cores)


def test_tuning_does_not_import_torch():
    assert fresh("from convscope.machine import tune; tune(); import sys; print('torch' in sys.modules)") == "False"


@pytest.mark.parametrize(
    ("environment", "field", "words"),
    [
        ({"OMP_NUM_THREADS": "3"}, "threads_from", "OMP_NUM_THREADS=3"),
        ({"MKL_NUM_THREADS": "3"}, "threads_from", "MKL_NUM_THREADS=3"),
        ({"CONVSCOPE_TUNE": "0"}, "threads_from", "as torch chooses"),
        ({"CONVSCOPE_TUNE": "0"}, "memory_format", "contiguous_format"),
        ({"CONVSCOPE_TUNE": "0"}, "allocator", "the system's, as it is"),
        ({"CONVSCOPE_TUNE": "1"}, "memory_format", "channels_last"),
    ],
)
def test_what_a_person_set_is_left_alone(environment, field, words):
    assert json.loads(fresh(TUNE, **environment))[field] == words


@pytest.mark.skipif(not GLIBC, reason="glibc's own variables")
@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"MALLOC_ARENA_MAX": "2"}, "as MALLOC_ARENA_MAX says"),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, "as GLIBC_TUNABLES says"),
        ({"GLIBC_TUNABLES": "glibc.pthread.rseq=1"}, "holding freed memory"),
        ({"LD_PRELOAD": "libjemalloc.so.2"}, "another, by LD_PRELOAD=libjemalloc.so.2"),
        ({}, "holding freed memory"),
    ],
)
def test_the_allocator_that_a_person_chose_is_left_alone(environment, words):
    code = f"from convscope.machine import _hold_freed_memory as hold; print(hold({environment!r}))"
    assert fresh(code).endswith(words)


class Libc:
    """A C library that answers every setting alike, and remembers what it was asked."""

    def __init__(self, answer: int) -> None:
        self.answer, self.asked = answer, []

    def mallopt(self, name: int, value: int) -> int:
        self.asked.append((name, value))
        return self.answer


@pytest.mark.parametrize(
    ("version", "answer", "words", "calls"),
    [
        ("glibc 2.36", 1, "glibc 2.36, holding freed memory", 3),
        ("glibc 2.36", 0, "glibc 2.36, as it is (it refused the setting)", 3),
        (None, 1, "the system's, as it is (only glibc can be told to hold memory)", 0),
    ],
)
def test_what_the_library_answers_is_said(monkeypatch, version, answer, words, calls):
    libc = Libc(answer)
    monkeypatch.setattr(machine.os, "confstr", lambda _: version, raising=False)
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda _: libc)
    assert machine._hold_freed_memory({}) == words
    assert len(libc.asked) == calls


def test_a_system_that_cannot_say_its_library_is_no_glibc(monkeypatch):
    monkeypatch.delattr(machine.os, "confstr", raising=False)
    assert machine._hold_freed_memory({}).startswith("the system's, as it is")


@pytest.mark.skipif(not GLIBC, reason="glibc's heap")
@pytest.mark.parametrize("tuned", [True, False])
def test_large_pages_are_asked_for_where_memory_is_held(tuned):
    code = f"""
from convscope.machine import large_pages, tune
tune({tuned})
asked = large_pages()
maps = open("/proc/self/smaps").read().partition("[heap]")[2]
print(asked, any(" hg" in line for line in maps.splitlines() if line.startswith("VmFlags")))"""
    assert fresh(code) in (("True True", "False False") if tuned else ("False False",))


def test_the_first_choice_stands_and_the_argument_overrules_the_environment():
    code = "from convscope.machine import tune; print(tune({}).tuned, tune(True).tuned)"
    assert fresh(code.format(False)) == "False False"
    assert fresh(code.format(False), CONVSCOPE_TUNE="1") == "False False"
    assert fresh(code.format(True), CONVSCOPE_TUNE="0") == "True True"


def test_a_switch_that_is_neither_on_nor_off_is_refused():
    with pytest.raises(InputError, match=r"CONVSCOPE_TUNE: is 'yes'; use 0 \(off\) or 1 \(on\)"):
        machine._switched_on({"CONVSCOPE_TUNE": "yes"})


def _files(monkeypatch, contents):
    monkeypatch.setattr(machine, "_read", lambda path: contents.get(path, ""))
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)


SIBLINGS = {f"/sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list": f"{i % 2},{i % 2 + 2}" for i in range(4)}


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 4),
        (SIBLINGS, 2),
        (SIBLINGS | {"/sys/fs/cgroup/cpu.max": "max 100000"}, 2),
        ({"/sys/fs/cgroup/cpu.max": "150000 100000"}, 1),
        ({"/sys/fs/cgroup/cpu.max": "20000 100000"}, 1),
        ({"/sys/fs/cgroup/cpu.max": "800000 100000"}, 4),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 4),
    ],
)
def test_usable_cores_are_physical_and_within_the_container(monkeypatch, files, cores):
    _files(monkeypatch, files)
    assert machine.usable_cores() == cores


def test_instructions_are_read_from_the_processor(monkeypatch):
    _files(monkeypatch, {"/proc/cpuinfo": "processor : 0\nmodel name\t: X 1\nflags\t\t: fpu avx2 avx512_vnni"})
    assert machine.instructions() == ["avx2", "avx512_vnni"]
    _files(monkeypatch, {})
    assert machine.instructions() == []


def test_describe_has_a_word_for_everything():
    rows = machine.describe()
    assert {"convscope", "torch", "processor", "memory", "GPU", "tuned start", "allocator"} <= rows.keys()
    assert all(str(value) for value in rows.values())


def test_best_device_takes_the_gpu_only_where_there_is_one(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert machine.best_device().type == "cpu"
    for wanted in ("cuda", "cuda:0", "tpu"):
        with pytest.raises(InputError, match=f"device: '{wanted}' is not on this machine; use auto or one of cpu"):
            machine.best_device(wanted)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert machine.best_device().type == "cuda"
    assert machine.best_device("cuda:1").index == 1
    with pytest.raises(InputError, match="'cuda:2' is not on this machine; use auto or one of cpu, cuda:0, cuda:1"):
        machine.best_device("cuda:2")


LATER = """
import sys
from convscope import machine
with machine.loading():
    import torch
    import torchvision.ops.roi_align
assert not any(name.startswith("torch._dynamo") for name in sys.modules)
assert sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu") in (True, False)
import torch._dynamo.utils
assert torch._dynamo.utils.is_compile_supported.__module__ == "torch._dynamo.utils"
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2
"""
AT_ONCE = """
from convscope import machine
with machine.loading():
    import torch._dynamo.eval_frame
    assert torch._dynamo.eval_frame.__file__
"""


@pytest.mark.parametrize("script", [LATER, AT_ONCE], ids=["later", "at once"])
def test_pytorchs_compiler_is_loaded_when_it_is_asked_for(script):
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_network_on_the_cpu_is_looked_at_without_waking_a_gpu(monkeypatch):
    import torch
    from torch import nn

    from convscope import record
    from convscope.explain import attribute
    from convscope.inspect import effective_field

    def woken(*_):
        raise AssertionError("a GPU was asked for its random state")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_rng_state", woken)
    net, x = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(), nn.Flatten()), torch.rand(1, 1, 5, 5)
    state = torch.random.get_rng_state()
    record(net, x, keep=lambda op: True)
    record(nn.LazyConv2d(2, 3), x)
    attribute(net, x, "saliency", target=0)
    effective_field(net, x, layer="0", samples=2)
    assert torch.equal(state, torch.random.get_rng_state())
