"""Attributes that are computed when they are first asked for, without a lock."""

from __future__ import annotations

import threading

from securefs.lazy import lazy


class Thing:
    def __init__(self):
        self.asked = 0

    @lazy
    def answer(self):
        """What it is."""
        self.asked += 1
        return object()


def test_it_is_computed_once_for_each_instance():
    one, other = Thing(), Thing()
    assert one.answer is one.answer
    assert one.answer is not other.answer
    assert (one.asked, other.asked) == (1, 1)


def test_of_the_class_it_is_the_description():
    assert isinstance(Thing.answer, lazy)
    assert Thing.answer.__doc__ == "What it is."


def test_nobody_waits_while_another_thread_computes():
    """A child that is forked meanwhile would wait for ever."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        @lazy
        def answer(self):
            if threading.current_thread() is thread:
                begun.set()
                assert go_on.wait(60)
            return 1

    thread = threading.Thread(target=lambda: Slow().answer)
    thread.start()
    try:
        assert begun.wait(60)
        other = threading.Thread(target=lambda: Slow().answer, daemon=True)
        other.start()
        other.join(60)
        assert not other.is_alive()
    finally:
        go_on.set()
        thread.join()
