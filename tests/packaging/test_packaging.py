"""What is installed: the three rooms under one name, whole, typed, and without tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

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
    "securefs.keys": "securefs/keys",
    "securefs.middleware": "middleware",
    "securefs.audit": "audit",
}
LINKS = {
    "securefs/middleware": "../middleware",
    "securefs/audit": "../audit",
    "securefs/gunicorn.conf.py": "../gunicorn.conf.py",
}
DATA = {"securefs/py.typed", "securefs/gunicorn.conf.py"}
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
    assert SETUPTOOLS["package-dir"] == ROOMS
    assert {f"securefs/{name}" for name in SETUPTOOLS["package-data"]["securefs"]} == DATA
    for folder in ROOMS.values():
        assert (ROOT / folder / "__init__.py").is_file()
        assert not (ROOT / folder).is_symlink()
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
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "dist", "bench")
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


def test_the_sdist_has_what_the_wheel_is_made_from(built):
    (sdist,) = built.glob("securefs-*.tar.gz")
    with tarfile.open(sdist) as archive:
        files = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    folders = {package.replace(".", "/"): folder for package, folder in ROOMS.items()}
    for module in modules():
        package, _, name = module.rpartition("/")
        assert f"{folders[package]}/{name}" in files
    assert {"pyproject.toml", "README.md", "LICENSE", "securefs/py.typed"} <= files


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
