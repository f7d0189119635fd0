"""To decrypt is to permit: which files an app may open, in all combinations of what is declared and who asks."""

from __future__ import annotations

import io
import itertools

import pytest
from support.sealing import pattern, seal, seal_1
from support.uploads import KEYRING

from securefs import FormatError
from securefs.errors import Reason
from securefs.header import claimed_object_id
from securefs.middleware import Exchange, Policy, Upload
from securefs.middleware.evidence import Evidence
from securefs.middleware.means import Means
from securefs.middleware.opening import may_open, open_file

TEXT = pattern(100_000)
FILES = {1: seal_1(TEXT), 2: seal(TEXT, ring=KEYRING)}
DECLARED = {
    "nothing": lambda store: Policy(),
    "a store": lambda store: Policy(stores=(str(store),)),
    "a protected path": lambda store: Policy(protected_paths=("/files/*",)),
    "another store": lambda store: Policy(stores=(str(store.parent / "another"),)),
}
CASES = list(
    itertools.product(
        DECLARED, ("a request", "a worker"), (True, False), (True, False), (True, False), (1, 2)
    )
)


def permitted(declared, asks, in_store, own, anywhere):
    """Say once more what may be opened."""
    if own and asks == "a request":
        return True
    if anywhere or (in_store and declared == "a store"):
        return True
    return declared == "nothing" and asks == "a worker"


@pytest.fixture
def store(tmp_path):
    for name in ("store", "another"):
        (tmp_path / name).mkdir()
    return tmp_path / "store"


@pytest.mark.parametrize(("declared", "asks", "in_store", "own", "anywhere", "form"), CASES)
def test_what_may_be_opened(declared, asks, in_store, own, anywhere, form, store, journal):
    data = FILES[form]
    means = Means.of(None, KEYRING, journal, DECLARED[declared](store), None)
    evidence = Exchange({}, journal) if asks == "a request" else Evidence(journal)
    if own:
        object_id = claimed_object_id(data) or ""
        evidence.sealed(Upload(object_id, "f", "a.png", "image/png", len(TEXT), "0" * 32), data[-100:])
    if in_store:
        (store / "file").write_bytes(data)
        source = (store / "file").open("rb")
    else:
        source = io.BytesIO(data)
    with source:
        if permitted(declared, asks, in_store, own, anywhere):
            upload = may_open(means, evidence, source, anywhere=anywhere)
            assert (upload is not None) == (own and asks == "a request")
        else:
            with pytest.raises(FormatError) as caught:
                may_open(means, evidence, source, anywhere=anywhere)
            assert caught.value.reason is Reason.UNDECLARED


def test_nothing_of_a_file_that_may_not_be_opened_is_decrypted(store, journal):
    """So that it makes no difference to whoever asks whether it would have opened."""
    means = Means.of(None, KEYRING, journal, Policy(stores=(str(store),)), None)
    messages = set()
    for data in (FILES[2], FILES[2][:-1], FILES[2][:60], FILES[1], b"plaintext"):
        with pytest.raises(FormatError) as caught:
            open_file(means, Evidence(journal), io.BytesIO(data), bytes, None)
        messages.add((str(caught.value), caught.value.reason))
    assert len(messages) == 1
