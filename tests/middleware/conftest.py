from __future__ import annotations

import gc
import warnings

import pytest
from support import frameworks
from support.journals import Evidence
from support.uploads import Lab

from securefs import Keyring


@pytest.fixture(autouse=True)
def no_garbage_of_frameworks(request):
    """Collect what a framework left behind, where it was made.

    Some keep a request, with its temporary files, in a cycle or in a thread's storage. The garbage
    collector would close those files in another test, which would then fail.
    """
    yield
    if frameworks in vars(request.module).values() or hasattr(request.module, "FRAMEWORKS"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        # What survived is in use: the frameworks themselves. Later collections need not look at it.
        gc.freeze()


@pytest.fixture(scope="session")
def keyring():
    return Keyring(bytes(range(32)), [bytes(range(1, 33))])


@pytest.fixture
def journal(tmp_path):
    evidence = Evidence(tmp_path / "audit")
    yield evidence
    evidence.close()


@pytest.fixture
def lab_of(tmp_path):
    labs = []

    def make(app=None, **options):
        folder = tmp_path / str(len(labs))
        folder.mkdir()
        labs.append(Lab(folder, app, **options))
        return labs[-1]

    yield make
    for lab in labs:
        lab.close()
