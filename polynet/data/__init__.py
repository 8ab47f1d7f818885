"""User data on its way in: checked, cast and moved; split, shuffled and augmented by the seed."""

from polynet.data import augment
from polynet.data.feeds import Feed, Resident, Streamed
from polynet.data.given import feed, hold_out, inputs, is_batch, is_batches
from polynet.data.images import image_folder
from polynet.data.order import batches, split
from polynet.data.place import Place, is_device_array
from polynet.data.source import Source, arrays, memory_mapped

__all__ = [
    "Feed",
    "Place",
    "Resident",
    "Source",
    "Streamed",
    "arrays",
    "augment",
    "batches",
    "feed",
    "hold_out",
    "image_folder",
    "inputs",
    "is_batch",
    "is_batches",
    "is_device_array",
    "memory_mapped",
    "split",
]
