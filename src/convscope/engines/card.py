"""Card: what an exported network carries with it, so that nobody has to remember how pictures enter it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from convscope.errors import ModelError

KEY = "convscope"
FORMAT = 1
PRECISIONS = ("f32", "bf16", "int8")


@dataclass(frozen=True, slots=True)
class Card:
    """Facts of an exported network.

    `shape` is (C, H, W) of a picture, `mean` and `std` what it is normalised with after scaling to 0..1; `outputs`
    names the tensors that the network gives, in their order; `data` the data set that it can be measured on; `middle`
    says that the middle of a picture is cut out, as ImageNet's are; `threads` is how many run it, 0 for as many as
    PyTorch takes; `categories` are the data's own numbers of classes.
    """

    task: str
    classes: tuple[str, ...] | None
    shape: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    outputs: tuple[str, ...]
    data: str = ""
    seed: int = 0
    middle: bool = False
    precision: str = "f32"
    threads: int = 0
    categories: Mapping[str, int] = field(default_factory=dict)

    def text(self) -> str:
        """As JSON, with the version that wrote it.

        >>> card = Card("classify", ("a", "b"), (1, 8, 8), (0.5,), (0.5,), ("output",))
        >>> Card.read(card.text(), source="model.onnx") == card
        True
        """
        return json.dumps({"format": FORMAT, "version": version("convscope")} | asdict(self))

    @classmethod
    def read(cls, text: str | None, *, source: str) -> "Card":
        """The card in a file's metadata.

        Raises: ModelError if there is none, if it is damaged, or of a later format.
        """
        if not text:
            raise ModelError(
                f"{source}: was not exported by convscope, so how pictures enter it "
                "is not known; export it with convscope export"
            )
        try:
            facts: dict[str, Any] = json.loads(text)
            writer, form = facts.pop("version"), facts.pop("format")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ModelError(f"{source}: its card is damaged; export it again") from None
        if form != FORMAT:
            raise ModelError(
                f"{source}: was exported by convscope {writer}, whose format {form!r} is not known here; upgrade "
                "convscope"
            )
        try:
            known: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
            return cls(**known)._checked()
        except (AttributeError, TypeError, ValueError):
            raise ModelError(f"{source}: its card is damaged; export it again") from None

    def _checked(self) -> "Card":
        numbers = all(isinstance(v, int | float) for v in (*self.mean, *self.std))
        sizes = all(isinstance(n, int) and 0 < n < 2**31 for n in self.shape)
        names = all(isinstance(n, str) for n in (*self.outputs, *(self.classes or ()), self.task, self.data))
        known = self.precision in PRECISIONS and all(isinstance(n, int) for n in self.categories.values())
        known = known and isinstance(self.threads, int) and 0 <= self.threads < 2**10
        if not (known and numbers and sizes and names and self.outputs and len(self.mean) == len(self.std)):
            raise ValueError("card")
        return self
