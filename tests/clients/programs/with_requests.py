"""requests, which sends a form whole."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import requests
from job import run


def send(case):
    if case.mode != "plain":
        return None
    with ExitStack() as opened:
        parts = [
            (field, (name, opened.enter_context(Path(path).open("rb")))) for field, path, name in case.files
        ]
        parts += [(name, (None, value, kind)) for name, value, kind in case.fields if kind]
        data = {name: value for name, value, kind in case.fields if not kind}
        return requests.post(case.url, data=data, files=parts, timeout=60).status_code


def fetch(url):
    answer = requests.get(url, timeout=60)
    return answer.status_code, answer.content


run(requests.__version__, send, fetch)
