"""What is printed, where the output has no sign for it."""

import sys


def spell_out() -> None:
    """Let what is printed be spelt out where the output has no sign for it, as in a file on Windows, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's has a sign for everything
            stream.reconfigure(errors="backslashreplace")
