"""urllib3, that of the environment or the one in the folder that is named first."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

if len(sys.argv) > 2:
    sys.path.insert(0, sys.argv[1])
    warnings.simplefilter("ignore")  # what a later Python says of it
import urllib3
from job import run

pool = urllib3.PoolManager()


def send(case):
    if case.mode != "plain":
        return None
    fields = [(field, (name, Path(path).read_bytes())) for field, path, name in case.files]
    fields += [(name, (None, value, kind) if kind else value) for name, value, kind in case.fields]
    return pool.request("POST", case.url, fields=fields).status


def fetch(url):
    answer = pool.request("GET", url)
    return answer.status, answer.data


run(urllib3.__version__, send, fetch)
