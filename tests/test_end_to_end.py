"""The main job with real programs: curl sends a large file through gunicorn, and gets it back.

The source is a file of random bytes with a canary in it; the data and temporary folders are watched
for the canary while the upload runs, and the worker's own peak of memory (VmHWM) is compared with
what it was when idle.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.journals import all_records
from support.servers import app_environ, curl, gunicorn

SIZE = 1024 * 1024 * 1024  # bytes
STEP = 1024 * 1024
CANARY = b"canary:" + bytes(range(32, 64)) * 2
MEMORY = 40 * 1024  # KiB above idle


def peak_memory(pid: int) -> int:
    """Return the process's largest resident size so far, in KiB."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[1])


def worker_of(server) -> int:
    """Return the process id of the server's one worker."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    (worker,) = children
    return int(worker)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _digest(file)
        )


def _digest(file) -> str:
    digest = hashlib.sha256()
    while data := file.read(STEP):
        digest.update(data)
    return digest.hexdigest()


def open_files(pid: int) -> list[Path]:
    """Return what the process holds open, deleted temporary files included."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(link.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("/") and not target.startswith(("/dev/", "/proc/")):
            found.append(link)
    return found


class Watch(threading.Thread):
    """Looks for the canary in every file under some folders and in every open file of a process, until told to stop."""

    def __init__(self, pid: int, *folders: Path) -> None:
        super().__init__()
        self.pid, self.folders = pid, folders
        self.found: list[str] = []
        self.looked = 0
        self.done = threading.Event()

    def run(self):
        while not self.done.wait(0.2):
            self.look()

    def look(self):
        paths = [path for folder in self.folders for path in folder.rglob("*") if path.is_file()]
        for path in [*paths, *open_files(self.pid)]:
            try:
                with path.open("rb") as file:
                    # The canary stands at the start and the end of the source, so it is at either
                    # end of a copy.
                    head = file.read(STEP)
                    file.seek(max(0, file.seek(0, os.SEEK_END) - STEP))
                    if CANARY in head or CANARY in file.read(STEP):
                        self.found.append(str(path))
                self.looked += 1
            except OSError:
                continue


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "gibibyte.bin"
    block = os.urandom(STEP - len(CANARY))
    with path.open("wb") as file:
        for _ in range(SIZE // STEP):
            file.write(CANARY + block)
    yield path
    path.unlink()


def flip(path: Path, position: int) -> None:
    """Flip one bit of a file; a negative position counts from its end."""
    with path.open("r+b") as file:
        file.seek(position, os.SEEK_END if position < 0 else os.SEEK_SET)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def sign_in(environ) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "securefs", "token", "add", "alice"],
        env=environ,
        capture_output=True,
        check=True,
        text=True,
    )
    return re.search(r"sfs_\w+", done.stdout)[0]


def records(environ) -> list[dict]:
    return all_records(Path(environ["SECUREFS_AUDIT_DIR"]))


@pytest.mark.parametrize("suite", ["aes-256-cbc-hmac-sha256", "aes-256-gcm"])
def test_a_gibibyte_goes_up_and_comes_down(suite, source, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environ = app_environ(tmp_path, SECUREFS_SUITE=suite, TMPDIR=str(temporary), WEB_CONCURRENCY="1")
    bearer = ["--header", f"Authorization: Bearer {sign_in(environ)}"]
    long = ["--max-time", "300"]
    with gunicorn(tmp_path / "log", environ) as server:
        worker = worker_of(server)
        curl(*bearer, f"{server.url}/files")
        small = curl(*bearer, "--form", "files=@/etc/hostname", f"{server.url}/files")
        assert small.status == 201
        idle = peak_memory(worker)

        watch = Watch(worker, tmp_path / "data", temporary)
        watch.start()
        try:
            answer = curl(*bearer, *long, "--form", f"files=@{source}", f"{server.url}/files")
        finally:
            watch.done.set()
            watch.join()
        watch.look()
        assert answer.status == 201, server.log
        assert watch.looked > 0
        assert watch.found == []
        up = peak_memory(worker) - idle

        url = f"{server.url}/files/{answer.json()['files'][0]['id']}"
        target = tmp_path / "back.bin"
        assert curl(*bearer, *long, "--output", str(target), url).status == 200
        assert sha256(target) == sha256(source)
        down = peak_memory(worker) - idle
        print(f"{suite}: worker {idle} KiB idle, {up} KiB more after upload, {down} KiB more after download")
        assert up < MEMORY
        assert down < MEMORY
        target.unlink()

        (stored,) = [path for path in (tmp_path / "data").rglob("*.enc") if path.stat().st_size > SIZE]
        flip(stored, -10)
        # The last segment is verified first, so even a file too long to be verified whole is a
        # clean 500 here.
        broken = curl(*bearer, *long, url)
        assert broken.status == 500
        assert broken.header("content-type") == "application/problem+json"
        assert len(broken.body) < 300
        flip(stored, -10)
        flip(stored, SIZE // 2)
        # In its middle the transfer has begun: it is broken off, and curl says so (18: partial
        # file).
        cut = subprocess.run(
            ["curl", "--silent", "--noproxy", "*", *bearer, *long, "--output", str(target), url], check=False
        )
        assert cut.returncode == 18
        assert target.stat().st_size <= SIZE // 2
        target.unlink()
        stored.unlink()
    failures = [line for line in records(environ) if line["event"] == "file.integrity_failure"]
    assert [line["reason"] for line in failures] == ["tag_mismatch"] * 2
    verdict = subprocess.run(
        [sys.executable, "-m", "securefs", "audit", "verify", environ["SECUREFS_AUDIT_DIR"]],
        env=environ,
        capture_output=True,
        check=False,
    )
    assert verdict.returncode == 3, verdict.stdout
