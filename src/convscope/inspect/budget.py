"""Budget: what a network may cost at most and must see at least, and the sentences for what it breaks."""

from dataclasses import dataclass

from convscope.errors import InputError
from convscope.inspect.memory import mib
from convscope.inspect.summary import Summary

_FACTORS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many MACs, parameters and bytes of peak memory for inference; at least such a receptive field (px)."""

    max_macs: int | None = None
    max_params: int | None = None
    max_memory: int | None = None
    min_receptive_field: int | None = None

    def broken(self, summary: Summary) -> tuple[str, ...]:
        """One sentence for each limit that the network does not keep; MACs that are not known break theirs."""
        total, field = summary.total, widest_field(summary)
        found = []
        if self.max_macs is not None and (total.macs > self.max_macs or total.unknown):
            least = "at least " if total.unknown else ""
            found.append(f"MACs: {least}{total.macs:,}, but {self.max_macs:,} are allowed")
        if self.max_params is not None and total.params > self.max_params:
            found.append(f"parameters: {total.params:,}, but {self.max_params:,} are allowed")
        if self.max_memory is not None and total.memory.peak > self.max_memory:
            found.append(f"peak memory: {total.memory.text}, but {mib(self.max_memory)} are allowed")
        if self.min_receptive_field is not None and field < self.min_receptive_field:
            found.append(f"receptive field: {field} px at most, but {self.min_receptive_field} px are needed")
        return tuple(found)


def widest_field(summary: Summary) -> int:
    """The shorter side of the largest local receptive field of a map; what is but a bound is not counted."""
    fields = [o.receptive_field for o in summary.operators if o.receptive_field and len(o.output_shape) > 3]
    return max((min(f["size"]) for f in fields if f["size"] and not f["bound"]), default=0)


def amount(text: str | None, *, option: str) -> int | None:
    """A number with a unit: 600M, 1.5G, 100MiB.

    Raises: InputError if it is none.

    >>> amount("600M", option="--max-macs"), amount("1.5KiB", option="--max-memory")
    (600000000, 1536)
    """
    if text is None:
        return None
    number = text.rstrip("KMGiIbBkmg")
    factor = _FACTORS.get(text[len(number) :].upper(), -1)
    try:
        count = int(float(number) * factor)
    except (ValueError, OverflowError):
        count = -1
    if count < 0:
        raise InputError(f"{option}: {text!r} is no amount; use such as 600M, 5000 or 100MiB")
    return count
