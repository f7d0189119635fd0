"""Memory that stays in its process, as far as the platform lets it."""

import json
import os
import resource
import sys

import pytest
from support.journals import run_script

from securefs.audit import confine

CODE = """
import json, os, resource, sys
from securefs.audit.confine import confine
limit, user = int(sys.argv[1]), int(sys.argv[2])
if limit >= 0:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
if user:
    os.seteuid(user)
missing = confine()
os.seteuid(0)
locked = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmLck")]
print(json.dumps([missing, locked, resource.getrlimit(resource.RLIMIT_CORE), os.stat("/proc/self/mem").st_uid]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="says that it does nothing elsewhere")
def test_no_core_no_reader_and_no_swap():
    if os.geteuid():
        pytest.skip("needs root to lock memory and to become nobody")
    missing, (locked,), core, _ = json.loads(run_script(CODE, -1, 0)[0])
    assert (missing, core) == ([], [0, 0])
    assert int(locked) > 0


@pytest.mark.skipif(sys.platform != "linux", reason="says that it does nothing elsewhere")
def test_a_user_whose_limit_is_too_low_is_told():
    """Locking some memory would let a later allocation fail: then nothing is locked."""
    if os.geteuid():
        pytest.skip("needs root to become nobody")
    missing, (locked,), core, owner = json.loads(run_script(CODE, 65536, 65534)[0])
    assert core == [0, 0]
    assert locked == "0"
    assert "LimitMEMLOCK" in missing[0]
    # What belongs to root is closed to other processes of this user.
    assert owner == 0


@pytest.mark.parametrize(
    ("hard", "user", "may"),
    [
        (resource.RLIM_INFINITY, 1000, True),
        (65536, 1000, False),
        (65536, 0, True),
    ],
)
def test_memory_is_locked_only_if_all_of_it_may_be(monkeypatch, hard, user, may):
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (65536, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: raised.append(limits))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert confine._may_lock() is may
    assert raised == ([(hard, hard)] if hard == resource.RLIM_INFINITY else [])
