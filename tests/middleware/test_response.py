"""What the app answers, held back until its first bytes tell what it is."""

from __future__ import annotations

import pytest

from securefs.middleware.response import Closing


def test_closing_does_all_there_is_to_do_once():
    done = []

    def failing():
        done.append("failing")
        raise KeyError("app")

    closing = Closing([b"a"], failing, lambda: done.append("second"))
    assert list(closing) == [b"a"]
    with pytest.raises(KeyError):
        closing.close()
    closing.close()
    assert done == ["failing", "second"]
