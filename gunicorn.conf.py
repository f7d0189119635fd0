"""How the reference app is served: `gunicorn` alone, in this folder, starts it. Every value that differs from gunicorn's own says why.

It refuses to start, in one line, where the app refuses its configuration. TLS belongs to a proxy in
front; what that must set, and which limits it should add, is in docs/deployment.md.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter

wsgi_app = "securefs.app:create_app()"

# Loopback unless somebody decides otherwise: what listens on all addresses by default gets exposed
# by accident.
bind = [os.environ.get("SECUREFS_BIND", "127.0.0.1:8000")]

# Threads, not more processes, wait for slow clients; encryption releases Python's lock and uses
# both. One journal chain belongs to each worker, so a few workers with many threads keep the
# evidence short to verify.
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = 16
# Of these, so many may wait for uploads that come slower than they are read: some threads are
# always left for others, however many clients dawdle (Policy.max_waiting).
raw_env = ["SECUREFS_MAX_WAITING=" + os.environ.get("SECUREFS_MAX_WAITING", str(threads - 4))]

# Connections that only wait must not pile up without end: beyond this, new ones wait in the
# kernel's queue.
worker_connections = 200
backlog = 256

# A gthread worker reports from its main thread, so this catches a worker that hangs as a whole,
# never a long upload. How long an upload may take is the middleware's Policy(body_timeout,
# min_rate).
timeout = 60
# A worker that is to stop lets transfers finish for this long. What is cut off after it is removed
# at the next start.
graceful_timeout = 30
# Longer than a browser needs for the next click, shorter than a proxy's own idle time.
keepalive = 5

# A worker ends after so many requests: whatever leaks, leaks for a while only. Not all workers at
# the same moment.
max_requests = 2000
max_requests_jitter = 500

# The app has short paths and few headers. Anything larger is an attack or a mistake, and is refused
# before the app.
limit_request_line = 2048  # bytes
limit_request_fields = 64
limit_request_field_size = 8190  # bytes

# Who may say, by X-Forwarded-Proto, that the client came by https: it decides whether the cookie is
# Secure. Only a proxy on this machine unless named; never "*" where clients can connect directly.
forwarded_allow_ips = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1")
# Headers with underscores could pose as ones that a proxy sets: dropped, as gunicorn does, and here
# so that it stays.
header_map = "drop"
forwarder_headers = "SCRIPT_NAME,PATH_INFO"

# Everything that the server writes (database, temporary files, journal) is its user's alone.
umask = 0o077

# The heartbeat file in memory: on a slow disk its update could block, and the worker would be
# killed for it.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  # gunicorn unlinks the file at once  # nosec B108

# sendfile would go around the middleware, straight from the ciphertext on disk to the client. The
# middleware prevents that itself; this is the second lock on the same door.
sendfile = False

# A socket through which the running server can be commanded, and a kind of worker that runs code by
# name over another: nothing here needs them, and what does not listen can't be attacked.
control_socket_disable = True
dirty_workers = 0
dirty_apps: list[str] = []

# HTTP/1.1 alone: the upload path was measured and attacked with it.
http_protocols = "h1"
http2_cleartext = "off"
proxy_protocol = "off"

# Off: gunicorn's access log holds addresses and query strings, and the journal already has every
# file operation. If it is switched on (--access-logfile -), this format leaves out query, referrer
# and user agent.
accesslog = None
access_log_format = '%(h)s %(t)s "%(m)s %(U)s" %(s)s %(B)s %(L)s'
errorlog = "-"
loglevel = "info"

# Not preload_app: on_starting below loads the app before the first worker, as that would, and ends
# in one line where the app refuses. So keys are read once, a worker that is replaced next week
# can't fail for a file changed since, and memory is shared. The journal knows forks: each worker
# starts a chain of its own, the master has none.
preload_app = False


def on_starting(server: Arbiter) -> None:
    """Load the app in the master; end with one line and exit code 2 where its configuration is refused."""
    from securefs.errors import SecureFSError  # noqa: PLC0415  # the path is set up only when gunicorn starts

    try:
        server.app.wsgi()
    except SecureFSError as error:
        print(f"securefs: {error}", file=sys.stderr)  # noqa: T201  # nothing logs yet
        raise SystemExit(2) from None
