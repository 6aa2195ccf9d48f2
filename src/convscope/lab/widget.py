"""A recording in a notebook: the lab's own page in a frame, its questions answered by the kernel."""

from functools import cache
from html import escape
from typing import Any

from convscope.errors import InputError
from convscope.graph import Recording
from convscope.lab.alone import html, page
from convscope.lab.app import answerer
from convscope.lab.bundle import static
from convscope.lab.recorded import Recorded

HEIGHT = 760  # px of the frame
MOST_STATIC = 8 * 2**20  # bytes of a page that a notebook is given for where there is no kernel


def widget(recording: Recording, image: Any) -> Any:
    """The lab's network page of a recording, in a notebook: maps, and any value of them as its arithmetic.

    recording: of one picture, with all its tensors: `record(model, x, keep=lambda op: True)`. image: that picture
    before normalisation: a name or path, a tensor CxHxW, an array HxWxC or a Pillow picture; 0..1, or uint8.
    Where no kernel runs, the notebook shows a page that needs none, or of a large network its table.
    Raises: InputError if anywidget is not installed, or the recording or the picture does not fit.

    >>> import torch
    >>> from convscope import record
    >>> net = torch.nn.Conv2d(1, 2, 3)
    >>> recording = record(net, torch.zeros(1, 1, 8, 8))
    >>> widget(recording, torch.zeros(1, 8, 8))
    Traceback (most recent call last):
    convscope.errors.InputError: widget: the recording kept no values; make it by record(model, x, keep=lambda op: True)
    """
    recorded = Recorded(recording, image)
    return _kind()(recorded)


@cache
def _kind() -> type:
    """The class, once it is known that anywidget is there."""
    try:
        import traitlets
        from anywidget import AnyWidget
    except ImportError:
        raise InputError("widget: needs anywidget, which is not installed; pip install 'convscope[notebook]'") from None

    class Widget(AnyWidget):
        """A frame, and the kernel's side of it."""

        _esm = static("widget.js")
        page = traitlets.Unicode().tag(sync=True)
        height = traitlets.Int(HEIGHT).tag(sync=True)

        def __init__(self, recorded: Recorded) -> None:
            super().__init__(page=html("framed", {}, {}, title="convscope"))
            self._recorded, self._answer = recorded, answerer(recorded)
            self.on_msg(self._asked)

        def _asked(self, _: Any, asked: Any, buffers: Any) -> None:
            answer = self._answer(str(asked.get("path", "")))
            self.send({"id": asked.get("id"), "status": answer.status_code}, [bytes(answer.body)])

        def _repr_mimebundle_(self, **options: Any) -> Any:
            made = super()._repr_mimebundle_(**options)
            data, more = made if isinstance(made, tuple) else (made or {}, {})
            return {**data, "text/html": _static_html(self._recorded)}, more

    return Widget


def _static_html(recorded: Recorded) -> str:
    """What is shown where no kernel answers."""
    try:
        text = page(recorded, most=MOST_STATIC)
    except InputError:
        return recorded.look("given").summary.table().html()
    return (
        f'<iframe title="convscope" sandbox="allow-scripts allow-downloads" srcdoc="{escape(text)}" '
        f'style="width:100%;height:{HEIGHT}px;border:1px solid #8888"></iframe>'
    )
