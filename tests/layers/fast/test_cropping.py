"""Windows of pictures at another size: bit for bit torchvision's."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, reject
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as V

from convscope.layers.fast import cropping
from convscope.layers.fast.cropping import bilinear, nearest
from convscope.layers.fast.training import library

SIDES = st.integers(1, 70)


@pytest.fixture(autouse=True)
def there() -> None:
    if library() is None:
        pytest.skip("there is no compiler")


@given(st.data(), SIDES, SIDES, st.sampled_from([1, 3]), st.booleans())
def test_a_window_is_torchvisions_to_the_last_bit(
    data: st.DataObject, height: int, width: int, channels: int, same: bool
) -> None:
    def window(side: int) -> tuple[int, int]:
        part = data.draw(st.integers(max(1, round(side / 1.25)), round(1.25 * side)))
        return data.draw(st.integers(min(0, side - part) - 2, max(0, side - part) + 2)), part

    (top, rows), (left, columns) = window(height), window(width)
    size = (height, width) if same else (data.draw(SIDES), data.draw(SIDES))
    place, seed = (top, left, rows, columns), torch.Generator().manual_seed(height * width)
    x = torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=seed)
    cut = V.crop_image(x, *place)
    found = bilinear(x, place, size)
    assert found is not None or columns > 1.5 * size[1]
    try:
        wanted = V.resize_image(cut, list(size))
    except RuntimeError:  # PyTorch's kernel has an assertion that some windows a pixel wide do not meet
        reject()
    assert found is None or torch.equal(found, wanted)
    by_pixel = nearest(x, place, size)
    assert by_pixel is not None
    assert torch.equal(by_pixel, F.interpolate(cut[None], list(size), mode="nearest-exact")[0])


def test_what_the_kernel_does_not_serve_is_left_to_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    x, rest = torch.zeros(3, 8, 8, dtype=torch.uint8), ((0, 0, 8, 8), (8, 8))
    assert bilinear(x, *rest) is not None
    for other in (x.float(), x[..., 1:], x[None], x.permute(0, 2, 1)[:, ::2]):
        assert bilinear(other, *rest) is None
        assert nearest(other, *rest) is None
    monkeypatch.setattr(cropping, "library", lambda: None)
    assert bilinear(x, *rest) is None
