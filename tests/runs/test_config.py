"""The settings: precedence, TOML there and back, and one sentence for each mistake."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convscope.errors import ConfigError
from convscope.runs.config import TrainConfig, differences, read_toml, resolve, to_toml

configs = st.builds(
    TrainConfig,
    data=st.text(st.characters(exclude_categories=["Cs"])),
    epochs=st.integers(1, 10**9),
    lr=st.floats(0, 10, allow_nan=False),
    warmup=st.floats(0, 0.99),
    seed=st.integers(0, 2**31 - 1),
    channels_last=st.booleans(),
    precision=st.sampled_from(["auto", "float32", "bfloat16"]),
)


@given(configs)
def test_toml_there_and_back(tmp_path_factory: pytest.TempPathFactory, config: TrainConfig) -> None:
    file = tmp_path_factory.mktemp("config") / "c.toml"
    file.write_bytes(to_toml(config).encode())
    assert resolve(file=file) == config
    assert set(read_toml(file)) == set(TrainConfig.model_fields)


@given(st.tuples(*[st.booleans()] * 3))
def test_flags_over_sets_over_file_over_defaults(
    tmp_path_factory: pytest.TempPathFactory, given_in: tuple[bool, ...]
) -> None:
    in_file, in_sets, in_flags = given_in
    file = tmp_path_factory.mktemp("config") / "c.toml"
    file.write_text("epochs = 2" if in_file else "")
    found = resolve({"epochs": 4 if in_flags else None}, ["epochs = 3"] if in_sets else [], file=file).epochs
    assert found == (4 if in_flags else 3 if in_sets else 2 if in_file else TrainConfig().epochs)


def test_a_byte_order_mark_and_the_line_ends_of_other_systems_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\xef\xbb\xbfepochs = 7\r\nlr = 0.5\r\n")
    assert resolve(file=tmp_path / "mine.toml") == resolve({"epochs": 7, "lr": 0.5})


def test_a_set_value_is_toml_or_else_text() -> None:
    found = resolve(sets=["data=/tmp/a b=c", "model='LeNet5'", "lr=1", "channels_last=true"])
    assert (found.data, found.model, found.lr, found.channels_last) == ("/tmp/a b=c", "LeNet5", 1.0, True)


@pytest.mark.parametrize(
    ("flags", "sets", "said"),
    [
        ({"epoch": 3}, [], "config: 'epoch' (from options) is not a setting; did you mean 'epochs'?"),
        ({}, ["epochs=ten"], "config: 'epochs' (from --set) is 'ten', but input should be a valid integer"),
        ({}, ["epochs=1.5"], "config: 'epochs' (from --set) is 1.5, but input should be a valid integer"),
        ({}, ["epochs=0"], "config: 'epochs' (from --set) is 0, but input should be greater than or equal to 1"),
        ({}, ["lr=nan"], "config: 'lr' (from --set) is nan, but input should be a finite number"),
        ({}, ["lr"], "--set 'lr': is not key=value; write for instance --set epochs=10"),
        ({"batch_size": True}, [], "config: 'batch_size' (from options) is True, but input should be a valid integer"),
        (
            {},
            ["precision=f16"],
            "config: 'precision' (from --set) is 'f16', but input should be 'auto', 'float32' or 'bfloat16'",
        ),
    ],
)
def test_a_mistake_is_one_sentence(flags: dict[str, object], sets: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(flags, sets)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"epochs = 1\nepochs = 2", "is not TOML"),
        (b"epochs: 3", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        (b"[epochs]\nx = 1", "valid integer"),
        (b"epoch = 3", "did you mean 'epochs'"),
        ("epochs = 3".encode("utf-16"), "is not TOML"),
        (b"epochs = 3\0", "is not TOML"),
        (b"epochs = " + b"9" * 5000, "is not TOML"),
        (b"x = " + b"[" * 20_000, "is not TOML"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"mine\.toml.*{said}"):
        resolve(file=file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.toml: cannot be read \(No such file"):
        resolve(file=tmp_path / "no.toml")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory"):
        resolve(file=tmp_path)


def test_differences_name_what_changes_the_result() -> None:
    assert differences(TrainConfig(), TrainConfig(save_every_steps=7)) == {}
    assert differences(TrainConfig(), TrainConfig(seed=1, model="ConvNet3")) == {
        "model": ("LeNet5", "ConvNet3"),
        "seed": (0, 1),
    }
