"""advice(): work that a network does for nothing: products with padding, rows never read, biases taken away."""

from collections.abc import Mapping

from convscope.geometry import Window, out_size
from convscope.graph import Op, Recording, Role
from convscope.graph.rules import conv_macs, conv_windows, pool_windows

_NORMS = {"native_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit", "batch_norm"}


def advice(recording: Recording) -> tuple[str, ...]:
    """Sentences about wasted work, the largest share of padding first; empty if there is nothing to say.

    >>> import torch, convscope
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 2, stride=2), torch.nn.BatchNorm2d(2)).eval()
    >>> for sentence in advice(convscope.record(net, torch.zeros(1, 1, 5, 4))):
    ...     print(sentence)
    0 (convolution): 1 of 5 rows is never read (stride 2); use an input whose size fits
    0: its bias does nothing, since batch normalisation follows; use bias=False
    """
    convs = [op for op in recording.ops if op.name == "convolution" and not op.args["transposed"]]
    pools = [op for op in recording.ops if "_pool" in op.name and "kernel_size" in op.args]
    return (
        *_padding(convs),
        *(s for op in convs for s in _unread(op, conv_windows(op), op.args["input"].shape)),
        *(s for op in pools for s in _unread(op, pool_windows(op), op.inputs[0].shape)),
        *_lost_biases(recording, convs),
    )


def padded_share(n: int, window: Window) -> float:
    """The share of a window's products that meet padding along an axis of `n` elements.

    >>> round(15 * padded_share(5, Window(3, padding=1)))
    2
    """
    count = out_size(n, window)
    starts = (i * window.stride - window.padding for i in range(count))
    inside = sum(0 <= s + window.dilation * k < n for s in starts for k in range(window.size))
    return 1 - inside / (count * window.size)


def _padding(convs: list[Op]) -> list[str]:
    """How many MACs of all convolutions multiply padding, and where most."""
    wasted = {op.index: conv_macs(op) * _share(op) for op in convs}
    total = sum(map(conv_macs, convs))
    if not total or sum(wasted.values()) < 0.01 * total:
        return []
    worst = max(convs, key=lambda op: wasted[op.index])
    return [
        f"{100 * sum(wasted.values()) / total:.1f} % of the convolutions' MACs multiply padding, "
        f"{100 * _share(worst):.1f} % in {worst.module or worst.name}"
    ]


def _share(op: Op) -> float:
    inside = 1.0
    for n, window in zip(op.args["input"].shape[2:], conv_windows(op), strict=True):
        inside *= 1 - padded_share(n, window)
    return 1 - inside


def _unread(op: Op, windows: tuple[Window, ...], shape: tuple[int, ...]) -> list[str]:
    """The rows and columns at the end, or between windows, that no window reads."""
    ndim = len(windows)
    names = ("rows", "columns") if ndim == 2 else tuple(f"places of axis {i}" for i in range(ndim))
    found = []
    for name, n, window, count in zip(names, shape[-ndim:], windows, op.outputs[0].shape[-ndim:], strict=True):
        starts = range(-window.padding, count * window.stride - window.padding, window.stride)
        read = {s + window.dilation * k for s in starts for k in range(window.size)}
        lost = n - len(read & set(range(n)))
        if lost:
            verb = "is" if lost == 1 else "are"
            where = f"{op.module} ({op.name})" if op.module else op.name
            remedy = "a larger kernel or a smaller stride" if lost > window.stride else "an input whose size fits"
            found.append(f"{where}: {lost} of {n} {name} {verb} never read (stride {window.stride}); use {remedy}")
    return found


def _lost_biases(recording: Recording, convs: list[Op]) -> list[str]:
    """Convolutions with a bias whose output goes into batch normalisation alone, which takes the mean away."""
    readers: dict[int, list[Op]] = {}
    for op in recording.ops:
        for value in op.inputs:
            readers.setdefault(value.id, []).append(op)
    ends = {v.id for v in recording.outputs}
    names = [op.module or op.name for op in convs if _loses_its_bias(op, readers, ends)]
    if not names:
        return []
    if len(names) == 1:
        return [f"{names[0]}: its bias does nothing, since batch normalisation follows; use bias=False"]
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    return [f"{len(names)} biases do nothing, since batch normalisation follows; use bias=False in {shown}"]


def _loses_its_bias(op: Op, readers: Mapping[int, list[Op]], ends: set[int]) -> bool:
    bias, out = op.args["bias"], op.outputs[0].id
    followed = readers.get(out, [])
    learnt = bias is not None and bias.role is Role.PARAMETER
    return learnt and out not in ends and bool(followed) and all(r.name in _NORMS for r in followed)
