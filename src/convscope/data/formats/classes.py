"""Class folders, for the check; `data.folder` loads them."""

from convscope.data.entries import Entry, Layout
from convscope.data.findings import Findings
from convscope.data.folder import class_folders
from convscope.data.tree import Tree


def is_classes(tree: Tree) -> bool:
    """Whether pictures lie in folders, `CLASS/*.png` or `train/CLASS/*.png`."""
    top = "train" if (tree.root / "train").is_dir() else ""
    return any(len(p.split("/")) > (2 if top else 1) for p in tree.pictures)


def read_classes(tree: Tree, task: str, found: Findings) -> Layout:
    """An entry a picture; the folder below the part is its class."""
    tops = [name for name in ("train", "val", "test") if (tree.root / name).is_dir()]
    tops = tops if "train" in tops else [""]
    classes = class_folders(tree.root / tops[0])
    place = {name: at for at, name in enumerate(classes)}
    if len(classes) < 2:
        found.add(
            "classes", tops[0] or ".", f"has {len(classes)} class folders", "lay pictures out as CLASS/*.png, in two"
        )
    parts = {}
    for top in tops:
        start = f"{top}/" if top else ""
        below = [(p, p[len(start) :].split("/")) for p in tree.pictures if p.startswith(start)]
        parts[top or "train"] = [
            Entry(p, p, labels=(place[words[0]],)) for p, words in below if len(words) > 1 and words[0] in place
        ]
        present = {words[0] for _, words in below if len(words) > 1}
        if empty := [c for c in classes if c not in present]:
            found.add("empty class", top or ".", f"no pictures in the classes {', '.join(empty)}",
                      "add some, remove the folders, or keep them as classes with --allow-empty")  # fmt: skip
        if strange := [c for c in class_folders(tree.root / top) if c not in place]:
            found.add("classes", top, f"holds classes that the training part lacks: {', '.join(strange)}",
                      "rename or move them")  # fmt: skip
    return Layout("class folders", task, tuple(classes), parts)
