"""curl -F, which escapes what it is told to send and reads what it is told with escapes of its own."""

from __future__ import annotations

import subprocess

from job import run

CURL = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "60"]


def quoted(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def curl(*arguments):
    return subprocess.run([*CURL, *arguments], check=True, capture_output=True).stdout


def send(case):
    arguments = ["--output", "/dev/null", "--write-out", "%{http_code}"]
    arguments += {
        "stream": ["--header", "Transfer-Encoding: chunked"],
        "expect": ["--header", "Expect: 100-continue"],
        "plain": [],
    }[case.mode]
    for field, path, name in case.files:
        arguments += ["--form", f"{field}=@{quoted(path)};filename={quoted(name)}"]
    for name, value, kind in case.fields:
        # Without quotes a field's value would end at its first semicolon.
        arguments += ["--form", f"{name}={quoted(value)}" + (f";type={kind}" if kind else "")]
    return int(curl(*arguments, case.url))


def fetch(url):
    return 200, curl("--fail", url)


run(curl("--version").split()[1].decode(), send, fetch)
