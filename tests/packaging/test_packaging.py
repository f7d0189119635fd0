"""What is installed: the three rooms under one name, whole, typed, and without tests."""

from __future__ import annotations

import email
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from datetime import date
from pathlib import Path

import pytest
import trove_classifiers
from support.frameworks import FRAMEWORKS

import securefs

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover  # the floor's interpreter brings no reader for it
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
ROOMS = {
    "securefs": "securefs",
    "securefs.app": "securefs/app",
    "securefs.cli": "securefs/cli",
    "securefs.integrations": "securefs/integrations",
    "securefs.integrations.django": "securefs/integrations/django",
    "securefs.integrations.django.management": "securefs/integrations/django/management",
    "securefs.integrations.django.management.commands": "securefs/integrations/django/management/commands",
    "securefs.keys": "securefs/keys",
    "securefs.middleware": "middleware",
    "securefs.audit": "audit",
}
LINKS = {
    "securefs/middleware": "../middleware",
    "securefs/audit": "../audit",
    "securefs/gunicorn.conf.py": "../gunicorn.conf.py",
}
DATA = {
    "securefs/py.typed",
    "securefs/gunicorn.conf.py",
    "securefs/audit/verify.html",
    "securefs/audit/verify.html.sha256",
}
PUBLIC = [
    "PREAMBLE_SIZE",
    "ConfigurationError",
    "Decryptor",
    "EncryptedFile",
    "Encryptor",
    "FileInfo",
    "FormatError",
    "IntegrityError",
    "JournalError",
    "Keyring",
    "LimitExceededError",
    "Reason",
    "Rewrapped",
    "SecureFSError",
    "SourceError",
    "Suite",
    "UnknownKeyError",
    "__version__",
    "claimed_object_id",
    "decrypt_file",
    "encrypt_file",
    "open_encrypted",
    "rewrap",
    "verify",
]


# What a source distribution has beside the packages.
FOLDERS = ("audit", "bench", "docs", "examples", "middleware", "tests")
PAGES = {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE"}


def modules() -> set[str]:
    """Every module of the checkout, by its path once installed."""
    return {
        f"{package.replace('.', '/')}/{path.name}"
        for package, folder in ROOMS.items()
        for path in (ROOT / folder).glob("*.py")
        if not path.is_symlink()
    }


def test_packages_folders_and_links_agree():
    assert sorted(SETUPTOOLS["packages"]) == sorted(ROOMS)
    assert SETUPTOOLS["package-dir"] == {"": "."}
    data = SETUPTOOLS["package-data"]
    assert {f"{package.replace('.', '/')}/{name}" for package in data for name in data[package]} == DATA
    for package, folder in ROOMS.items():
        assert (ROOT / folder / "__init__.py").is_file()
        assert not (ROOT / folder).is_symlink()
        assert (ROOT / package.replace(".", "/") / "__init__.py").is_file()
    for link, target in LINKS.items():
        assert (ROOT / link).is_symlink()
        assert str((ROOT / link).readlink()) == target
        assert (ROOT / link).exists()


def test_no_folder_of_code_is_left_out():
    """A new package inside a room would be missing from the explicit list."""
    for folder in ROOMS.values():
        inner = {path.parent for path in (ROOT / folder).glob("*/*.py")}
        assert {str(path.relative_to(ROOT)) for path in inner} <= {*LINKS, *ROOMS.values()}


def test_the_links_are_tracked_as_links():
    result = subprocess.run(
        ["git", "ls-files", "--stage", *LINKS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if result.returncode:
        pytest.skip("not a checkout")
    tracked = {line.split("\t")[1]: line.split()[0] for line in result.stdout.splitlines()}
    assert tracked == dict.fromkeys(LINKS, "120000")


def test_the_public_names_are_these():
    """Whoever changes this list changes what users hold on to: say so in the changelog."""
    assert securefs.__all__ == PUBLIC
    assert all(hasattr(securefs, name) for name in PUBLIC)


def test_every_module_says_what_is_public():
    for path in (ROOT / "securefs").glob("*.py"):
        if path.is_symlink() or path.name in {"_version.py", "__main__.py"}:
            continue
        assert "\n__all__ = [" in path.read_text("utf-8"), path.name


def test_the_version_is_one_of_its_own():
    assert SETUPTOOLS["dynamic"]["version"]["attr"] == "securefs._version.__version__"
    assert securefs.__version__[0].isdigit()


BLOCK = """
import sys
for name in {names!r}:
    sys.modules[name] = None
"""


def run(program: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stderr == ""
    assert result.returncode == 0
    return result.stdout


def test_a_minimal_install_has_all_three_rooms():
    """With PyCryptodome alone: no accelerator, no framework, no server."""
    names = ["cryptography", "werkzeug", "gunicorn", "flask", "django", "multipart", "gevent"]
    program = BLOCK.format(names=names) + (
        "import securefs, securefs.middleware, securefs.audit\n"
        "from securefs.backend import default_primitives\n"
        "print(default_primitives().name)\n"
    )
    assert run(program) == "pycryptodome\n"


def test_importing_the_library_imports_no_server_and_no_second_room():
    program = (
        "import sys, securefs\n"
        "print(sorted(set(sys.modules) & {'werkzeug', 'gunicorn', 'securefs.app', 'securefs.middleware'}))\n"
    )
    assert run(program) == "[]\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """An sdist, and the wheel that is made from it: what a release would upload. No network: the tools are installed."""
    work = tmp_path_factory.mktemp("build")
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist")
    shutil.copytree(ROOT, work / "source", symlinks=True, ignore=ignored)
    command = [
        sys.executable,
        "-m",
        "build",
        "--no-isolation",
        "--skip-dependency-check",  # [build-system] may ask for more than fits beside the tests' packages
        "--outdir",
        str(work / "dist"),
        str(work / "source"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return work / "dist"


def test_the_wheel_has_every_module_and_its_data_and_nothing_else(built):
    (wheel,) = built.glob("securefs-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == modules() | DATA
        conf = archive.read("securefs/gunicorn.conf.py")
        (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        assert b"securefs = securefs.cli:main" in archive.read(entry)
    assert conf == (ROOT / "gunicorn.conf.py").read_bytes()


def files_of(folder: str) -> set[str]:
    found = (
        path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts
    )
    return {path.relative_to(ROOT).as_posix() for path in found if path.suffix not in {".pyc", ".pyo"}}


def test_the_sdist_has_what_the_wheel_is_made_from_and_docs_tests_and_examples(built):
    (sdist,) = built.glob("securefs-*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    assert modules() | DATA | PAGES | {"pyproject.toml", "setup.py", "Makefile", "gunicorn.conf.py"} <= files
    for folder in FOLDERS:
        assert files_of(folder) == {name for name in files if name.startswith(f"{folder}/")}


def metadata_of(built: Path):
    (wheel,) = built.glob("securefs-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_string(archive.read(name).decode("utf-8"))


def test_no_link_of_the_long_description_leads_nowhere(built):
    """An index shows README.md alone: a link to another file of the project is spelled out there."""
    metadata = metadata_of(built)
    assert metadata["Description-Content-Type"] == "text/markdown"
    prose, code = apart(metadata.get_payload())
    readme, readme_code = apart((ROOT / "README.md").read_text("utf-8"))
    assert code == readme_code
    links = re.findall(r"\]\(([^)]+)\)", prose)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []
    assert not re.search(r"<(?:a|img)\b|^\[[^\]]+\]:", prose, re.MULTILINE)
    # What is spelled out instead is in the source distribution.
    relative = re.findall(r"\]\((?!https://)([^)#]+)", readme)
    assert relative
    for target in relative:
        assert f"`{target}" in prose
        assert target in PAGES or target in files_of(target.partition("/")[0])
    assert "are in the source distribution" in prose


def apart(page: str) -> tuple[str, list[str]]:
    """Return a page's prose and its blocks of code."""
    pieces = re.split(r"(```.*?```)", page, flags=re.DOTALL)
    return "".join(pieces[::2]), pieces[1::2]


def test_an_index_accepts_both_files(built):
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, sorted(built.iterdir()))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_classifiers_are_names_that_an_index_knows():
    assert set(PROJECT["project"]["classifiers"]) <= trove_classifiers.classifiers


def test_the_classified_frameworks_are_those_that_the_tests_run_with():
    prefix = "Framework :: "
    told = {
        item.removeprefix(prefix) for item in PROJECT["project"]["classifiers"] if item.startswith(prefix)
    }
    known = {
        name.removeprefix(prefix).lower() for name in trove_classifiers.classifiers if name.startswith(prefix)
    }
    assert {name.lower() for name in told} == set(FRAMEWORKS) & known


def test_the_classified_pythons_begin_with_the_oldest_that_is_accepted():
    found = (
        re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", item)
        for item in PROJECT["project"]["classifiers"]
    )
    minors = [int(match[1]) for match in found if match]
    assert PROJECT["project"]["requires-python"] == f">=3.{minors[0]}"
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert minors[0] <= sys.version_info.minor


def test_the_changelog_has_one_section_a_version_with_its_date_and_one_for_what_is_to_come():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    unreleased, *releases = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert unreleased == "[Unreleased]"
    dated = [re.fullmatch(r"\[(\d+(?:\.\d+)+)\] - (20\d\d-\d\d-\d\d)", heading) for heading in releases]
    assert all(dated)
    versions = [tuple(map(int, match[1].split("."))) for match in dated]
    dates = [date.fromisoformat(match[2]) for match in dated]
    assert versions == sorted(set(versions), reverse=True)
    assert dates == sorted(dates, reverse=True)
    # The version of the code is that of the last section with a date.
    current = tuple(map(int, re.match(r"\d+(?:\.\d+)+", securefs.__version__)[0].split(".")))
    assert versions[0] == current
    for section in re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.+)$", section, re.MULTILINE)
        order = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
        assert kinds == sorted(set(kinds), key=order.index)


def test_the_wheel_works_without_the_checkout(built, tmp_path):
    (wheel,) = built.glob("securefs-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        f"import sys\nsys.path[:0] = [{str(tmp_path)!r}]\n"
        "import securefs, securefs.middleware, securefs.audit\n"
        "print(securefs.__file__, securefs.middleware.__file__, securefs.audit.__file__, sep='\\n')\n"
    )
    assert all(line.startswith(str(tmp_path)) for line in run(program).splitlines())


# Each ignored line is an error for a type checker that sees the types; one that does not see them finds nothing to ignore.
USER = """
import csv
import io
import tarfile
import zipfile
from typing import IO, BinaryIO

from securefs import EncryptedFile, Keyring, open_encrypted
from securefs.audit import Journal
from securefs.keys import Wrapper
from securefs.middleware import Policy, SecureFS


def binary(file: BinaryIO) -> None: ...
def of_bytes(file: IO[bytes]) -> None: ...
def buffered(file: io.BufferedIOBase) -> None: ...


opened: EncryptedFile = open_encrypted("path", Keyring(bytes(32)), b"tenant")
binary(opened)
of_bytes(opened)
buffered(opened)
csv.reader(io.TextIOWrapper(opened))
zipfile.ZipFile(opened)
tarfile.open(fileobj=opened)
lines: list[bytes] = list(opened)
with open_encrypted("path", Keyring(bytes(32))) as file:
    size: int = file.size
    peeked: bytes = file.peek()
policy = Policy(max_files=5)
wrong_core: str = opened.read(5)  # type: ignore
wrong_middleware: str = SecureFS  # type: ignore
wrong_audit: str = Journal  # type: ignore
wrong_keys: str = Wrapper  # type: ignore
wrong_policy: str = policy.max_files  # type: ignore
"""


@pytest.fixture(scope="module", params=["wheel", "editable"])
def other_project(built, request, tmp_path_factory) -> Path:
    """A project beside an environment that has the wheel, or an editable install of the checkout's copy."""
    folder = tmp_path_factory.mktemp(request.param)
    venv.create(folder / "venv", with_pip=False)
    (site,) = (folder / "venv/lib").glob("python*/site-packages")
    (wheel,) = built.glob("securefs-*.whl")
    if request.param == "editable":
        program = f"from setuptools import build_meta\nprint(build_meta.build_editable({str(folder)!r}))"
        source = built.parent / "source"
        command = [sys.executable, "-c", program]
        made = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
        (wheel,) = folder.glob("securefs-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (folder / "user.py").write_text(USER)
    (folder / "pyrightconfig.json").write_text('{"reportUnnecessaryTypeIgnoreComment": true}')
    return folder


def checked(folder: Path, *command: str) -> None:
    result = subprocess.run(
        [*command, "user.py"], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_mypy_sees_the_types_of_all_rooms(other_project):
    python = str(other_project / "venv/bin/python")
    checked(
        other_project,
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-incremental",
        "--python-executable",
        python,
    )


@pytest.mark.slow
def test_pyright_sees_the_types_of_all_rooms(other_project):
    if shutil.which("pyright") is None:
        pytest.skip("pyright is not installed")
    checked(other_project, "pyright", "--pythonpath", str(other_project / "venv/bin/python"))


def test_an_editable_install_is_a_path_and_no_hook(other_project):
    """Type checkers read paths, and do not run hooks."""
    (site,) = (other_project / "venv/lib").glob("python*/site-packages")
    for path in site.glob("__editable__*"):
        assert path.suffix == ".pth"
        assert (Path(path.read_text("utf-8").strip()) / "securefs/middleware/__init__.py").is_file()
