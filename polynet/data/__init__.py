"""A user's data on its way in: checked, cast, moved, split, shuffled and augmented by the seed."""

from polynet.data import augment
from polynet.data.feed import Resident, Streamed, feed
from polynet.data.images import image_folder
from polynet.data.order import batches, rows_of, split, split_rows
from polynet.data.place import Place, is_device_array, same_length
from polynet.data.source import Source, arrays, memory_mapped

__all__ = [
    "Place",
    "Resident",
    "Source",
    "Streamed",
    "arrays",
    "augment",
    "batches",
    "feed",
    "image_folder",
    "is_device_array",
    "memory_mapped",
    "rows_of",
    "same_length",
    "split",
    "split_rows",
]
