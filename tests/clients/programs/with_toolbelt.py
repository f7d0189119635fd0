"""requests-toolbelt: a form that is read from its files while it is sent, in chunks if it is given as an iterator."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import requests
import requests_toolbelt
from job import run
from requests_toolbelt import MultipartEncoder


def send(case):
    if case.mode == "expect":
        return None
    with ExitStack() as opened:
        parts = [
            (field, (name, opened.enter_context(Path(path).open("rb")))) for field, path, name in case.files
        ]
        parts += [(name, (None, value, kind) if kind else value) for name, value, kind in case.fields]
        form = MultipartEncoder(fields=parts)
        data = iter(lambda: form.read(65536), b"") if case.mode == "stream" else form
        headers = {"Content-Type": form.content_type}
        return requests.post(case.url, data=data, headers=headers, timeout=60).status_code


def fetch(url):
    answer = requests.get(url, timeout=60)
    return answer.status_code, answer.content


run(requests_toolbelt.__version__, send, fetch)
