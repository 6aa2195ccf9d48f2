"""Settings of the whole test suite."""

import sys

import pytest
from hypothesis import settings

settings.register_profile("convscope", deadline=None)  # the first call of torch is slow
settings.load_profile("convscope")


@pytest.fixture
def call(monkeypatch, capsys):
    """A command in this process (torch is loaded once): exit code, stdout, stderr."""
    from convscope.cli import main

    def calling(*words):
        monkeypatch.setattr(sys, "argv", ["convscope", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return calling
