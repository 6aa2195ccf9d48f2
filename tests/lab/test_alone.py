"""One HTML file without a server: what it shows is what the package says, and it asks nobody."""

import json
import re
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from convscope.cli import app
from convscope.data.images import Picture
from convscope.data.named import open_picture
from convscope.data.sets import Normalisation
from convscope.errors import InputError
from convscope.lab import Session
from convscope.lab.alone import MOST_BYTES, page, write_page
from convscope.lab.answers import layer_rows, unit_facts
from convscope.lab.bundle import EXPORT, IMPORT, bundle, static
from convscope.runs.loaded import LoadedModel, load_model

UNIT = """async ([data, units]) => {
  const { Store } = await import('/static/store.js');
  const { answersOf } = await import('/static/answers.js');
  const ask = answersOf(data.facts, new Store(data.facts.tensors, (name) => data.blobs[name]));
  return Promise.all(units.map(async (path) => (await ask(path)).json()));
}"""


class Several(nn.Module):
    """An operator of each recipe."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1, groups=1)
        self.norm = nn.BatchNorm2d(8)
        self.norm.running_mean, self.norm.running_var = torch.randn(8), torch.rand(8) + 0.5
        self.part = nn.Conv2d(8, 8, 3, stride=2, dilation=2, padding=1, groups=4, bias=False)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2, padding=1, groups=2)
        self.pool, self.mean = nn.MaxPool2d(3, 2, padding=1), nn.AvgPool2d(3, 2, padding=1, ceil_mode=True)
        self.larger = nn.Upsample(scale_factor=2, mode="bilinear")
        self.parts, self.all = nn.AdaptiveAvgPool2d(3), nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6 + 8, 5)

    def forward(self, x):
        x = nn.functional.hardswish(self.norm(self.conv(x)))
        y = self.up(self.part(x))
        y = self.larger(self.mean(torch.sigmoid(y) * y - 0.5))
        z = self.parts(nn.functional.leaky_relu(nn.functional.silu(x) + self.pool(x).tanh().mean()))
        return self.head(torch.cat([self.all(nn.functional.relu6(y)), self.all(z)], 1).flatten(1))


class Others(nn.Module):
    """Operators of other shapes, other norms, other functions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.line = nn.Conv2d(3, 8, 3), nn.Conv1d(8, 6, 5, stride=2, padding=2, groups=2)
        self.solid, self.back = nn.Conv3d(6, 4, (1, 3, 1), padding=(0, 1, 0)), nn.ConvTranspose1d(4, 4, 3, stride=2)
        self.by_row, self.by_group, self.plain = nn.LayerNorm((8, 10)), nn.GroupNorm(3, 6), nn.LayerNorm(5, bias=False)
        self.functions = nn.Sequential(
            nn.GELU(), nn.GELU(approximate="tanh"), nn.ELU(0.7), nn.Mish(), nn.Softplus(beta=2), nn.Hardsigmoid()
        )
        self.pool, self.mean = nn.MaxPool3d((1, 2, 1)), nn.AvgPool3d((1, 3, 1), 1, padding=(0, 1, 0))
        self.larger, self.twice = nn.Upsample(scale_factor=1.5, mode="linear"), nn.Upsample(scale_factor=(2, 1.5))

    def forward(self, x):
        x = self.by_row(
            self.functions(
                self.first(self.twice(x)[..., 1:11, ::2][..., :12])[:, :, :8, :7].repeat(1, 1, 1, 2)[..., :10]
            )
        )
        x = self.by_group(self.line(x.transpose(2, 3).flatten(2)))
        y = self.mean(self.pool(self.solid(x[None, 0, :, None, :, None]))).squeeze(4).squeeze(2)
        y = self.plain(self.larger(self.back(y))[..., :5].softmax(2))
        a, b = torch.split(y.clamp(max=0.5).permute(0, 2, 1).log_softmax(1), 2, dim=2)
        return (a.exp() - b.abs().sqrt() + (-a).clamp_min(0.1).log() + b.abs().rsqrt()).flatten(1)


def session_of(model, shape, pixels):
    loaded = LoadedModel("test </script><b>", model.eval(), shape, Normalisation(), None, trained=True)
    return Session(loaded, Picture(pixels, "L", "test"), "test picture")


@pytest.fixture(scope="module")
def several():
    return session_of(Several(), (3, 12, 12), np.random.default_rng(0).random((12, 12, 3)).astype(np.float32))


@pytest.fixture(scope="module")
def others():
    return session_of(Others(), (3, 12, 12), np.random.default_rng(2).random((12, 12, 3)).astype(np.float32))


@pytest.fixture(scope="module")
def lenet():
    return Session(load_model("LeNet5"), open_picture("digits:0"), "digits:0")


def test_the_command_writes_the_file_and_ends(tmp_path):
    path = tmp_path / "lenet.html"
    result = CliRunner().invoke(app, ["lab", "LeNet5", "digits:0", "--export", str(path)])
    assert result.exit_code == 0, result.exception
    assert f"{path}: 0." in result.output
    assert path.read_text().startswith("<!doctype html>")


@contextmanager
def opened_file(chromium, path, query="", **options):
    """The file in a browser; whatever it asks for, itself apart, fails the test."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, locale="en-GB", **options)
    tab, trouble = context.new_page(), []
    tab.on("console", lambda m: trouble.append(m.text))
    tab.on("pageerror", lambda e: trouble.append(str(e)))
    tab.on("request", lambda r: r.url.startswith((path.as_uri(), "blob:", "data:")) or trouble.append(r.url))
    tab.goto(path.as_uri() + query)
    ready(tab)
    yield tab
    context.close()
    assert trouble == []


def ready(tab):
    for _ in range(1500):
        if tab.evaluate("document.body.dataset.state") == "ready":
            return
        tab.wait_for_timeout(20)
    raise AssertionError(tab.inner_text("body"))


def held(text):
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', text)[1])
    blobs = dict(re.findall(r'id="blob-(\w+)">(.*?)</script>', text))
    return {"facts": facts, "blobs": blobs}


def plain(text):
    return text.replace("\u2212", "-").replace(",", "")


KINDS = {
    "several": {
        "convolution", "max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "upsample_bilinear2d", "addmm",
        "native_batch_norm", "cat", "add", "mul", "sub", "hardtanh", "silu", "hardswish", "view", "mean",
    },
    "others": {
        "convolution", "max_pool3d_with_indices", "avg_pool3d", "upsample_linear1d", "upsample_nearest2d", "slice",
        "native_layer_norm", "native_group_norm", "gelu", "elu", "mish", "softplus", "hardsigmoid", "_softmax", "clamp",
        "_log_softmax", "transpose", "permute", "split", "exp", "abs", "sqrt", "rsqrt", "neg", "log", "clamp_min",
        "squeeze", "unsqueeze", "select",
    },
}  # fmt: skip


@pytest.mark.browser
@pytest.mark.parametrize("network", KINDS)
def test_every_value_is_taken_apart_as_explain_does(lab, opened, network, request):
    session = request.getfixturevalue(network)
    look, rng = session.look("given"), np.random.default_rng(1)
    wanted, paths = [], []
    for row in layer_rows(look)["rows"]:
        op = look.recording.ops[row["index"]]
        for _ in range(4):
            unit = tuple(int(rng.integers(n)) for n in op.outputs[0].shape)
            wanted.append(unit_facts(look, op, unit))
            paths.append(f"pictures/given/layers/{op.index}/units/{','.join(map(str, unit))}")
    with opened(lab) as tab:
        told = tab.evaluate(UNIT, [held(page(session)), paths])
    kinds = set()
    for mine, theirs in zip(told, wanted, strict=True):
        where = f"{theirs['op']} {theirs['unit']}"
        assert mine["value"] == pytest.approx(theirs["value"]), where
        if mine["box"] is not None:  # a field without one size, as after resizing, is not drawn
            assert mine["box"] == [list(axis) for axis in theirs["box"][-2:]], where
        assert mine["box"] is not None or theirs["op"] not in ("native_batch_norm", "max_pool2d_with_indices"), where
        if mine["told"] is not None:
            kinds.add(theirs["op"].rstrip("_"))
            same(mine["told"], theirs["told"], where)
    assert KINDS[network] <= kinds


@pytest.mark.browser
def test_the_error_function_is_that_of_pytorch(lab, opened):
    x = torch.cat(
        [torch.linspace(-6, 6, 241, dtype=torch.float64), torch.tensor([2.5, 10.0, 25.0], dtype=torch.float64)]
    )
    with opened(lab) as tab:
        made = tab.evaluate("async (x) => x.map((await import('/static/functions.js')).erfc)", x.tolist())
    np.testing.assert_allclose(made, torch.special.erfc(x).numpy(), rtol=1e-12)


def same(mine, theirs, where):
    assert (mine["combine"], mine["formula"]) == (theirs["combine"], theirs["formula"]), where
    assert mine["total"] == pytest.approx(theirs["total"], rel=1e-6, abs=1e-9), where
    assert mine["says"] == pytest.approx(theirs["says"]), where
    for key in ("named", "largest"):
        assert len(mine.get(key, [])) == len(theirs.get(key, [])), where
        for a, b in zip(mine.get(key, []), theirs.get(key, []), strict=True):
            assert (a["label"], a["from"]) == (b["label"], b["from"]), where
            assert a["part"] == pytest.approx(b["part"], rel=1e-6, abs=1e-9), where
    assert ("matrices" in mine) == ("matrices" in theirs), where
    for a, b in zip(mine.get("matrices", []), theirs.get("matrices", []), strict=True):
        assert (a["channel"], a["inside"], a["winner"]) == (b["channel"], b["inside"], b["winner"]), where
        for key in ("patch", "kernel", "products"):
            np.testing.assert_allclose(a[key], b[key], rtol=1e-6, atol=1e-9, err_msg=where)


@pytest.mark.browser
def test_the_file_works_without_a_server(chromium, lenet, tmp_path):
    path = write_page(lenet, tmp_path / "lenet.html")
    with opened_file(chromium, path, "?layer=features.C3&unit=0,5,3,4&zoom=8") as tab:
        look = lenet.look("given")
        told = unit_facts(look, look.recording.find("C3"), (0, 5, 3, 4))
        assert "[0, 5, 3, 4]" in tab.inner_text(".arithmetic h2")
        assert float(plain(tab.inner_text(".equals .result"))) == pytest.approx(told["told"]["total"], rel=1e-3)
        assert tab.inner_text(".says") == "14 \u00d7 14 px, x 8..21, y 6..19"
        box = tab.locator(".sheet").bounding_box()
        tab.mouse.click(box["x"] + 10 + 2.5 * 8, box["y"] + 26 + 7.5 * 8)
        ready(tab)
        assert "[0, 0, 7, 2]" in tab.inner_text(".arithmetic h2")
        tab.keyboard.press("Tab")
        tab.focus(".sheet")
        tab.keyboard.press("ArrowRight")
        tab.wait_for_timeout(100)
        assert "[0, 0, 7, 3]" in tab.inner_text(".arithmetic h2")
        tab.click(".rows button[title='features.S2']")
        ready(tab)
        assert tab.locator("td.winner").count() == 1
        tab.select_option(".tools select", "variance")
        ready(tab)
        tab.reload()
        ready(tab)
        assert "features.S2" in tab.inner_text(".arithmetic h2")
        assert tab.locator("nav").count() == 0


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_file(chromium, lenet, tmp_path, violations, scheme):
    path = write_page(lenet, tmp_path / "lenet.html")
    with opened_file(chromium, path, color_scheme=scheme, bypass_csp=True) as tab:
        assert violations(tab) == []


def test_names_are_text_and_the_policy_lets_nothing_in(several):
    text = page(several)
    assert "test &lt;/script&gt;" in text
    assert "test </script>" not in text
    assert "default-src 'none'" in text
    assert "unsafe" not in text.partition("</head>")[0].partition("<style>")[0]
    assert not re.search(r'(?:src|href)="(?!data:)', text.partition("<script")[0])


def test_what_is_too_large_is_refused_and_says_how_large(several, lenet):
    with pytest.raises(InputError, match=r"would take about 0 MiB, and 0 MiB are the most; take a smaller network"):
        page(several, most=1000)
    model = nn.Conv2d(1, 1, 1)
    with pytest.raises(InputError, match=rf"about 1[0-9][0-9] MiB, and {MOST_BYTES // 2**20} MiB are the most"):
        page(session_of(model, (1, 5200, 5200), np.zeros((5200, 5200, 1), np.float32)))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("page.txt", "page.txt: ends in .txt, but the page is .html or .htm; give another --export"),
        ("folder.html", "is a folder, but a file is to be written; give another --export"),
    ],
)
def test_a_page_that_cannot_be_written_is_refused_before_the_work(call, tmp_path, name, said):
    (tmp_path / "folder.html").mkdir()
    code, out, err = call("lab", "LeNet5", "--export", tmp_path / name)
    assert (code, out) == (2, "")
    assert said in err


def test_a_bundle_leaves_no_import_and_no_export():
    for entry in ("alone", "framed"):
        text = bundle(entry)
        assert not re.search(r"^(?:import|export) ", text, re.MULTILINE)
        assert "</script" not in text
        assert "<!--" not in text


def test_every_import_and_export_is_of_the_kind_that_is_bundled():
    for name in ("network", "answers", "terms", "convolution", "frame"):
        text = static(f"{name}.js")
        assert len(re.findall(r"^import\b", text, re.MULTILINE)) == len(IMPORT.findall(text)), name
        assert len(re.findall(r"^export\b", text, re.MULTILINE)) == len(EXPORT.findall(text)), name
