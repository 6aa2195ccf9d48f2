"""memory(): how many bytes are alive at each operator, from when each block is first made and last read."""

from dataclasses import dataclass

from convscope.graph import Op, Recording

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Memory:
    """The most bytes that are alive at once, what they consist of, and where that is.

    `needed` is what the peak would be if each block were let go when it was last read (variables of a forward pass
    hold some for longer). `held` is there all the time: parameters, buffers, inputs, constants. `gradients` (of
    parameters) and `saved` (what the forward pass made and the backward pass reads) are 0 for inference. The
    optimizer's own state and what a kernel allocates inside itself are not in it.
    """

    peak: int
    needed: int
    held: int
    saved: int
    gradients: int
    at: str
    op: str

    @property
    def text(self) -> str:
        """The peak and where it is, for a person."""
        where = f" at {self.op} in {self.at}" if self.at else f" at {self.op}" if self.op else ""
        return f"{mib(self.peak)}{where}"


def memory(recording: Recording) -> Memory:
    """The peak of a recording: of inference, or of a training step if its backward pass was recorded.

    Operators in place and views share the block of memory that they look at. A block lives from the operator
    that makes it until the model lets it go; outputs and gradients live to the end.
    """
    alive = alive_bytes(recording)
    needed = alive_bytes(recording, until="read")
    place = max(range(len(alive)), key=alive.__getitem__, default=-1)
    op = recording.ops[place] if alive else None
    held = _held(recording)
    return Memory(
        peak=max(alive, default=0) + held,
        needed=max(needed, default=0) + held,
        held=held,
        saved=_saved(recording),
        gradients=_bytes(recording, {v.storage for v in recording.gradients}),
        at=op.module if op else "",
        op=op.name if op else "",
    )


def alive_bytes(recording: Recording, *, until: str = "freed") -> tuple[int, ...]:
    """Bytes of the blocks that operators made, alive while each operator runs.

    until: "freed" as the model lets them go, or "read" for the last time.
    """
    made, last = _lifetimes(recording)
    if until == "freed":
        last |= {s: recording.freed[s] - 1 for s in made if s in recording.freed}
    change = [0] * (len(recording.ops) + 1)
    for storage, begin in made.items():
        change[begin] += recording.storages[storage]
        change[last[storage] + 1] -= recording.storages[storage]
    alive, now = [], 0
    for step in change[:-1]:
        now += step
        alive.append(now)
    return tuple(alive)


def allocated(recording: Recording, op: Op) -> int:
    """Bytes of the blocks that an operator makes: none for a view, none in place."""
    there = {v.storage for v in op.inputs}
    return _bytes(recording, {v.storage for v in op.outputs} - there)


def mib(size: float) -> str:
    """A number of bytes for a person.

    >>> mib(1024 * 1024), mib(10_000)
    ('1 MiB', '0.009537 MiB')
    """
    return f"{size / MIB:.4g} MiB"


def _lifetimes(recording: Recording) -> tuple[dict[int, int], dict[int, int]]:
    """For each block that an operator made: the operator's index, and that of the last one that needs it."""
    theirs = {v.storage for v in (*recording.inputs, *recording.params)}
    made: dict[int, int] = {}
    last: dict[int, int] = {}
    for op in recording.ops:
        for value in op.inputs:
            if value.storage not in made:
                theirs.add(value.storage)  # a constant
            last[value.storage] = op.index
        for value in op.outputs:
            if value.storage not in theirs:
                made.setdefault(value.storage, op.index)
                last[value.storage] = op.index
    for value in (*recording.outputs, *recording.gradients):
        last[value.storage] = len(recording.ops) - 1
    return made, last


def _held(recording: Recording) -> int:
    """Bytes of what the model has and is given: parameters, buffers, constants, inputs."""
    made, _ = _lifetimes(recording)
    read = {v.storage for op in recording.ops for v in op.inputs}
    return _bytes(recording, {v.storage for v in (*recording.inputs, *recording.params)} | (read - made.keys()))


def _saved(recording: Recording) -> int:
    if recording.backward_from is None:
        return 0
    made, last = _lifetimes(recording)
    ends = {v.storage for v in recording.outputs}
    begin = recording.backward_from
    return _bytes(recording, {s for s, i in made.items() if i < begin <= last[s]} - ends)


def _bytes(recording: Recording, storages: set[int]) -> int:
    return sum(recording.storages.get(s, 0) for s in storages)
