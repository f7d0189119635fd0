"""nginx from Debian's package on a port that the system chose: a file server to compare answers with, or a proxy in front."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.servers import answers, await_start, launch, listening_socket, stopped

_CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {folder}/pid;
{user}
events {{}}
http {{
    access_log off;
    default_type application/octet-stream;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        {settings}
    }}
}}
"""


def program() -> str | None:
    """Return nginx's path, None without it. It lies where only root looks for programs."""
    return shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


@contextmanager
def nginx(root: Path, folder: Path, settings: str = ""):
    """Yield nginx serving the files under ``root``, or as ``settings`` say; end it afterwards by its own process id."""
    command = program()
    if command is None:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    log_file = folder / "nginx.log"
    with listening_socket() as listener:
        port = listener.getsockname()[1]
        # Its workers would else be of a user who may not read a test's files.
        user = "user root;" if os.geteuid() == 0 else ""
        text = _CONFIGURATION.format(folder=folder, root=root, port=port, user=user, settings=settings)
        (folder / "nginx.conf").write_text(text)
        own = ["-c", str(folder / "nginx.conf"), "-e", str(log_file), "-p", str(folder)]
        # The way in which one nginx hands its sockets to the next.
        environ = {"NGINX": f"{listener.fileno()};"}
        server = launch([command, *own], log_file, environ, port, listener)
    with stopped(server):
        await_start(server, lambda: answers(port), "an answer of nginx")
        yield server
