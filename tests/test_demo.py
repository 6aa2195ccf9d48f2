"""The demo, short: what it makes and what it says. That sixty epochs reach the accuracy is tested with training."""

from convscope.demo import run_demo
from convscope.runs import open_run


def test_the_demo_makes_a_run_a_report_and_says_what_to_do_next(tmp_path):
    said = "\n".join(run_demo(tmp_path / "demo", epochs=1, seed=0))
    assert (tmp_path / "demo" / "report.html").exists()
    assert open_run(tmp_path / "demo").config.epochs == 1
    assert "61,706  416,520" in said
    assert "the model says" in said
    assert f"convscope predict {tmp_path / 'demo'} digits:0" in said
    assert said.endswith(f"convscope lab {tmp_path / 'demo'} digits:0")


def test_a_second_demo_keeps_the_first(tmp_path):
    for _ in range(2):
        list(run_demo(tmp_path / "demo", epochs=1, seed=0))
    assert (tmp_path / "demo-2" / "report.html").exists()
