"""`python -m convscope.cli`."""

from convscope.cli import main

main()
