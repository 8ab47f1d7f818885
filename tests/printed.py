"""Where tests run a program, what its standard output can hold."""

ASCII = {"PYTHONIOENCODING": "ascii"}
"""The letters that every file has into which a program's output is redirected on Windows."""
