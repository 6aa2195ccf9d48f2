"""The command itself: what it prints, how it ends, what it refuses."""

import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from convscope.cli import app
from convscope.lab.server import open_socket

COMMAND = [sys.executable, "-c", "from convscope.cli import main; main()", "lab"]


def test_it_prints_an_address_that_answers_and_ctrl_c_ends_it():
    with subprocess.Popen([*COMMAND, "--port", "0"], stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"LeNet5 on digits:0: open (http://127\.0\.0\.1:\d+/\?token=[\w-]{32})\n", line)
            assert found, line
            with urllib.request.urlopen(found[1], timeout=30) as answer:
                assert answer.status == 200
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--host", "0.0.0.0"], 2, "--host 0.0.0.0: would show the lab to other machines"),
        (["LeNet"], 2, "did you mean 'LeNet5'"),
        (["LeNet5", "no/such.png"], 2, "no/such.png: does not exist"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_listens(words, code, told):
    from convscope.errors import ConvscopeError

    result = CliRunner().invoke(app, ["lab", *words])
    assert isinstance(result.exception, ConvscopeError)
    assert result.exception.exit_code == code
    assert told in str(result.exception)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["LeNet5", "digits:9999"], "digits:9999: there is no such digit"),
        (["torchvision:resnet19"], "did you mean 'resnet18'"),
    ],
)
def test_what_only_another_library_knows_ends_the_lab(words, told):
    run = subprocess.run([*COMMAND, "--port", "0", *words], capture_output=True, text=True, env=os.environ, timeout=60)
    assert run.returncode == 2
    assert told in run.stderr
    assert "Traceback" not in run.stderr


def test_a_port_in_use_is_said_and_ends_with_1():
    taken = open_socket("127.0.0.1", 0)
    try:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(app, ["lab", "--port", str(port)])
        assert getattr(result.exception, "exit_code", None) == 1
        assert f"--port {port}: cannot be opened" in str(result.exception)
    finally:
        taken.close()


HELP = """
import sys
sys.argv = ["convscope", "lab", "--help"]
from convscope.cli import main
try:
    main()
finally:
    print([m for m in ("torch", "starlette", "uvicorn") if m in sys.modules])
"""


def test_help_needs_neither_torch_nor_the_server():
    run = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, env=os.environ)
    assert run.stdout.splitlines()[-1] == "[]"
