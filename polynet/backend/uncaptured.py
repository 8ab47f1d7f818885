"""What a user is told where a training step cannot be captured."""

from __future__ import annotations

from collections.abc import Sequence

from polynet.errors import NotCompiledError, users_line, warn


def report_uncaptured(reason: str, *, required: bool) -> None:
    """Warn that a training step runs one operation at a time; raise if a capture is `required`.

    The warning names the line of the program that asked polynet for the steps.
    """
    if required:
        raise NotCompiledError(
            f'compile="require": this training step cannot be captured: {reason}'
        )
    warn(
        "this training step cannot be captured and replayed as a whole, so it runs one operation "
        f"at a time, which is slower: {reason}"
    )


class DifferentReplayError(RuntimeError):
    """The replay of a step gives other results than the step; the text is the whole reason."""


def first_error(error: BaseException) -> BaseException:
    """The error that ended a capture: ending a capture that failed raises a second one."""
    return error if isinstance(error, DifferentReplayError) else error.__context__ or error


def uncaptured_reason(error: BaseException, inner: Sequence[str]) -> str:
    """The reason that `error` is for not capturing a step, with the user's line that raised it."""
    if isinstance(error, DifferentReplayError):
        return str(error)
    return (
        f"{type(error).__name__}: {error} ({users_line(error, inner)}). A step that can be "
        "captured does not read the values of arrays: it has no float(x), no `if` on an array, and "
        "xp.where(mask, x, 0) in place of x[mask]"
    )
