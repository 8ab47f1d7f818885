"""Saving a network's parameters, or a whole run of training; loading either on any backend.

The file is safetensors: arrays by name, contiguous, in PyTorch's layout, and nothing that can
run. It has a checksum of its content. Saving the same things again writes the same bytes. It
replaces what is at its path in one move, as `polynet.files` says. `format.py` writes and reads such
files, `network.py` those of networks, and `run.py` those of runs.
"""

from polynet.checkpoint.network import load, save

__all__ = ["load", "save"]
