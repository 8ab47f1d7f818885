"""Files of named arrays: safetensors, with a checksum and in a fixed order."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from polynet.backend import Array, to_numpy
from polynet.errors import unknown
from polynet.files import StrPath, replace_file

CHECKSUM = "polynet.sha256"
RUN = "polynet.run"
"""The names of metadata: the checksum, and the description of a run."""
PICKLED = re.compile(
    rb"PK\x03\x04.{26}[^/]*/data\.pkl|\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL
)
"""How a file of torch.save begins, in its present format and in its old one."""


def write(path: StrPath, arrays: Mapping[str, Array], more: Mapping[str, str]) -> None:
    """Write named arrays, and `more` metadata, in one move."""
    host = {name: np.asarray(to_numpy(a), order="C") for name, a in arrays.items()}
    metadata = {"format": "pt", **more}
    metadata[CHECKSUM] = _sha256(host, metadata)
    replace_file(path, _in_order(safetensors.numpy.save(host, metadata=metadata)))


def _in_order(content: bytes) -> list[bytes | memoryview]:
    """The parts of a file, with a sorted header: safetensors writes metadata in varying order."""
    header, end = _header(content)
    ordered = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    ordered += b" " * (-len(ordered) % 8)
    return [len(ordered).to_bytes(8, "little"), ordered, memoryview(content)[end:]]


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and the position at which the numbers begin."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), end


def parsed(path: StrPath, content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays and the metadata in the `content` of the file at `path`.

    The checksum is compared; a file of another program may lack it.
    """
    try:
        arrays = safetensors.numpy.load(content)
    except safetensors.SafetensorError as error:
        kind = " a file of torch.save, and" if PICKLED.match(content) else ""
        raise ValueError(
            f"{path} is{kind} not a whole safetensors file: {error}. In PyTorch, write one by "
            "safetensors.torch.save_file(net.state_dict(), path)"
        ) from error
    except KeyError as error:
        raise ValueError(
            f"{path} holds arrays of {error}, a dtype that NumPy lacks; convert them where they "
            "were written, in PyTorch by {name: t.float() for name, t in state_dict.items()}"
        ) from error
    header, _ = _header(content)
    metadata = header.get("__metadata__") or {}
    rest = {name: text for name, text in metadata.items() if name != CHECKSUM}
    if CHECKSUM in metadata and metadata[CHECKSUM] != _sha256(arrays, rest):
        raise ValueError(
            f"{path} was changed since it was written: its SHA-256 is not the one it states; "
            "take another copy"
        )
    return arrays, metadata


def _sha256(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """The checksum of everything in a file except the checksum itself."""
    names = sorted(arrays)
    described = [[name, arrays[name].dtype.str, arrays[name].shape] for name in names]
    digest = hashlib.sha256(json.dumps([metadata, described], sort_keys=True).encode())
    for name in names:
        digest.update(arrays[name].reshape(-1).view(np.uint8).data)  # no copy: it is contiguous
    return digest.hexdigest()


def check_shapes(
    path: StrPath, arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any], kind: str
) -> None:
    """Refuse arrays whose names or shapes are not those expected."""
    missing = [name for name in expected if name not in arrays]
    lacks = f"{path} lacks the {kind} " + ", ".join(map(repr, missing[:3]))
    if len(missing) > 3:
        lacks += f" and {len(missing) - 3} more"
    for name in sorted(arrays):
        if name not in expected:
            also = f" And {lacks}." if missing else ""
            raise KeyError(f"{path}: {unknown(kind, name, expected)}{also}")
    if missing:
        raise KeyError(lacks)
    for name, thing in expected.items():
        if arrays[name].shape != tuple(thing.shape):
            raise ValueError(
                f"{path}: {name!r} has shape {arrays[name].shape}, the network's "
                f"{tuple(thing.shape)}"
            )
