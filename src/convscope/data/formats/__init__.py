"""Which format a folder has, found from what is in it, and its entries."""

from collections.abc import Callable
from dataclasses import dataclass

from convscope.data.entries import Layout
from convscope.data.findings import Findings
from convscope.data.formats.classes import is_classes, read_classes
from convscope.data.formats.coco import is_coco, read_coco
from convscope.data.formats.pairs import is_pairs, read_pairs
from convscope.data.formats.rows import has_boxes, is_rows, read_rows
from convscope.data.formats.shards import is_shards, read_shards
from convscope.data.formats.voc import is_voc, read_voc
from convscope.data.formats.yolo import is_yolo, read_yolo
from convscope.data.tree import Tree
from convscope.errors import DataError

__all__ = ["FORMATS", "Format", "read", "recognise"]


@dataclass(frozen=True, slots=True)
class Format:
    """How a format is known, what it can teach, and how its entries are read."""

    name: str
    tasks: tuple[str, ...]
    fits: Callable[[Tree], bool]
    read: Callable[[Tree, str, Findings], Layout]


FORMATS = (  # the first that fits; those that need the least evidence come last
    Format("COCO JSON", ("detect", "segment"), is_coco, read_coco),
    Format("Pascal VOC", ("detect",), is_voc, read_voc),
    Format("YOLO", ("detect", "segment"), is_yolo, read_yolo),
    Format("CSV", ("classify", "detect"), is_rows, read_rows),
    Format("pictures and masks", ("segment",), is_pairs, read_pairs),
    Format("WebDataset shards", ("classify", "segment"), is_shards, read_shards),
    Format("class folders", ("classify",), is_classes, read_classes),
)


def recognise(tree: Tree, task: str | None = None) -> tuple[Format, str]:
    """The format of a folder, and the task: the one that is asked for, or the first that the format serves.

    Raises: DataError if it has none that serves the task.
    """
    fitting = [f for f in FORMATS if f.fits(tree)]
    serving = [f for f in fitting if task in (None, *f.tasks)]
    if serving:
        return serving[0], task or _usual(serving[0], tree)
    if fitting:
        raise DataError(f"{tree.root}: holds {fitting[0].name}, which serve to {' or '.join(fitting[0].tasks)}, "
                        f"not to {task}; choose another task or other data")  # fmt: skip
    known = ", ".join(f.name for f in FORMATS if task in (None, *f.tasks))
    raise DataError(f"{tree.root}: is laid out in no known way{f' to {task}' if task else ''}; known: {known}")


def read(tree: Tree, task: str | None, found: Findings) -> Layout:
    """The entries of a folder; what is wrong with them is noted.

    Raises: DataError if its format is not known.
    """
    chosen, task = recognise(tree, task)
    return chosen.read(tree, task, found)


def _usual(chosen: Format, tree: Tree) -> str:
    return "detect" if chosen.name == "CSV" and has_boxes(tree) else chosen.tasks[0]
