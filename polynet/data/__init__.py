"""A user's data on its way in: checked, cast, moved, split, shuffled and augmented by the seed."""

from polynet.data import augment
from polynet.data.order import batches, chunks, rows_of, same_length, split
from polynet.data.place import Place, check_host, is_device_array

__all__ = [
    "Place",
    "augment",
    "batches",
    "check_host",
    "chunks",
    "is_device_array",
    "rows_of",
    "same_length",
    "split",
]
