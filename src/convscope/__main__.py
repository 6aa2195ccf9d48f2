"""`python -m convscope` is the command line, also where the `convscope` script is not on the path."""

from convscope.cli import main

if __name__ == "__main__":
    main()
