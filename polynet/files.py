"""Files that are replaced in one move, so that a reader never meets half a file.

A file is written under another name in the same folder, and moved to its place when it is whole.
A process that is killed meanwhile leaves a hidden file `.polynet-…`, which may be deleted; once it
is an hour old, the next file that is replaced in this folder deletes it. A file that is replaced
keeps its permissions. Where `path` is a symbolic link, the file that it points to is replaced.
Windows refuses to replace a file that a program has open; moving is then retried for two seconds.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

StrPath = str | os.PathLike[str]

ATTEMPTS, PAUSE = 100, 0.02
"""How many times moving a file to its place is tried, and the seconds between two attempts."""


def check_folder(path: StrPath) -> None:
    """Raise FileNotFoundError if the folder of `path` is missing.

    Raise FileExistsError if something other than a regular file is at `path`.
    """
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{Path(path).name} cannot be written: there is no folder {str(folder)!r}; make it "
            "first, by os.makedirs"
        )
    if Path(path).exists() and not Path(path).is_file():
        raise FileExistsError(
            f"{os.fspath(path)!r} cannot be written: it is not a regular file, but a folder or a "
            "device; give the name of a file"
        )


def replace_file(
    path: StrPath, parts: Iterable[bytes | memoryview], *, model: StrPath | None = None
) -> None:
    """Replace the file at `path` in one move, with its permissions, or those of `model`."""
    target = Path(os.path.realpath(path))
    check_folder(path)
    like = target if model is None else Path(model)
    mode = like.stat().st_mode & 0o777 if like.exists() else None
    draft = target.with_name(f".polynet-{uuid.uuid4().hex}")
    try:
        with draft.open("xb") as file:
            if mode is not None:
                draft.chmod(mode)
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        _move(draft, target)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        error.add_note(f"{os.fspath(path)!r} is not written; a file that was there is still there")
        raise
    _delete_left(target.parent)
    # The folder is flushed too, so that the new name survives a power cut. Some folders cannot be
    # opened (one to drop files in, or any on Windows); the file is there and whole nevertheless.
    with suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _move(draft: Path, target: Path) -> None:
    """Move a file to its place; where another program reads what is there, wait until it closes."""
    for left in reversed(range(ATTEMPTS)):
        try:
            draft.replace(target)
        except PermissionError as error:
            if not left:
                error.add_note(
                    "Another program may have it open, or it belongs to somebody else: close it, "
                    "or give another path"
                )
                raise
            time.sleep(PAUSE)
        else:
            return


def _delete_left(folder: Path) -> None:
    """Delete drafts of killed processes: those that nobody has written to for an hour."""
    with suppress(OSError):  # another process may delete them too, and a folder may not be listed
        for draft in folder.glob(".polynet-" + "[0-9a-f]" * 32):
            if time.time() - draft.stat().st_mtime > 3600:
                draft.unlink()
