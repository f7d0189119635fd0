"""The server's configuration: what gunicorn makes of it, and how it refuses to start."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from gunicorn.app.wsgiapp import WSGIApplication
from prometheus_client.parser import text_string_to_metric_families
from support.sealed import all_sealed, read_sealed
from support.servers import (
    DEADLINE,
    ROOT,
    app_environ,
    await_start,
    curl,
    gunicorn,
    launch,
    multipart,
    wait_until,
)

from securefs import ConfigurationError, Keyring, verify
from securefs.app import create_app
from securefs.app.database import open_database
from securefs.app.tokens import Tokens
from securefs.keys import generate_key

# Runs gunicorn as if a package, which the first argument names, were not installed.
WITHOUT_A_PACKAGE = """
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
missing = sys.argv.pop(1)
class Missing(MetaPathFinder):
    find_spec = staticmethod(lambda name, path=None, target=None: None if name == missing else PathFinder.find_spec(name, path, target))
sys.meta_path = [finder for finder in sys.meta_path if finder is not PathFinder] + [Missing]
from gunicorn.app.wsgiapp import run
run("gunicorn")
"""


def ring(text):
    return Keyring(base64.b64decode(text))


def id_of(text):
    return ring(text).primary_id.hex()


@pytest.fixture
def config(monkeypatch):
    """Return the configuration as gunicorn reads it."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["gunicorn"])
    return WSGIApplication().cfg


def settings():
    """Return the names that the file sets."""
    text = (ROOT / "gunicorn.conf.py").read_text("utf-8")
    return re.findall(r"^([a-z][a-z_0-9]*)(?:: [^=]+)? =", text, re.MULTILINE)


def test_the_shipped_file_is_the_one_in_the_repository():
    shipped = ROOT / "securefs" / "gunicorn.conf.py"
    assert shipped.samefile(ROOT / "gunicorn.conf.py")


def test_every_name_is_a_setting_of_gunicorn(config):
    """A misspelt name would be ignored without a word."""
    assert settings()
    assert [name for name in settings() if name not in config.settings] == []


def test_what_matters_for_security_is_set(config):
    assert config.bind == ["127.0.0.1:8000"]
    assert config.wsgi_app == "securefs.app:serve()"
    assert config.worker_class_str == "gthread"
    assert config.umask == 0o077
    assert config.sendfile is False
    assert config.control_socket_disable is True
    assert (config.dirty_workers, config.dirty_apps) == (0, [])
    assert config.forwarded_allow_ips == ["127.0.0.1", "::1"]
    assert (config.forwarder_headers, config.header_map) == ([], "drop")
    assert config.accesslog is None
    assert not re.search(r"%\(([rqfa])\)s", config.access_log_format)
    assert config.limit_request_line <= 4094
    assert config.limit_request_fields <= 100
    assert config.max_requests_jitter > 0
    assert not config.preload_app


def test_the_addresses_come_from_the_environment(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["gunicorn"])
    monkeypatch.setenv("SECUREFS_BIND", "127.0.0.1:9")
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.1")
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    config = WSGIApplication().cfg
    assert (config.bind, config.forwarded_allow_ips, config.workers) == (["127.0.0.1:9"], ["10.0.0.1"], 3)


def metrics_of(port):
    reply = curl(f"http://127.0.0.1:{port}/metrics")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }


def test_the_workers_count_together_and_lose_nothing_when_they_are_replaced(tmp_path):
    environ = app_environ(tmp_path, SECUREFS_METRICS="127.0.0.1:0", TMPDIR=str(tmp_path), WEB_CONCURRENCY="2")
    log = tmp_path / "log"
    # Each worker ends after some requests.
    with gunicorn(log, environ, "--max-requests", "5", "--max-requests-jitter", "3") as server:
        found = wait_until(
            lambda: re.search(r"metrics on http://127\.0\.0\.1:(\d+)/metrics", server.log), "the endpoint"
        )
        token = Tokens(open_database(tmp_path / "data")).issue("alice").secret
        body, kind = multipart([("a.txt", b"x" * 1000)])
        for _ in range(30):
            headers = ["-H", f"Authorization: Bearer {token}", "-H", f"Content-Type: {kind}"]
            reply = curl(*headers, "--data-binary", "@-", f"{server.url}/files", data=body)
            assert reply.status == 201
        path = reply.json()["files"][0]["url"]
        assert curl("-H", f"Authorization: Bearer {token}", f"{server.url}{path}").body == b"x" * 1000
        assert curl(f"{server.url}/files").status == 401
        assert server.log.count("Autorestarting worker") >= 2
        values = metrics_of(found[1])
        assert values["securefs_operations_total", "file.encrypt", "success"] == 30
        assert values["securefs_operations_total", "request.answered", "success"] == 30
        assert values["securefs_operations_total", "auth.denied", "failure"] == 1
        assert values["securefs_failures_total", "auth.denied", "none"] == 1
        assert values["securefs_upload_bytes_total",] == 30_000
        assert values["securefs_download_bytes_total",] == 1000
        assert values["securefs_journal_unsealed_records",] > 90
        (folder,) = tmp_path.glob("securefs-metrics-*")
        ended = [path for path in folder.glob("counter_*") if path.name != "counter_total.db"]
        assert len(ended) <= 2 + 1 + 2  # the workers, the master, and what ended just now
    assert not folder.exists()


def test_what_the_journal_loses_is_counted(tmp_path):
    environ = app_environ(tmp_path, SECUREFS_METRICS="127.0.0.1:0", TMPDIR=str(tmp_path))
    with gunicorn(tmp_path / "log", environ) as server:
        found = wait_until(
            lambda: re.search(r"metrics on http://127\.0\.0\.1:(\d+)/metrics", server.log), "the endpoint"
        )
        (tmp_path / "journal").rename(tmp_path / "away")
        for _ in range(3):
            assert (
                curl("--data", "token=x", "-H", "Sec-Fetch-Site: same-origin", f"{server.url}/login").status
                == 503
            )
        values = metrics_of(found[1])
        assert values["securefs_journal_lost_records_total",] == 3
        assert 1 <= values["securefs_journal_outages_total",] <= 2
        assert values["securefs_journal_readable",] == 0
        (tmp_path / "away").rename(tmp_path / "journal")


def test_an_endpoint_that_cannot_be_started_is_told_and_the_server_goes_on(config, monkeypatch):
    def refuse():
        raise PermissionError(13, "Permission denied", "python")

    told = []
    log = SimpleNamespace(warning=lambda text, *values: told.append(text % values))
    server = SimpleNamespace(cfg=config, log=log, securefs_metrics=SimpleNamespace(start=refuse))
    monkeypatch.setenv("SECUREFS_AUDIT_SEAL", "off")
    config.when_ready(server)
    assert told == [
        "securefs: no metrics: the endpoint can't be started: [Errno 13] Permission denied: 'python'"
    ]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        pytest.param(
            {"SECUREFS_METRICS": "0.0.0.0:9464"}, "SECUREFS_METRICS is '0.0.0.0:9464'", id="address"
        ),
        pytest.param(
            {"SECUREFS_METRICS": "127.0.0.1:0", "SECUREFS_FORMAT": "1"}, "SECUREFS_FORMAT", id="app"
        ),
    ],
)
def test_a_server_that_does_not_start_leaves_no_folder_of_counters(tmp_path, variables, said):
    environ = app_environ(tmp_path, TMPDIR=str(tmp_path), **variables)
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--config",
        str(ROOT / "gunicorn.conf.py"),
        "--bind",
        "127.0.0.1:0",
    ]
    done = subprocess.run(
        command, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert f"securefs: {said}" in done.stderr
    assert list(tmp_path.glob("securefs-metrics-*")) == []


def test_an_app_that_refuses_to_start_ends_the_server_with_one_line(config, capsys):
    def refuse():
        raise ConfigurationError("FILE_KEY_BASE64 is not set")

    with pytest.raises(SystemExit) as end:
        config.on_starting(SimpleNamespace(app=SimpleNamespace(wsgi=refuse)))
    assert end.value.code == 2
    assert capsys.readouterr().err == "securefs: FILE_KEY_BASE64 is not set\n"
    config.on_starting(SimpleNamespace(app=SimpleNamespace(wsgi=lambda: None)))


def test_gunicorn_alone_in_the_checkout_starts_the_app_and_nothing_else_listens(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    environ = app_environ(tmp_path, SECUREFS_BIND="127.0.0.1:0", HOME=str(home), XDG_RUNTIME_DIR=str(home))
    del environ["PYTHONPATH"]
    server = launch([sys.executable, "-m", "gunicorn"], tmp_path / "log", environ, cwd=ROOT)
    try:
        pattern = r"Listening at: http://127\.0\.0\.1:(\d+)"
        server.port = int(await_start(server, lambda: re.search(pattern, server.log), "the address")[1])
        assert curl(f"{server.url}/readyz").json() == {"status": "ok", "failed": []}
        assert curl(f"{server.url}/?secret=in-the-query").status == 200
    finally:
        code = server.stop()
    assert code == 0
    assert list(home.iterdir()) == []
    assert "in-the-query" not in server.log


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        pytest.param(
            {"FILE_KEY_BASE64": "c2hvcnQ="}, "both FILE_KEY_BASE64 and FILE_KEY_BASE64_FILE are set", id="two"
        ),
        pytest.param(
            {"SECUREFS_DATA_DIR": "/nonexistent/x"},
            "SECUREFS_DATA_DIR: cannot use /nonexistent/x",
            id="folder",
        ),
    ],
)
def test_a_bad_configuration_is_one_line_without_a_traceback(tmp_path, variables, line):
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--log-level", "error"],
        cwd=ROOT,
        env=app_environ(tmp_path, **variables),
        capture_output=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode == 2
    assert done.stderr.decode().startswith(f"securefs: {line}")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("arguments", [["--check-config"], ["--bind", "127.0.0.1:0"]], ids=["check", "start"])
@pytest.mark.parametrize(
    ("variables", "line"),
    [
        pytest.param({"FILE_KEY_BASE64_FILE": "/nonexistent/key"}, "FILE_KEY_BASE64_FILE: cannot", id="key"),
        pytest.param({"SECUREFS_DATA_DIR": "/proc/x"}, "SECUREFS_DATA_DIR: cannot use /proc/x", id="data"),
        pytest.param({"SECUREFS_AUDIT_DIR": "/proc/x"}, "SECUREFS_AUDIT_DIR: cannot use", id="journal"),
        pytest.param({"SECUREFS_MAX_WAITING": "many"}, "SECUREFS_MAX_WAITING", id="policy"),
        pytest.param({"SECUREFS_STORES": "/nonexistent"}, "stores (SECUREFS_STORES)", id="stores"),
        pytest.param({"WEB_CONCURRENCY": "0"}, "WEB_CONCURRENCY: without a worker", id="workers"),
        pytest.param({"missing": "werkzeug"}, "werkzeug is not installed: run pip", id="werkzeug"),
        pytest.param({"missing": "Crypto"}, "pycryptodome is not installed: run pip", id="pycryptodome"),
    ],
)
def test_a_bad_setting_is_one_line_however_gunicorn_is_run(tmp_path, variables, line, arguments):
    program = [sys.executable, "-m", "gunicorn"]
    if missing := variables.get("missing"):
        program = [sys.executable, "-c", WITHOUT_A_PACKAGE, missing]
    done = subprocess.run(
        [*program, "--log-level", "error", *arguments],
        cwd=ROOT,
        env=app_environ(tmp_path, **variables),
        capture_output=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.stderr.decode().startswith(f"securefs: {line}")
    assert (done.returncode, done.stderr.count(b"\n"), done.stdout) == (2, 1, b"")


def test_a_busy_port_is_told_without_a_traceback(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--log-level", "error"],
            cwd=ROOT,
            env=app_environ(tmp_path),
            capture_output=True,
            check=False,
            timeout=DEADLINE,
        )
    assert done.returncode == 1
    assert f"Connection in use: ('127.0.0.1', {port})".encode() in done.stderr
    assert b"Traceback" not in done.stderr


def test_keys_of_another_data_folder_are_one_line_and_no_server(tmp_path):
    environ = app_environ(tmp_path)
    create_app(environ)
    other = generate_key()
    del environ["FILE_KEY_BASE64_FILE"]
    for command in (["--check-config"], ["--bind", "127.0.0.1:0"]):
        done = subprocess.run(
            [sys.executable, "-m", "gunicorn", "--log-level", "error", *command],
            cwd=ROOT,
            env={**environ, "FILE_KEY_BASE64": other},
            capture_output=True,
            check=False,
            timeout=DEADLINE,
        )
        assert done.stderr.startswith(b"securefs: FILE_KEY_BASE64: no key of the keyring opens key-check.enc")
        assert b"FILE_KEY_BASE64_PREVIOUS" in done.stderr
        assert other.encode() not in done.stderr
        assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


def write_key(path, text):
    path.unlink(missing_ok=True)
    path.touch(0o600)
    path.write_text(text)


def ready(server):
    return curl(f"{server.url}/readyz").json() == {"status": "ok", "failed": []}


def workers(server):
    listing = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return set(listing.read_text().split())


def reloaded(server, line):
    """Reload the server, and wait until it has told about it and no old worker is left."""
    before, times = workers(server), server.log.count(line)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.log.count(line) > times, line)
    wait_until(lambda: workers(server) and not before & workers(server), "the old workers' end")
    wait_until(lambda: ready(server), "the new workers")


def test_a_reload_takes_new_keys_and_tells_whether_they_changed(tmp_path):
    old, new = generate_key(), generate_key()
    key, previous = tmp_path / "file.key", tmp_path / "previous.key"
    write_key(key, old)
    write_key(previous, "")
    environ = app_environ(tmp_path, FILE_KEY_BASE64_PREVIOUS_FILE=str(previous))
    with gunicorn(tmp_path / "log", environ, "--workers", "1") as server:
        reloaded(server, f"the keys are unchanged, files are sealed under key {id_of(old)}")
        write_key(previous, old)
        write_key(key, new)
        reloaded(server, f"the keys changed, files are sealed under key {id_of(new)}")
        token = Tokens(open_database(tmp_path / "data")).issue("alice").secret
        (tmp_path / "header").write_text(f"Authorization: Bearer {token}\n")
        (tmp_path / "f").write_bytes(b"1")
        files = ("-F", f"files=@{tmp_path / 'f'}", f"{server.url}/files")
        assert curl("-H", f"@{tmp_path / 'header'}", *files).status == 201
        (stored,) = (tmp_path / "data" / "files").iterdir()
        assert verify(stored, ring(new), b"owner:alice").key_id == id_of(new)
        log = server.log
    assert old not in log
    assert new not in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("not a key", "FILE_KEY_BASE64 is not base64", id="unusable"),
        pytest.param(None, "FILE_KEY_BASE64: no key of the keyring opens key-check.enc", id="another"),
    ],
)
def test_a_reload_with_wrong_keys_is_told_and_the_old_ones_serve_on(tmp_path, text, line):
    environ = app_environ(tmp_path)
    with gunicorn(tmp_path / "log", environ, "--workers", "1") as server:
        write_key(tmp_path / "file.key", text or generate_key())
        reloaded(server, f"securefs: not reloaded, the old keys stay in use: {line}")
        assert curl(f"{server.url}/").status == 200
        assert server.log.count("not reloaded") == 1
        assert "Traceback" not in server.log


APP = """
from securefs import ConfigurationError
from pathlib import Path
def make():
    if Path("broken").exists():
        raise ConfigurationError("it is broken")
    return lambda environ, start: (start("200 OK", []), [b"x"])[1]
app = make()
"""


@pytest.mark.parametrize("name", ["app", "make()"])
def test_another_app_behind_this_configuration_is_made_anew_if_it_can_be(tmp_path, name):
    """A function is called again; a module is imported once."""
    (tmp_path / "other.py").write_text(APP)
    with gunicorn(tmp_path / "log", app_environ(tmp_path), "--workers", "1", f"other:{name}") as server:
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: server.log.count("reloaded; whether") == 1, "the first reload")
        (tmp_path / "broken").touch()
        server.process.send_signal(signal.SIGHUP)
        line = "not reloaded, the old keys stay in use: it is broken"
        wait_until(
            lambda: (
                server.log.count(line if name == "make()" else "reloaded; whether") == 1 + (name == "app")
            ),
            "the second reload",
        )
        assert curl(f"{server.url}/").body == b"x"


def test_a_request_line_or_header_beyond_the_limit_never_reaches_the_app(tmp_path):
    with gunicorn(tmp_path / "log", app_environ(tmp_path)) as server:
        assert curl(f"{server.url}/{'x' * 3000}").status == 414
        assert curl("-H", f"X-Long: {'x' * 9000}", f"{server.url}/").status == 431


def test_the_environment_mounts_the_app(tmp_path):
    with gunicorn(tmp_path / "log", app_environ(tmp_path, SCRIPT_NAME="/x")) as server:
        assert curl(f"{server.url}/x/readyz").json() == {"status": "ok", "failed": []}


@pytest.mark.parametrize("name", ["SCRIPT_NAME", "Script-Name", "PATH_INFO", "Path-Info"])
def test_no_header_of_a_client_changes_the_path(name, tmp_path):
    """By default, gunicorn moves a request by these: the app would answer /x/readyz."""
    with gunicorn(tmp_path / "log", app_environ(tmp_path)) as server:
        for value in ("/x", "/readyz", "/", ""):
            header = ("-H", f"{name}: {value}" if value else f"{name};")
            assert curl(*header, f"{server.url}/x/readyz").status == 401, (
                "who asks elsewhere must say who it is"
            )
            assert curl(*header, f"{server.url}/readyz").json() == {"status": "ok", "failed": []}


def children(pid):
    return [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]


def uploaded(folder, server):
    token = Tokens(open_database(folder / "data")).issue("alice").secret
    body, content_type = multipart([("a.txt", b"hello")])
    reply = curl(
        "-H",
        f"Authorization: Bearer {token}",
        "-H",
        f"Content-Type: {content_type}",
        "--data-binary",
        "@-",
        f"{server.url}/files",
        data=body,
    )
    assert reply.status == 201, reply.body


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--worker-class", "gthread", "--workers", "4"), id="gthread"),
        pytest.param(("--worker-class", "gevent", "--workers", "2"), id="gevent"),
        pytest.param(("--preload", "--workers", "2"), id="preload"),
        pytest.param(("--max-requests", "2", "--max-requests-jitter", "0", "--workers", "2"), id="recycled"),
    ],
)
def test_the_journal_is_sealed_up_to_the_last_record_of_the_last_worker(tmp_path, options):
    environ = app_environ(tmp_path, SECUREFS_AUDIT_SEAL="on")
    with gunicorn(tmp_path / "log", environ, *options) as server:
        for _ in range(6):
            uploaded(tmp_path, server)
    sealed = read_sealed(tmp_path / "journal")
    all_sealed(tmp_path / "journal", sealed)
    assert sealed.breaks == 0
    assert sealed.adopted == {}
    assert len(list((tmp_path / "journal").glob("*.jsonl"))) >= 1
    assert (tmp_path / "journal" / "log" / "vkey").read_text().strip() in server.log
    assert "NOT SEALING" not in server.log


def test_a_sealer_that_is_killed_never_stops_the_service_and_is_seen(tmp_path):
    environ = app_environ(tmp_path, SECUREFS_AUDIT_SEAL="on")
    lock = tmp_path / "journal" / "log" / "lock"
    with gunicorn(tmp_path / "log", environ, "--workers", "1") as server:
        wait_until(lambda: lock.exists() and lock.read_text(), "a sealer")
        killed = int(lock.read_text())
        os.kill(killed, signal.SIGKILL)
        uploaded(tmp_path, server)
        wait_until(lambda: "was ended by SIGKILL; it is started again" in server.log, "a line")
        wait_until(lambda: int(lock.read_text() or killed) != killed, "another sealer")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in server.log, "a reload")
        uploaded(tmp_path, server)
    sealed = read_sealed(tmp_path / "journal")
    all_sealed(tmp_path / "journal", sealed)
    assert sealed.breaks <= 1


def test_no_sealer_where_it_is_switched_off(tmp_path):
    with gunicorn(tmp_path / "log", app_environ(tmp_path), "--workers", "1") as server:
        uploaded(tmp_path, server)
        assert len(children(server.process.pid)) == 1
    assert not (tmp_path / "journal" / "log").exists()


def test_a_misspelt_switch_is_one_line(tmp_path):
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--config",
        str(ROOT / "gunicorn.conf.py"),
        "--bind",
        "127.0.0.1:0",
    ]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=app_environ(tmp_path, SECUREFS_AUDIT_SEAL="yes"),
        capture_output=True,
        check=False,
        timeout=DEADLINE,
    )
    assert done.returncode == 2
    assert "securefs: SECUREFS_AUDIT_SEAL is 'yes': it must be on or off" in done.stderr.decode()


def test_a_sealer_that_does_not_end_is_told(config):
    told = []
    log = SimpleNamespace(warning=lambda text, *rest: told.append(text))
    for sealer, expected in (
        (None, 0),
        (SimpleNamespace(stop=lambda: True), 0),
        (SimpleNamespace(stop=lambda: False), 1),
    ):
        config.on_exit(SimpleNamespace(log=log, securefs_sealer=sealer))
        assert len(told) == expected
    config.on_exit(SimpleNamespace(log=log))
