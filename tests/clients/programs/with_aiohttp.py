"""aiohttp, which sends a form in chunks if a file in it is an asynchronous generator."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import aiohttp
from job import run


async def pieces(file):
    while data := file.read(65536):
        yield data


async def post(case):
    form = aiohttp.FormData()
    expect = case.mode == "expect"
    with ExitStack() as opened:
        for field, path, name in case.files:
            file = opened.enter_context(Path(path).open("rb"))  # noqa: ASYNC230  # nothing else waits
            form.add_field(field, pieces(file) if case.mode == "stream" else file, filename=name)
        for name, value, kind in case.fields:
            form.add_field(name, value, content_type=kind or None)
        async with (
            aiohttp.ClientSession() as session,
            session.post(case.url, data=form, expect100=expect) as answer,
        ):
            return answer.status


async def get(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.read()


run(aiohttp.__version__, lambda case: asyncio.run(post(case)), lambda url: asyncio.run(get(url)))
