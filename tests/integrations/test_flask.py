"""The extension for Flask: one line in front of an app, settings from its configuration, and plaintext for whoever reads."""

from __future__ import annotations

import base64
import io

import pytest
from flask import Flask, Response, request
from support.journals import all_records
from support.sealing import KEY, pattern, seal
from support.uploads import CANARY, KEYRING

from securefs import ConfigurationError, FormatError, IntegrityError, Suite, open_encrypted, verify
from securefs.audit import Journal
from securefs.integrations.flask import SealedRequest, SecureFS, send_sealed
from securefs.middleware import Policy

TEXT = pattern(300_000)


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FILE_KEY_BASE64", base64.b64encode(KEY).decode())
    monkeypatch.setenv("SECUREFS_AUDIT_DIR", str(tmp_path / "audit"))


@pytest.fixture
def app(tmp_path):
    (tmp_path / "uploads").mkdir()
    app = Flask("files", root_path=tmp_path)
    app.config["SECUREFS_STORES"] = ["uploads"]
    return app


def stored(path):
    with open_encrypted(path, KEYRING) as opened:
        return opened.read()


def post(app, content=TEXT, name="photo.png", path="/"):
    client = app.test_client()
    with client.post(path, data={"f": (io.BytesIO(content), name)}) as answer:
        return answer.status_code, answer.data


def get(app, path, **headers):
    with app.test_client().get(path, headers=headers, buffered=True) as answer:
        return answer


def storing(app, tmp_path):
    @app.post("/")
    def upload():
        given = request.files["f"]
        start = given.read(10).hex()
        given.save(tmp_path / "uploads" / "file")
        return start

    @app.get("/<name>")
    def download(name):
        return send_sealed(f"uploads/{name}", object_id=request.args.get("id"))


def test_an_app_looks_and_stores_ciphertext(app, tmp_path):
    SecureFS(app)
    storing(app, tmp_path)
    assert post(app) == (200, TEXT[:10].hex().encode())
    assert stored(tmp_path / "uploads" / "file") == TEXT
    answer = get(app, "/file")
    assert (answer.status_code, answer.data) == (200, TEXT)
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="photo.png"')
    part = get(app, "/file", Range="bytes=5-9")
    assert (part.status_code, part.data) == (206, TEXT[5:10])
    events = [record["event"] for record in all_records(tmp_path / "audit")]
    told = {event: events.count(f"file.{event}") for event in ("encrypt", "open", "decrypt")}
    assert told == {"encrypt": 2, "open": 3, "decrypt": 4}


def test_a_file_that_is_not_there_is_404(app, tmp_path):
    SecureFS(app)
    storing(app, tmp_path)
    app.add_url_rule("/", endpoint="any", view_func=lambda: send_sealed(f"uploads/{request.args['name']}"))
    (tmp_path / "uploads" / "file").write_bytes(b"")
    (tmp_path / "uploads" / "folder").mkdir()
    for name in ("nothing", "file/below", "folder", "", "n" * 300, "a%00b"):
        assert get(app, f"/?name={name}").status_code == 404, name
    assert get(app, "/?name=../files.py").status_code == 404


def test_a_file_that_cannot_be_read_is_an_error(app, tmp_path):
    SecureFS(app)
    app.add_url_rule("/", view_func=lambda: send_sealed("uploads/loop"))
    (tmp_path / "uploads" / "loop").symlink_to("loop")
    assert get(app, "/").status_code == 500


def test_the_app_handles_a_file_that_does_not_verify(app, tmp_path):
    SecureFS(app)
    storing(app, tmp_path)
    (tmp_path / "uploads" / "file").write_bytes(CANARY)
    (tmp_path / "uploads" / "other").write_bytes(seal(TEXT, ring=KEYRING))

    @app.errorhandler(FormatError)
    @app.errorhandler(IntegrityError)
    def damaged(error):
        return f"damaged: {error.reason.value}", 410

    assert get(app, "/file").data == b"damaged: not_encrypted"
    assert get(app, f"/other?id={'0' * 64}").data == b"damaged: wrong_object"


def test_an_app_of_a_factory_is_extended_later(tmp_path):
    extension = SecureFS()
    apps = []
    for name in ("one", "two"):
        (tmp_path / name / "uploads").mkdir(parents=True)
        app = Flask(name, root_path=tmp_path / name)
        app.config["SECUREFS_STORES"] = ("uploads",)
        extension.init_app(app)
        apps.append(app)
    for app in apps:
        with app.app_context():
            extension.vault.seal(io.BytesIO(TEXT)).save(f"{app.root_path}/uploads/made")
    for app in apps:
        with app.app_context(), extension.vault.open(f"{app.root_path}/uploads/made") as file:
            assert file.read() == TEXT
    with apps[0].app_context(), pytest.raises(FormatError, match=r"SECUREFS_STORES"):
        extension.vault.open(f"{apps[1].root_path}/uploads/made")


def test_an_app_without_the_extension_is_told(app):
    with app.app_context(), pytest.raises(ConfigurationError, match=r"call init_app\(app\)"):
        _ = SecureFS().vault
    with app.test_request_context(), pytest.raises(ConfigurationError, match=r"SecureFS is not in front"):
        send_sealed("uploads/file")


def test_the_extension_is_put_in_front_once(app):
    extension = SecureFS(app)
    with pytest.raises(ConfigurationError, match=r"in front of this app already"):
        extension.init_app(app)


def test_a_request_class_of_the_apps_own_stays(app, tmp_path):
    class Own(app.request_class):
        own = "the app's"

    app.request_class = Own
    SecureFS(app)
    app.add_url_rule(
        "/", view_func=lambda: request.own + request.files["f"].read(0).decode(), methods=["POST"]
    )
    assert post(app) == (200, b"the app's")
    assert issubclass(app.request_class, Own)


def test_a_request_class_that_has_it_is_left_alone(app):
    class Own(SealedRequest, app.request_class):
        pass

    app.request_class = Own
    SecureFS(app)
    assert app.request_class is Own


# --- settings


def test_the_configuration_says_how_files_are_stored(app, tmp_path, monkeypatch):
    monkeypatch.setenv("SECUREFS_SUITE", "aes-256-cbc-hmac-sha256")
    monkeypatch.setenv("SECUREFS_FILE_FIELDS", "blob")
    app.config |= {
        "SECUREFS_SUITE": "aes-256-gcm",
        "SECUREFS_MAX_BODY": 400_000,
        "SECUREFS_AUDIT_DIR": tmp_path / "elsewhere",
        "SECUREFS_AUDIT_NAMES": "clear",
    }
    SecureFS(app)
    storing(app, tmp_path)
    assert post(app)[0] == 200
    assert post(app, bytes(500_000))[0] == 413
    assert verify(tmp_path / "uploads" / "file", KEYRING).suite == Suite.GCM.label
    assert all_records(tmp_path / "elsewhere")[1]["obj"]["name"] == "photo.png"
    # What the configuration does not say, the environment does.
    assert app.extensions["securefs"]._settings.policy.file_fields == ("blob",)


def test_options_come_before_the_environment(app, tmp_path, journal_to):
    heard = []
    policy = Policy(restore_metadata=True, max_body=400_000)
    SecureFS(app, journal=journal_to, keyring=KEYRING, policy=policy, on_event=heard.append)
    storing(app, tmp_path)
    assert post(app)[0] == 200
    assert post(app, bytes(500_000))[0] == 413
    assert not (tmp_path / "audit").exists()
    assert [entry.event for entry in heard][-1] == "file.rejected"


@pytest.fixture
def journal_to(tmp_path):
    journal = Journal(tmp_path / "given")
    yield journal
    journal.close()


def test_a_context_binds_files_to_whom_the_app_says(app, tmp_path):
    SecureFS(app, context=lambda environ: environ.get("HTTP_TENANT", "").encode())
    storing(app, tmp_path)
    with app.test_client().post(
        "/", data={"f": (io.BytesIO(TEXT), "a.png")}, headers={"Tenant": "a"}
    ) as answer:
        assert answer.status_code == 200
    assert get(app, "/file", Tenant="a").data == TEXT
    assert get(app, "/file", Tenant="b").status_code == 500
    with app.app_context():
        vault = app.extensions["securefs"].vault
        with vault.open(tmp_path / "uploads" / "file", context=b"a") as file:
            assert file.read() == TEXT


BAD = {
    "SECUREFS_STORE": (["uploads"], "SECUREFS_STORE, which is no setting"),
    "SECUREFS_STORES": ("uploads", r"Policy\.stores must be a tuple"),
    "SECUREFS_SUITE": ("rot13", "rot13"),
    "SECUREFS_FORMAT": ("2", r"Policy\.format must be a whole number"),
    "SECUREFS_AUDIT_NAMES": ("both", "SECUREFS_AUDIT_NAMES"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_setting_that_is_unusable_is_named(name, app):
    value, message = BAD[name]
    app.config[name] = value
    with pytest.raises(ConfigurationError, match=message) as caught:
        SecureFS(app)
    assert "app.config" in str(caught.value)


def test_keys_are_not_taken_from_the_configuration(app, monkeypatch):
    monkeypatch.delenv("FILE_KEY_BASE64")
    app.config["FILE_KEY_BASE64"] = base64.b64encode(KEY).decode()
    with pytest.raises(ConfigurationError, match=r"FILE_KEY_BASE64 is not set"):
        SecureFS(app)


# --- a storage that forgets to seal


def test_the_check_finds_what_an_app_stored_in_plaintext(app, tmp_path):
    SecureFS(app)

    @app.post("/")
    def upload():
        # What file.save() is for: this stores what the app read.
        (tmp_path / "uploads" / "forgotten\n.png").write_bytes(request.files["f"].read())
        return "stored"

    runner = app.test_cli_runner()
    good = runner.invoke(args=["securefs", "check"])
    assert (good.exit_code, good.output) == (0, "every file in the stores is encrypted\n")
    assert post(app) == (200, b"stored")
    bad = runner.invoke(args=["securefs", "check"])
    assert bad.exit_code == 1
    assert r"forgotten\n.png" in bad.output
    assert "Error: 1 files in the stores are not encrypted: store uploads by file.save()" in bad.output


def test_plaintext_in_a_store_is_not_served(app, tmp_path):
    SecureFS(app)
    (tmp_path / "uploads" / "plain").write_bytes(CANARY)

    @app.get("/")
    def download():
        return Response((tmp_path / "uploads" / "plain").open("rb"), direct_passthrough=True)

    answer = get(app, "/")
    assert answer.status_code == 500
    assert CANARY not in answer.data
