"""The machine: the tuned start, the device to use, and what `convscope env` tells.

The tuned start is chosen once, before the first large allocation, for the sake of speed:

- allocator: glibc gives every large block back to the system when it is freed, and the next one is paid for page by
  page; told to hold what is freed, it serves activations from memory that is warm.
- threads: one for each physical core that this process may use (affinity and container limits counted).
- memory format: the one that convolutions prefer.

`CONVSCOPE_TUNE=0` turns all of it off. torch is imported only where a device is asked about.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from convscope.errors import InputError

if TYPE_CHECKING:
    import torch

SWITCH = "CONVSCOPE_TUNE"
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # <malloc.h>
_MIB = 2**20
_HOLDING, _AHEAD = "holding freed memory", 512 * _MIB
_COMPILER, _CALLED_LATER = ("torch._dynamo", "torch._dynamo.utils"), {"is_compile_supported"}
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the start chose; `allocator` and `threads_from` say in words what was done and why.

    `threads` is the number that torch computes with (None: left to torch), and `memory_format` names an attribute
    of torch: `"channels_last"` or `"contiguous_format"`.
    """

    tuned: bool
    allocator: str
    threads: int | None
    threads_from: str
    memory_format: str


_chosen: Settings | None = None


@contextmanager
def loading() -> Iterator[None]:
    """While libraries are loaded, nothing is collected, since what they make stays; and PyTorch's compiler waits."""
    collects = gc.isenabled()
    gc.disable()
    try:
        with _later(*_COMPILER):
            yield
        gc.freeze()
    finally:
        if collects:
            gc.enable()


@contextmanager
def _later(*names: str) -> Iterator[None]:
    """Meanwhile modules that are not loaded yet are so once something of them is asked for.

    torchvision names a function of PyTorch's compiler that it may call one day; to load the compiler for it takes
    longer than all that torchvision does itself.
    """
    waiting = {name: _Later(name) for name in names} if not sys.modules.keys() & set(names) else {}
    sys.modules.update(waiting)
    try:
        yield
    finally:
        for name, module in waiting.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


class _Later(ModuleType):
    """Stands for a module: what it is known to be imported for loads it when it is called, all else at once."""

    def __getattr__(self, name: str) -> Any:
        if name in _CALLED_LATER:
            return lambda *args: getattr(self._loaded(), name)(*args)
        if name.startswith("__") and (name, self.__name__) != ("__path__", _COMPILER[0]):
            raise AttributeError(name)  # such as __file__, which `inspect` asks of every module
        return getattr(self._loaded(), name)

    def _loaded(self) -> ModuleType:
        for other in [n for n, module in sys.modules.items() if isinstance(module, _Later)]:
            del sys.modules[other]
        return import_module(self.__name__)


def tune(on: bool | None = None) -> Settings:
    """Choose allocator, threads and memory format for this process; later calls return the first choice.

    `on` overrules the environment's `CONVSCOPE_TUNE` (0 turns the tuned start off). What a person set before
    (`OMP_NUM_THREADS`, glibc's own variables, another allocator) is left alone, and said.
    Raises: InputError if `CONVSCOPE_TUNE` is neither 0 nor 1.

    >>> tune() is tune()
    True
    """
    global _chosen
    if _chosen is None:
        wanted = _switched_on(os.environ) if on is None else on
        _chosen = _tuned() if wanted else _untouched()
    return _chosen


def large_pages() -> bool:
    """Ask for pages of 2 MB in the memory that is held for what comes; whether the system was asked, and agreed.

    Only where the tuned start holds freed memory. Nothing is taken before it is used.
    """
    if _chosen is None or not _chosen.allocator.endswith(_HOLDING) or not hasattr(mmap, "MADV_HUGEPAGE"):
        return False
    libc, at, size = ctypes.CDLL(None), ctypes.c_void_p, ctypes.c_size_t
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = at, [size], [at]
    libc.madvise.argtypes = [at, size, ctypes.c_int]
    block = libc.malloc(_AHEAD)
    first = -(-(block or 0) // mmap.PAGESIZE) * mmap.PAGESIZE
    agreed = bool(block) and not libc.madvise(first, block + _AHEAD - first, mmap.MADV_HUGEPAGE)
    libc.free(block)
    return agreed


def training_defaults() -> dict[str, bool]:
    """The settings of training that the tuned start chooses, in the words of the run's configuration.

    >>> training_defaults().keys()
    dict_keys(['channels_last'])
    """
    return {"channels_last": tune().memory_format == "channels_last"}


def best_device(wanted: str = "auto") -> torch.device:
    """The device to compute on: `"auto"` is the GPU if there is one; any other name is taken at its word.

    Raises: InputError if the device is unknown or not there; the CPU is never taken in its place.

    >>> best_device("cpu")
    device(type='cpu')
    """
    import torch

    here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        here.append("mps")
    if wanted == "auto":
        return torch.device("cuda" if len(here) > 1 and here[1].startswith("cuda") else "cpu")
    if (f"{wanted}:0" if wanted == "cuda" else wanted) not in here:
        raise InputError(f"device: {wanted!r} is not on this machine; use auto or one of {', '.join(here)}")
    return torch.device(wanted)


@contextmanager
def same_randomness(tensors: Iterable[torch.Tensor] = ()) -> Iterator[None]:
    """Afterwards the random states of the CPU, and of the GPUs that hold these tensors, are as before.

    Other GPUs are left asleep: to wake one takes a second, and some of its memory.
    """
    import torch

    with torch.random.fork_rng(devices=list({t.device for t in tensors if t.is_cuda})):
        yield


def number_of_processes() -> int:
    """How many processes torchrun started for one run; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def rank() -> int:
    """This process's number among them; 0 writes and speaks for all."""
    return int(os.environ.get("RANK", "0")) if number_of_processes() > 1 else 0


def describe() -> dict[str, str | int]:
    """What `convscope env` shows: versions, processor, memory, GPU, and what the start tuned; a title for each.

    >>> describe()["tuned start"].endswith("(CONVSCOPE_TUNE=0 turns it off)") or not tune().tuned
    True
    """
    settings = tune()
    physical = len(physical_cores())
    return {
        **{name: _version(name) for name in ("convscope", "torch", "torchvision")},
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": f"{usable_cores()} of {physical} physical, {os.cpu_count()} logical",
        "instructions": " ".join(instructions()) or "none known",
        "memory": _memory(),
        "GPU": _gpu(),
        "tuned start": f"on ({SWITCH}=0 turns it off)" if settings.tuned else f"off ({SWITCH}=1 turns it on)",
        "allocator": settings.allocator,
        "threads": f"{settings.threads or 'left to torch'} ({settings.threads_from})",
        "memory format": settings.memory_format,
    }


def usable_cores() -> int:
    """Physical cores that this process may use: its affinity and its container's time share are limits."""
    cores, share = len(physical_cores()), _time_share()
    return max(1, min(cores, int(share))) if share else cores


def physical_cores() -> set[str]:
    """Physical cores under the logical ones of this process's affinity, each named by its siblings."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return {_read(topology.format(cpu)) or str(cpu) for cpu in allowed}


def processor() -> str:
    """The processor's name, as the system gives it."""
    return _processor_field("model name") or platform.processor() or platform.machine()


def instructions() -> list[str]:
    """The vector instructions of this processor that convolutions profit from, by their Linux names."""
    flags = (_processor_field("flags") or _processor_field("Features") or "").split()
    return [flag for flag in _FLAGS if flag in flags]


def _switched_on(environment: Mapping[str, str]) -> bool:
    value = environment.get(SWITCH, "1")
    if value not in ("0", "1"):
        raise InputError(f"{SWITCH}: is {value!r}; use 0 (off) or 1 (on)")
    return value == "1"


def _untouched() -> Settings:
    return Settings(False, "the system's, as it is", None, "as torch chooses", "contiguous_format")


def _tuned() -> Settings:
    threads, source = _set_threads()
    return Settings(True, _hold_freed_memory(os.environ), threads, source, "channels_last")


def _set_threads() -> tuple[int | None, str]:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        if name in os.environ:
            return None, f"{name}={os.environ[name]}"
    threads = usable_cores()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    else:  # torch reads it when it is imported
        os.environ["OMP_NUM_THREADS"] = str(threads)
    return threads, "one for each physical core"


def _hold_freed_memory(environment: Mapping[str, str]) -> str:
    """Tell glibc to keep freed blocks; the answer says what was done, or why nothing was."""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        libc = ""
    if not libc.startswith("glibc"):
        return "the system's, as it is (only glibc can be told to hold memory)"
    for name in environment:
        if name.startswith("MALLOC_") or (name == "GLIBC_TUNABLES" and "malloc" in environment[name]):
            return f"{libc}, as {name} says"
    if "malloc" in environment.get("LD_PRELOAD", ""):
        return f"another, by LD_PRELOAD={environment['LD_PRELOAD']}"
    mallopt = ctypes.CDLL(None).mallopt
    large = mallopt(_M_MMAP_THRESHOLD, 1024 * _MIB) or mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
    held = mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_M_TOP_PAD, 64 * _MIB)
    return f"{libc}, {_HOLDING}" if large and held else f"{libc}, as it is (it refused the setting)"


def _time_share() -> float | None:
    """Cores' worth of time that the container may use; None without a limit."""
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")  # cgroup v2
    if not quota:
        quota, period = (_read(f"/sys/fs/cgroup/cpu/cpu.cfs_{part}_us") for part in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _processor_field(name: str) -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _memory() -> str:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return "unknown"
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"


def _gpu() -> str:
    import torch

    count = torch.cuda.device_count()
    return ", ".join(torch.cuda.get_device_name(i) for i in range(count)) or "none"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
