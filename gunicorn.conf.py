"""gunicorn settings of the reference app: `gunicorn` alone, in this folder, starts it.

Every value that differs from gunicorn's default has its reason beside it. If the app refuses its
configuration, the server does not start and says why in one line. SIGHUP reads the keys anew; if
the app refuses them, the server goes on with the old ones and says so. TLS is the job of a proxy in
front; docs/deployment.md says what the proxy must set, and which limits it should add.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter
    from gunicorn.workers.base import Worker


def _refuse(message: str) -> NoReturn:
    print(f"securefs: {message}", file=sys.stderr)  # noqa: T201  # nothing logs yet
    raise SystemExit(2) from None


if find_spec("Crypto") is None:
    _refuse("pycryptodome is not installed: run pip install 'securefs[server]'")

# create_app, with an error in one line also for `gunicorn --check-config`.
wsgi_app = "securefs.app:serve()"

# Loopback by default: a server that listens on all addresses by default gets exposed by accident.
bind = [os.environ.get("SECUREFS_BIND", "127.0.0.1:8000")]

# Threads, not more processes, wait for slow clients; encryption releases Python's global lock and
# uses both. Each worker has a journal chain of its own, so a few workers with many threads keep the
# journal quick to verify.
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))  # gunicorn itself refuses what is no number
if workers < 1:
    _refuse("WEB_CONCURRENCY: without a worker nobody is served: set it to 1 or more, or unset it")
threads = 16
# The number of threads that may wait for uploads that arrive slower than they are read. The other
# threads stay free, however many clients are slow (Policy.max_waiting).
raw_env = ["SECUREFS_MAX_WAITING=" + os.environ.get("SECUREFS_MAX_WAITING", str(threads - 4))]

# A bound on connections that only wait: beyond it, new ones wait in the kernel's queue.
worker_connections = 200
backlog = 256

# A gthread worker reports from its main thread, so this timeout catches a worker that hangs as a
# whole, never a long upload. The middleware's Policy(body_timeout, min_rate) bounds the duration of
# an upload.
timeout = 60
# A stopping worker lets transfers finish for this long. Partial files of transfers that are aborted
# after it are removed at the next start.
graceful_timeout = 30
# Longer than a browser needs for the next click, shorter than a proxy's own idle time.
keepalive = 5

# A worker ends after this number of requests, so that a leak stays small. The jitter keeps workers
# from ending at the same moment.
max_requests = 2000
max_requests_jitter = 500

# The app has short paths and few headers. Anything larger is an attack or a mistake, and is refused
# before it reaches the app.
limit_request_line = 2048  # bytes
limit_request_fields = 64
limit_request_field_size = 8190  # bytes

# The proxies whose X-Forwarded-Proto is trusted: it decides whether the cookie is Secure. Only a
# proxy on this machine unless set; never "*" if clients can connect directly.
forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1")
# Headers with underscores could pose as headers that a proxy sets, so they are dropped. That is
# gunicorn's default; stated here so that it stays.
header_map = "drop"
# gunicorn lets peers in forwarded_allow_ips set these two by headers: by default every client on
# this machine, and those whose headers a proxy passes on. Who names SCRIPT_NAME chooses which part
# of a path the app routes by, so nobody may. The environment variable SCRIPT_NAME mounts the app.
forwarder_headers = ""

# Only the server's user can access what it writes (database, temporary files, journal).
umask = 0o077

# The heartbeat file is kept in memory: on a slow disk its update could block, and the worker would
# be killed for it. gunicorn unlinks the file at once, so the fixed folder is safe.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # nosec B108

# sendfile would bypass the middleware and send the ciphertext on disk to the client. The middleware
# prevents that itself; this setting is a second safeguard.
sendfile = False

# A socket for commands to the running server, and a kind of worker that runs code by name over
# another socket: nothing here needs them, and a socket that is not open can't be attacked.
control_socket_disable = True
dirty_workers = 0
dirty_apps: list[str] = []

# HTTP/1.1 only: the upload path was measured and attacked with it.
http_protocols = "h1"
http2_cleartext = "off"
proxy_protocol = "off"

# Off: gunicorn's access log holds addresses and query strings, and the journal already has every
# file operation. If it is switched on (--access-logfile -), this format omits query, referrer and
# user agent.
accesslog = None
access_log_format = '%(h)s %(t)s "%(m)s %(U)s" %(s)s %(B)s %(L)s'
errorlog = "-"
loglevel = "info"

# Not preload_app: on_starting below also loads the app before the first worker, and ends with one
# line if the app refuses its configuration. So keys are read at start and on SIGHUP only, a worker
# that is replaced next week can't fail because a file changed since, and memory is shared. The
# journal handles forks: each worker starts a chain of its own, and the master has none.
preload_app = False


def on_starting(server: Arbiter) -> None:
    """Load the app in the master; exit with one line and code 2 if it refuses its configuration.

    Before that, make the folder in which the workers count, if SECUREFS_METRICS is set.
    """
    # Imported here, because the path is set up only when gunicorn starts.
    from securefs.cli import exporter  # noqa: PLC0415
    from securefs.errors import SecureFSError  # noqa: PLC0415

    metrics = None
    try:
        if "SECUREFS_METRICS" in os.environ:
            metrics = exporter.prepare(os.environ, user=server.cfg.uid, group=server.cfg.gid)
            server.securefs_metrics = metrics
        server.app.wsgi()
    except (SecureFSError, SystemExit) as error:
        if metrics is not None:
            metrics.stop()
        if isinstance(error, SystemExit):
            raise
        _refuse(str(error))


def when_ready(server: Arbiter) -> None:
    """Start the sealer of the journal beside the workers, unless SECUREFS_AUDIT_SEAL is off.

    It is a process of its own that nobody waits for: if it dies, the server goes on, the log says
    so, and it is started again. The endpoint of SECUREFS_METRICS is another one.
    """
    from securefs.cli import beside  # noqa: PLC0415
    from securefs.errors import SecureFSError  # noqa: PLC0415

    try:
        server.securefs_sealer = beside.start(
            os.environ, lambda text: server.log.warning("securefs: %s", text), user=server.cfg.uid
        )
    except SecureFSError as error:
        _refuse(str(error))
    if (metrics := getattr(server, "securefs_metrics", None)) is not None:
        try:
            metrics.start()
        except OSError as error:
            server.log.warning("securefs: no metrics: the endpoint can't be started: %s", error)


def child_exit(server: Arbiter, worker: Worker) -> None:
    """Have what an ended worker counted added to the totals."""
    if (metrics := getattr(server, "securefs_metrics", None)) is not None:
        metrics.ended(worker.pid)


def on_exit(server: Arbiter) -> None:
    """Let the sealer seal what the workers wrote last, and end; end the endpoint of the metrics."""
    if (metrics := getattr(server, "securefs_metrics", None)) is not None:
        metrics.stop()
    sealer = getattr(server, "securefs_sealer", None)
    if sealer is not None and not sealer.stop():
        server.log.warning("securefs: the sealer still runs; it ends when no worker is left")


def on_reload(server: Arbiter) -> None:
    """Load the app anew on SIGHUP, so that the next workers have the keys that key files hold now.

    If that fails, they get the app that served until now, and the log says why. The environment of
    a running process does not change, so keys in variables are the old ones; so is code that is
    imported already.
    """
    from securefs.app import create_app  # noqa: PLC0415

    old = server.app.wsgi()
    try:
        new = create_app() if server.app.app_uri == wsgi_app else server.app.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001  # of any app
        # One line, no traceback: what an app says of its configuration is for the operator.
        server.log.error("securefs: not reloaded, the old keys stay in use: %s", error)  # noqa: TRY400
        return
    server.app.callable = new
    before, now = getattr(old, "key_ids", None), getattr(new, "key_ids", None)
    if new is old or now is None:
        server.log.info("securefs: reloaded; whether the app read its keys anew is not known")
    elif now == before:
        server.log.info(
            "securefs: reloaded; the keys are unchanged, files are sealed under key %s", now[0].hex()
        )
    else:
        server.log.warning(
            "securefs: reloaded; the keys changed, files are sealed under key %s", now[0].hex()
        )
