"""``securefs metrics``: an endpoint for Prometheus, on this machine alone.

It adds up what the workers of a server counted, and computes how much of the journal is sealed.
Refuses: an address that other machines can reach, and requests that a browser sends for another
site, whose name leads to this machine (DNS rebinding).
"""

from __future__ import annotations

import io
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from securefs.audit.figures import LogFigures
from securefs.cli.counters import fold
from securefs.cli.loopback import METRICS_VARIABLE, is_loopback, parse_address
from securefs.cli.terminal import DONE, complain
from securefs.disk import explain
from securefs.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

    from prometheus_client import Metric

__all__ = ["LogCollector", "WorkerCollector", "registry_of", "run"]

FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
PATH: Final = "/metrics"
PATIENCE: Final = 5.0  # seconds that a client may take for its request
RETRY: Final = 1.0  # seconds until an address that is in use is tried again
_STDIN: Final = 0  # descriptor


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM; with ``--stdin``, until standard input ends."""
    text = arguments.listen or os.environ.get(METRICS_VARIABLE)
    if not text:
        raise ConfigurationError(
            f"name an address with --listen, such as 127.0.0.1:9464, or set {METRICS_VARIABLE}"
        )
    address = parse_address(text)
    registry = registry_of(
        os.environ.get(FOLDER_VARIABLE),
        arguments.directory or os.environ.get("SECUREFS_AUDIT_DIR"),
        arguments.log or os.environ.get("SECUREFS_AUDIT_LOG"),
    )
    ended = threading.Event()
    if arguments.stdin:
        threading.Thread(target=_await_end, args=(ended,), daemon=True).start()
    server = _listen(address, registry, ended)
    if server is not None:
        with server:
            complain(f"metrics on http://{server.name}{PATH}")
            while not ended.is_set():
                server.handle_request()
    return DONE


def registry_of(folder: str | None, journal: str | None, log: str | None) -> CollectorRegistry:
    """Return what is to be served.

    :param folder: of the counters of worker processes. :param journal: the journal's folder.
    :param log: the log's folder, if it is not in the journal's.
    :raises ConfigurationError: there is nothing to serve.
    """
    registry = CollectorRegistry()
    if not folder and not journal:
        raise ConfigurationError(
            f"there is nothing to serve: set {FOLDER_VARIABLE}, SECUREFS_AUDIT_DIR, or both"
        )
    if folder:
        if not os.path.isdir(folder):  # noqa: PTH112  # a question about the text
            raise ConfigurationError(f"{FOLDER_VARIABLE}: there is no folder {folder!a}")
        registry.register(WorkerCollector(Path(folder)))
    if journal:
        registry.register(LogCollector(Path(journal), Path(log) if log else Path(journal, "log")))
    return registry


class WorkerCollector:
    """What all workers counted, those that ended included.

    :param folder: the ``PROMETHEUS_MULTIPROC_DIR`` of the workers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of now."""
        fold(self._folder)
        collector = MultiProcessCollector(None, str(self._folder))  # type: ignore[no-untyped-call]
        found: Iterable[Metric] = collector.collect()  # type: ignore[no-untyped-call]
        return found

    def describe(self) -> Iterable[Metric]:
        """Return no names: they are not known before they are read."""
        return ()


class LogCollector:
    """How much of a journal is sealed.

    :param journal, log: as for :class:`securefs.audit.figures.LogFigures`.
    """

    def __init__(self, journal: Path, log: Path) -> None:
        self._figures = LogFigures(journal, log)

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of now; of a journal that can't be read, only that it can't."""
        try:
            figures = self._figures.read()
        except OSError:
            figures = None
        yield GaugeMetricFamily(
            "securefs_journal_readable",
            "Whether the journal and its log could be read for the figures below.",
            value=int(figures is not None),
        )
        if figures is not None:
            yield GaugeMetricFamily(
                "securefs_journal_unsealed_records",
                "Records that are not in the sealed log.",
                figures.unsealed,
            )
            yield GaugeMetricFamily(
                "securefs_journal_checkpoint_timestamp_seconds",
                "When the newest checkpoint was written, 0 if none was.",
                figures.checkpoint,
            )

    def describe(self) -> Iterable[Metric]:
        """Return no names, so that the journal is not read before it is asked for."""
        return ()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a client that dawdles keeps nobody waiting
    timeout = 0.5  # seconds until it is looked again whether the input ended

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.registry = registry
        self.one = threading.Lock()  # at a time reads the files
        super().__init__(address, _Handler)

    @property
    def name(self) -> str:
        """The address, as in a URL."""
        host, port = self.server_address[:2]
        return f"[{host!s}]:{port}" if self.address_family == socket.AF_INET6 else f"{host!s}:{port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = PATIENCE
    server_version = "securefs"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer a request for the metrics."""
        if not is_loopback(self.headers.get("Host", "")):
            self.send_error(403, "Forbidden", "The Host header names no loopback address.")
        elif self.path.partition("?")[0] != PATH:
            self.send_error(404, "Not Found", f"The metrics are under {PATH}.")
        else:
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            with self.server.one:
                body = encode(self.server.registry)
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing: a request every few seconds says nothing."""


def _listen(address: tuple[str, int], registry: CollectorRegistry, ended: threading.Event) -> _Server | None:
    """Return a server, once the address is free; None if that is no longer of use."""
    told = False
    while not ended.is_set():
        try:
            return _Server(address, registry)
        except OSError as error:  # noqa: PERF203  # a loop of waiting
            # Perhaps the server that this one takes over from still has it.
            if not told:
                complain(
                    f"no metrics yet: {METRICS_VARIABLE}: {explain(error)}; trying again until it is free"
                )
            told = True
            ended.wait(RETRY)
    return None


def _await_end(ended: threading.Event) -> None:
    # Without a buffer, whose lock would keep this process from ending. Nobody writes to it.
    io.FileIO(_STDIN, closefd=False).readall()
    ended.set()
