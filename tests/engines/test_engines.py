"""Exported files give what the network gives, say how pictures enter them, and are refused when they are not ours."""

import json

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convscope.engines import (
    Card,
    FusedModel,
    named_outputs,
    need,
    onnx_bytes,
    open_engine,
    openvino_bytes,
    output_names,
    program_of,
    restored_outputs,
)
from convscope.engines.card import KEY
from convscope.engines.exported import ExportedModel, exported_bytes
from convscope.errors import InputError, ModelError
from convscope.models.heads import Candidates


class Two(nn.Module):
    """Two heads, one of them a detector's."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, x):
        y = self.conv(x)
        places = y.flatten(2).transpose(1, 2)
        return {"segment": y, "detect": Candidates(places, places + 1, places[0, :, :2] * 0, places[0, :, 0] * 0)}


def card_of(model, x, **changed):
    facts = {"task": "classify", "classes": ("a", "b"), "shape": tuple(x.shape[1:]), "mean": (0.5,), "std": (0.25,)}
    return Card(**(facts | {"outputs": output_names(model, x)} | changed))


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2))
    return model.eval()


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory):
    """The network as files of every format, by their endings."""
    folder, x = tmp_path_factory.mktemp("exported"), torch.randn(2, 1, 8, 8)
    card = card_of(small, x)
    (folder / "m.onnx").write_bytes(onnx_bytes(small, x, card))
    graph, weights = openvino_bytes(small, x, card)
    (folder / "m.xml").write_bytes(graph)
    (folder / "m.bin").write_bytes(weights)
    (folder / "m.pt2").write_bytes(exported_bytes(small, x, card))
    (folder / "m.fused").write_bytes(FusedModel(program_of(small, x), card, batch=2).content())
    return folder


@pytest.mark.parametrize("ending", [".onnx", ".xml", ".fused", ".pt2"])
@pytest.mark.parametrize("pictures", [1, 5])
def test_any_number_of_pictures_gives_what_the_network_gives(small, saved, ending, pictures):
    engine = open_engine(saved / f"m{ending}", trusted=True)
    x = torch.randn(pictures, 1, 8, 8)
    torch.testing.assert_close(engine(x), small(x), rtol=1e-4, atol=1e-5)
    assert engine.card == card_of(small, x)


@pytest.mark.parametrize("ending", [".onnx", ".xml", ".fused"])
def test_a_batch_in_another_memory_format_is_read_right(small, saved, ending):
    x = torch.randn(4, 2, 8, 8)[:, :1].contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(open_engine(saved / f"m{ending}")(x), small(x), rtol=1e-4, atol=1e-5)


def test_several_heads_come_back_as_they_were():
    model, x = Two().eval(), torch.randn(2, 2, 6, 6)
    card = card_of(model, x)
    assert card.outputs == ("segment.output", "detect.logits", "detect.boxes", "detect.points", "detect.strides")
    own = model(x)
    for engine in (
        ExportedModel(exported_bytes(model, x, card), source="m.pt2"),
        FusedModel(program_of(model, x), card, batch=2),
    ):
        found = engine(x)
        assert isinstance(found["detect"], Candidates)
        torch.testing.assert_close(found, own)


@given(st.dictionaries(st.sampled_from(["classify", "segment", "detect"]), st.booleans(), min_size=1))
@settings(deadline=None)
def test_names_there_and_back(heads):
    one, four = torch.zeros(2), Candidates(*torch.arange(4.0))
    outputs = {head: four if is_detector else one for head, is_detector in heads.items()}
    named = named_outputs(outputs)
    assert restored_outputs(list(named.values()), list(named)) == outputs
    single = next(iter(outputs.values()))
    named = named_outputs(single)
    assert restored_outputs(list(named.values()), list(named)) is single or named.keys() == set(Candidates._fields)


def test_what_cannot_be_named_is_refused():
    with pytest.raises(ModelError, match="the network gives a list, which cannot be exported; give tensors"):
        named_outputs([torch.zeros(1)])


class Loops(nn.Module):
    """Its path depends on values: no exporter can follow."""

    def forward(self, x):
        return x * 2 if x.sum() > 0 else x


@pytest.mark.parametrize(("write", "said"), [(onnx_bytes, "exported to ONNX"), (exported_bytes, "by torch.export")])
def test_a_network_that_cannot_be_exported_says_why(write, said):
    x = torch.randn(2, 1, 4, 4)
    with pytest.raises(ModelError, match=f"the network cannot be exported {'to ONNX' if 'ONNX' in said else said} "):
        write(Loops(), x, card_of(Loops(), x))


# Files that are not ours, or not whole


@pytest.mark.parametrize("ending", [".onnx", ".xml", ".fused"])
@pytest.mark.parametrize("content", [b"", b"no network", b"\x08" * 300])
def test_a_file_that_is_none_is_one_sentence(tmp_path, ending, content):
    path = tmp_path / f"m{ending}"
    path.write_bytes(content)
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"m\.(onnx|xml|fused): (is no|was not exported by convscope)"):
        open_engine(path)


@pytest.mark.parametrize("ending", [".onnx", ".xml", ".fused"])
@given(share=st.floats(0, 0.999))
@settings(max_examples=15, deadline=None)
def test_a_cut_file_is_refused(saved, tmp_path_factory, ending, share):
    folder = tmp_path_factory.mktemp("cut")
    content = (saved / f"m{ending}").read_bytes()
    (folder / f"m{ending}").write_bytes(content[: int(len(content) * share)])
    (folder / "m.bin").write_bytes((saved / "m.bin").read_bytes())
    with pytest.raises(ModelError):
        open_engine(folder / f"m{ending}")


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "m.data"])
def test_weights_in_other_files_are_not_read(saved, tmp_path, location):
    proto = onnx.load_model(saved / "m.onnx")
    tensor = next(t for t in proto.graph.initializer if len(t.raw_data) > 8)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    tensor.ClearField("raw_data")
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"m\.onnx: keeps weights in other files, which are not read"):
        open_engine(path)


def test_a_network_of_somebody_else_is_told_apart(saved, tmp_path):
    proto = onnx.load_model(saved / "m.onnx")
    del proto.metadata_props[:]
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="was not exported by convscope, so how pictures enter it is not known"):
        open_engine(path)


def test_missing_files_and_archives_that_could_run_code(saved, tmp_path):
    with pytest.raises(ModelError, match="there is no such file"):
        open_engine(tmp_path / "m.onnx")
    (tmp_path / "m.xml").write_bytes(b"<net/>")
    with pytest.raises(ModelError, match=r"m\.bin: is missing"):
        open_engine(tmp_path / "m.xml")
    with pytest.raises(ModelError, match="unpickles it, which can run code"):
        open_engine(saved / "m.pt2")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"format": 9}, "whose format 9 is not known here; upgrade convscope"),
        ({"shape": [1, -8, 8]}, "its card is damaged"),
        ({"mean": ["x"]}, "its card is damaged"),
        ({"outputs": []}, "its card is damaged"),
        ({"unknown": 1}, "its card is damaged"),
        ({"classes": [1]}, "its card is damaged"),
        ({"categories": 3}, "its card is damaged"),
        ({"categories": {"a": "b"}}, "its card is damaged"),
    ],
)
def test_a_card_is_checked(changed, said):
    card = Card("classify", ("a",), (1, 8, 8), (0.5,), (0.5,), ("output",))
    with pytest.raises(ModelError, match=said):
        Card.read(json.dumps(json.loads(card.text()) | changed), source="m.onnx")


@pytest.mark.parametrize("text", ["{", "3", "[" * 99_999, "{}", ""])
def test_a_card_that_is_none(text):
    with pytest.raises(ModelError, match=r"m\.onnx: (its card is damaged|was not exported)"):
        Card.read(text, source="m.onnx")


def test_a_package_that_is_missing_is_named():
    with pytest.raises(InputError, match=r"no_such_package: not installed; pip install 'convscope\[export\]'"):
        need("torch", "no_such_package", extra="export")


def test_the_card_is_in_the_metadata_that_other_programs_read(saved):
    proto = onnx.load_model(saved / "m.onnx")
    assert json.loads({p.key: p.value for p in proto.metadata_props}[KEY])["mean"] == [0.5]
