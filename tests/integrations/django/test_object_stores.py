"""django-storages' S3, with moto in the place of Amazon: what is in the bucket is ciphertext."""

from __future__ import annotations

import base64
import os
import subprocess
import sys

from support.django_apps import APPS, need
from support.sealing import KEY
from support.servers import DEADLINE, python_environ

SCRIPT = """
import hashlib, io, resource, sys
import boto3, django
from django.conf import settings
from moto import mock_aws

OURS = "securefs.integrations.django."
S3 = {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": {"bucket_name": "uploads", "region_name": "us-east-1"}}
settings.configure(
    SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, USE_TZ=True,
    INSTALLED_APPS=["securefs.integrations.django"],
    FILE_UPLOAD_HANDLERS=[OURS + "MemoryFileUploadHandler", OURS + "TemporaryFileUploadHandler"],
    FILE_UPLOAD_MAX_MEMORY_SIZE=1000,
    SECUREFS_PROTECTED_PATHS=["/media/*"],
    STORAGES={"default": {"BACKEND": OURS + "SealedStorage", "OPTIONS": {"storage": S3}}},
)
django.setup()
from django.core.files.base import ContentFile
from django.core.files.storage import default_storage
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.urls import path
from securefs.integrations.django import serve
from securefs.integrations.django.testing import Client

TEXT = hashlib.shake_256(b"text").digest(12_000_000)  # more than one part of an upload in parts
def upload(request):
    default_storage.save("upload", request.FILES["f"])
    default_storage.save("made", ContentFile(TEXT))
    return HttpResponse(str(default_storage.size("upload")))
urlpatterns = [path("", upload), path("media/<path:path>", serve)]

with mock_aws():
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="uploads")
    answer = Client().post("/", {"f": SimpleUploadedFile("x.bin", TEXT)})
    assert (answer.status_code, answer.content) == (200, b"12000000"), answer.content
    for name in ("upload", "made"):
        stored = client.get_object(Bucket="uploads", Key=name)["Body"].read()
        assert stored[1:4] == b"SFS" and TEXT[:64] not in stored
        with default_storage.open(name) as file:
            assert file.read() == TEXT
        served = Client().get("/media/" + name)
        assert (served.status_code, served.getvalue()) == (200, TEXT)
        part = Client().get("/media/" + name, headers={"Range": "bytes=70000-70099"})
        assert (part.status_code, part.getvalue()) == (206, TEXT[70000:70100])
    client.put_object(Bucket="uploads", Key="made", Body=stored[:-1] + bytes([stored[-1] ^ 1]))
    assert Client(raise_request_exception=False).get("/media/made").status_code == 500
    assert Client().get("/media/nothing").status_code == 404
    print("verified")
"""


def test_what_is_in_a_bucket_is_ciphertext_and_served_verified(tmp_path):
    need("storages", "moto", "boto3")
    variables = {
        "FILE_KEY_BASE64": base64.b64encode(KEY).decode(),
        "SECUREFS_AUDIT_DIR": str(tmp_path / "audit"),
    }
    environ = python_environ(TMPDIR=str(tmp_path), **variables)
    environ |= {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_CONFIG_FILE": os.devnull}
    environ["PYTHONPATH"] = os.pathsep.join([environ["PYTHONPATH"], str(APPS)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * DEADLINE,
    )
    assert done.stdout == "verified\n", done.stdout + done.stderr
