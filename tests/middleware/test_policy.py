"""Limits and choices: what makes no sense is refused when the program starts."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from securefs import Suite
from securefs.errors import ConfigurationError
from securefs.middleware import Policy

COUNTS = (
    "max_body",
    "max_files",
    "max_fields",
    "max_field_bytes",
    "max_part_header",
    "max_filename",
    "max_ranges",
)


def test_the_defaults_are_those_of_the_documentation():
    policy = Policy()
    assert policy.max_body == 10 * 1024**3
    assert (policy.max_files, policy.max_fields, policy.max_field_bytes) == (100, 1000, 1024**2)
    assert (policy.max_part_header, policy.max_filename) == (8192, 255)
    assert (policy.body_timeout, policy.min_rate) == (None, 1024)
    assert (policy.verify_first, policy.max_ranges) == (64 * 1024**2, 16)
    assert policy.max_format_1 == 1024**3
    assert (policy.suite, policy.format, policy.spool) == (Suite.CBC_HMAC, 2, False)


def test_it_is_frozen():
    with pytest.raises(FrozenInstanceError):
        Policy().max_body = 1
    assert all(field.name for field in fields(Policy))


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_is_at_least_one(name):
    assert getattr(Policy(**{name: 1}), name) == 1
    with pytest.raises(ConfigurationError, match=f"Policy.{name} must be at least 1"):
        Policy(**{name: 0})


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"body_timeout": 0}, id="no time"),
        pytest.param({"body_timeout": -1.0}, id="negative time"),
        pytest.param({"min_rate": -1}, id="negative rate"),
        pytest.param({"verify_first": -1}, id="negative size"),
        pytest.param({"max_format_1": 0}, id="no Format 1 file"),
        pytest.param({"format": 3}, id="unknown format"),
        pytest.param({"chunked_uploads": "join"}, id="unknown choice"),
        pytest.param({"format_1_paths": "/old/*"}, id="a pattern that is no tuple"),
        pytest.param({"protected_paths": ["/files/*"]}, id="a list"),
        pytest.param({"plain_fields": "avatar"}, id="a name that is no tuple"),
        pytest.param({"ciphertext_uploads": "pass"}, id="an unknown choice"),
        pytest.param({"plain_fields": ("a", "b"), "file_fields": ("b", "c")}, id="plain and encrypted"),
        pytest.param({"protected_paths": (b"/files/*",)}, id="bytes"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="Policy"):
        Policy(**wrong)


@pytest.mark.parametrize(
    "right",
    [
        pytest.param({"min_rate": 0}, id="no minimum rate"),
        pytest.param({"verify_first": None}, id="always verify first"),
        pytest.param({"verify_first": 0}, id="never verify first"),
        pytest.param({"format": 1, "format_1_paths": ("/old/*",)}, id="format 1"),
    ],
)
def test_edges_make_sense(right):
    for name, value in right.items():
        assert getattr(Policy(**right), name) == value


def test_the_environment_chooses_suite_format_and_paths():
    environ = {
        "SECUREFS_SUITE": "aes-256-gcm",
        "SECUREFS_FORMAT": "1",
        "SECUREFS_FORMAT_1_PATHS": "/old/*, /older/*,,",
        "SECUREFS_UNBOUND_FORMAT_1": "1",
        "SECUREFS_KEEP_PATHS": "1",
        "SECUREFS_PLAIN_UPLOADS": "/avatars/*",
        "SECUREFS_PLAIN_FIELDS": "logo,banner",
        "SECUREFS_FILE_FIELDS": "document",
        "SECUREFS_CIPHERTEXT_UPLOADS": "allow",
        "SECUREFS_CHUNKED_UPLOADS": "allow",
    }
    policy = Policy.from_env(environ)
    assert policy == Policy(
        suite=Suite.GCM,
        format=1,
        format_1_paths=("/old/*", "/older/*"),
        unbound_format_1=True,
        keep_paths=True,
        plain_uploads=("/avatars/*",),
        plain_fields=("logo", "banner"),
        file_fields=("document",),
        ciphertext_uploads="allow",
        chunked_uploads="allow",
    )
    for off in ("0", ""):
        environ = {"SECUREFS_UNBOUND_FORMAT_1": off, "SECUREFS_KEEP_PATHS": off}
        assert Policy.from_env({}) == Policy.from_env(environ) == Policy()


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        pytest.param({"SECUREFS_SUITE": "rot13"}, "^SECUREFS_SUITE: ", id="suite"),
        pytest.param({"SECUREFS_FORMAT": "3"}, "^SECUREFS_FORMAT must be 1 or 2, not '3'$", id="format"),
        pytest.param(
            {"SECUREFS_CIPHERTEXT_UPLOADS": "1"},
            "^SECUREFS_CIPHERTEXT_UPLOADS must be refuse or allow, not '1'$",
            id="choice",
        ),
        pytest.param(
            {"SECUREFS_UNBOUND_FORMAT_1": "yes"}, "^SECUREFS_UNBOUND_FORMAT_1 must be 0 or 1", id="unbound"
        ),
        pytest.param(
            {"SECUREFS_KEEP_PATHS": "true"}, "^SECUREFS_KEEP_PATHS must be 0 or 1, not 'true'$", id="paths"
        ),
    ],
)
def test_a_wrong_variable_is_named(environ, message):
    with pytest.raises(ConfigurationError, match=message):
        Policy.from_env(environ)
