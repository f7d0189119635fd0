"""The server's configuration: what gunicorn makes of it, and how it refuses to start."""

from __future__ import annotations

import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
from gunicorn.app.wsgiapp import WSGIApplication
from support.servers import DEADLINE, ROOT, app_environ, await_start, curl, gunicorn, launch

from securefs import ConfigurationError


@pytest.fixture
def config(monkeypatch):
    """Return the configuration as gunicorn reads it."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["gunicorn"])
    return WSGIApplication().cfg


def settings():
    """Return the names that the file sets."""
    text = (ROOT / "gunicorn.conf.py").read_text("utf-8")
    return re.findall(r"^([a-z_0-9]+)(?:: [^=]+)? =", text, re.MULTILINE)


def test_the_shipped_file_is_the_one_in_the_repository():
    shipped = ROOT / "securefs" / "gunicorn.conf.py"
    assert shipped.samefile(ROOT / "gunicorn.conf.py")


def test_every_name_is_a_setting_of_gunicorn(config):
    """A misspelt name would be ignored without a word."""
    assert settings()
    assert [name for name in settings() if name not in config.settings] == []


def test_what_matters_for_security_is_set(config):
    assert config.bind == ["127.0.0.1:8000"]
    assert config.wsgi_app == "securefs.app:create_app()"
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
