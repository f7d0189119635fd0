"""Workers open and seal with the settings of the server, in processes of their own; what one lacks, it is told."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
from support.journals import ROOT, all_records
from support.sealing import KEY, OTHER_KEY, pattern, seal
from support.servers import await_start, launch, stopped

from securefs import Keyring
from securefs.header import claimed_object_id

TEXT = pattern(300_000)
STORED = seal(TEXT)
ID = claimed_object_id(STORED)
TASKS = """
from securefs.middleware import Vault

vault = Vault.from_env()


def copy(path, object_id):
    with vault.open(path, object_id=object_id) as file, vault.seal(file, name="copy") as made:
        made.save(path + ".copy")
    return made.object_id
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "file").write_bytes(STORED)
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


def environment(folder, **changed):
    own = {
        "FILE_KEY_BASE64": base64.b64encode(KEY).decode(),
        "SECUREFS_STORES": str(folder / "store"),
        "SECUREFS_AUDIT_DIR": str(folder / "audit"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
    }
    return {name: text for name, text in {**os.environ, **own, **changed}.items() if text is not None}


def script(folder, code, **changed):
    """Run a plain script as a worker; return what it printed, errors behind the rest."""
    command = [sys.executable, "-c", code]
    environ = environment(folder, **changed)
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


COPY = f"import tasks; print(tasks.copy('store/file', '{ID}'))"


def test_a_script_opens_and_seals(folder):
    object_id = script(folder, COPY).strip()
    assert claimed_object_id((folder / "store" / "file.copy").read_bytes()) == object_id
    told = [(record["event"], record["outcome"]) for record in all_records(folder / "audit")]
    assert told == [
        ("server.start", "success"),
        ("file.open", "success"),
        ("file.encrypt", "started"),
        ("file.encrypt", "success"),
    ]


ANOTHER = base64.b64encode(OTHER_KEY).decode()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"FILE_KEY_BASE64": None}, "ConfigurationError: FILE_KEY_BASE64 is not set"),
        ({"FILE_KEY_BASE64": ANOTHER}, "if it is a key of yours, add it to FILE_KEY_BASE64_PREVIOUS"),
        ({"SECUREFS_STORES": "/usr"}, "store/file: it is in no declared store"),
        ({"SECUREFS_STORES": "/nowhere"}, "stores (SECUREFS_STORES) names /nowhere, which is no folder"),
        ({"SECUREFS_AUDIT_DIR": "/nowhere/audit"}, "SECUREFS_AUDIT_DIR"),
    ],
    ids=["no key", "another key", "another store", "no store", "no journal"],
)
def test_a_worker_that_lacks_something_is_told(changed, message, folder):
    printed = script(folder, COPY, **changed)
    assert message in printed.splitlines()[-1]
    assert not (folder / "store" / "file.copy").exists()


def test_a_retired_key_still_opens_in_a_worker(folder):
    previous = {"FILE_KEY_BASE64": ANOTHER, "FILE_KEY_BASE64_PREVIOUS": base64.b64encode(KEY).decode()}
    object_id = script(folder, COPY, **previous).strip()
    stored = (folder / "store" / "file.copy").read_bytes()
    assert claimed_object_id(stored) == object_id
    assert Keyring(OTHER_KEY).primary_id in stored


def test_forked_workers_share_a_vault_and_no_chain(folder):
    """As workers of Celery, RQ and gunicorn do, where the tasks were imported before the fork."""
    code = f"""
import os, tasks
tasks.vault.open("store/file").close()
children = []
for number in range(2):
    child = os.fork()
    if not child:
        with tasks.vault.open("store/file", object_id="{ID}") as file:
            os._exit(len(file.read()) != {len(TEXT)})
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
"""
    assert script(folder, code) == "[0, 0]\n"
    records = all_records(folder / "audit")
    assert len({record["chain"] for record in records if record["event"] == "file.open"}) == 3


@contextmanager
def redis(folder):
    """Yield the URL of a Redis of this test, which listens on a socket file alone."""
    program = shutil.which("redis-server")
    if program is None or find_spec("rq") is None:
        pytest.skip("redis-server (Debian: redis-server) or rq is not installed")
    socket = folder / "redis"
    command = [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    with stopped(launch(command, folder / "redis.log")) as server:
        await_start(server, socket.exists, "Redis's socket")
        yield f"unix://{socket}"


QUEUE = """
import sys
from redis import Redis
from rq import Queue, Worker

connection = Redis.from_url(sys.argv[1])
queue = Queue("files", connection=connection)
jobs = [queue.enqueue("tasks.copy", "store/file", each) for each in sys.argv[2:]]
Worker([queue], connection=connection).work(burst=True, logging_level="ERROR")
for job in jobs:
    print(job.get_status().value, job.return_value() or job.latest_result().exc_string.splitlines()[-1])
"""


def test_a_worker_of_rq_opens_and_seals(folder):
    with redis(folder) as url:
        command = [sys.executable, "-c", QUEUE, url, ID, "0" * 64]
        done = subprocess.run(
            command, env=environment(folder), cwd=folder, capture_output=True, text=True, check=False
        )
    stored = claimed_object_id((folder / "store" / "file.copy").read_bytes())
    first, second = done.stdout.splitlines()
    assert first == f"finished {stored}", done.stderr
    assert second.startswith("failed ")
    assert "store/file: the file is not the one that was asked for" in second
    told = [(record["event"], record["outcome"]) for record in all_records(folder / "audit")]
    assert told.count(("file.open", "success")) == 1
    assert told.count(("file.integrity_failure", "failure")) == 1
