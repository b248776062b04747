"""The thread that prepares batches: its errors, and its end."""

import threading
import time

import pytest

from speechbrain_slm.brains.prefetch import Ahead


def threads():
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith("prepare-batches")]


def test_it_works_one_step_ahead_and_no_further():
    prepared = []
    with Ahead(prepared.append, last=4) as ahead:
        ahead.take(0)
        ahead.call(int)  # Whatever the thread had to do is done.
        assert prepared == [0, 1]
        for step in (1, 2, 3):
            ahead.take(step)
    assert prepared == [0, 1, 2, 3]
    assert threads() == []


def test_an_error_is_raised_where_its_step_would_train():
    def prepare(step):
        if step == 1:
            raise ValueError("row 1 is damaged")
        return step

    with Ahead(prepare, last=3) as ahead:
        assert ahead.take(0) == 0
        with pytest.raises(ValueError, match="row 1 is damaged"):
            ahead.take(1)
    assert threads() == []


def fail_after_the_first_step():
    with Ahead(lambda step: time.sleep(0.05), last=9) as ahead:
        ahead.take(0)
        assert len(threads()) == 1
        raise FloatingPointError


def test_an_error_of_training_ends_the_thread():
    with pytest.raises(FloatingPointError):
        fail_after_the_first_step()
    assert threads() == []


def test_what_is_called_does_not_meet_what_is_prepared():
    running = []

    def alone(_):
        assert not running
        running.append(1)
        time.sleep(0.01)
        running.pop()

    with Ahead(alone, last=9) as ahead:
        for step in range(9):
            ahead.take(step)
            ahead.call(alone, step)
