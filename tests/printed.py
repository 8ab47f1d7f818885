"""The encoding of the standard output of programs that tests run."""

ASCII = {"PYTHONIOENCODING": "ascii"}
"""What every encoding can write, also that of a file to which Windows redirects the output."""
