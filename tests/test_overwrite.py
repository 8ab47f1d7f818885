"""What a kernel may write over while a step runs, and how writing is counted."""

import threading

import numpy as np
import pytest

from polynet.backend import (
    allow_overwrite,
    get_backend,
    may_overwrite,
    overwrite_count,
    overwriting,
)
from polynet.backend.overwrite import left_alone, nothing_written
from polynet.backend.static import WARM_UP

A, B, OTHER = np.zeros(2), np.zeros(3), np.zeros(4)


def consuming(step):
    step.consumes = True
    return allow_overwrite(step)


def allowed():
    return [may_overwrite(arrays) for arrays in ([A], [B], [A, B], [A, OTHER])]


def test_the_state_of_the_step_that_runs_may_be_written_over():
    inner = consuming(lambda state, data, rows: allowed())
    outer = consuming(lambda state, *given: (allowed(), inner({"b": B}, *given), allowed()))
    within = [True, False, False, False]
    assert outer({"a": A}, OTHER, OTHER) == (within, [False, True, False, False], within)
    assert outer({"deep": [{"a": A}, B]}, OTHER, OTHER)[0] == [True, True, True, False]
    assert allowed() == [False] * 4


def test_nothing_may_be_written_over_after_an_error_and_in_another_thread():
    found = []

    @consuming
    def step(state, data, rows):
        thread = threading.Thread(target=lambda: found.extend(allowed()))
        thread.start()
        thread.join()
        raise KeyError("of the step's own")

    with pytest.raises(KeyError, match="own"):
        step({"a": A}, OTHER, OTHER)
    assert allowed() == found == [False] * 4


def test_a_step_that_reads_its_old_state_later_is_returned_as_it_is():
    def step(state, data, rows):
        return may_overwrite([A])

    assert allow_overwrite(step) is step
    assert not step({"a": A}, OTHER, OTHER)


def test_writing_is_counted_in_its_thread():
    def wrote(act):
        before = overwrite_count()
        act()
        return overwrite_count() - before

    def alone():
        with left_alone():
            overwriting()

    def elsewhere():
        thread = threading.Thread(target=overwriting)
        thread.start()
        thread.join()

    assert wrote(overwriting) == 1
    assert wrote(lambda: [overwriting(), nothing_written()]) == 0
    assert wrote(alone) == wrote(elsewhere) == 0
    assert wrote(lambda: consuming(lambda *_: may_overwrite([A]))({"a": A}, OTHER, OTHER)) == 1
    assert wrote(lambda: may_overwrite([A])) == 0


def test_a_compiled_step_says_that_it_writes_from_its_first_on():
    backend, state = get_backend("numpy"), {"a": np.zeros(2)}
    run = backend.compile(lambda state, data, rows: ({"a": state["a"] + data[rows]}, data[0, ...]))
    for count in range(1, WARM_UP + 3):
        before = overwrite_count()
        state, _ = run(state, OTHER, np.zeros((1, 1), int))
        assert overwrite_count() == before + 1, count


def test_a_loss_that_is_no_array_is_refused_before_anything_is_written():
    run = get_backend("numpy").compile(lambda state, data, rows: (state, 1.0))
    before = overwrite_count()
    with pytest.raises(TypeError, match="returned a float for its loss"):
        run({"a": A}, OTHER, np.zeros((1, 1), int))
    assert overwrite_count() == before
