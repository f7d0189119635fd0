"""docs/quickstart.md and README.md, pasted as they stand by a user without privileges, do what they show."""

from __future__ import annotations

import re

import pytest
from support.pasting import PLACEHOLDER, ROOT, blocks_of, terminal

BLOCKS = blocks_of(ROOT / "docs" / "quickstart.md")
PREPARE = [block.text for block in BLOCKS if block.section == "Prepare"]
SECTIONS = [name for name in dict.fromkeys(block.section for block in BLOCKS) if name != "Prepare"]
README = [block for block in blocks_of(ROOT / "README.md") if block.section == "Put it in front of your app"]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("examples/**/*.md"))]


@pytest.fixture(scope="module")
def prepared():
    """A terminal in which the first section was pasted."""
    with terminal() as user:
        assert [user.run(text) for text in PREPARE] == [""]
        yield user


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_does_what_it_shows(section, prepared):
    blocks = [block for block in BLOCKS if block.section == section]
    (start,) = [number for number, block in enumerate(blocks) if block.is_server]
    for block in blocks[:start]:
        if block.name:
            prepared.save(block.name, block.text)
        else:
            assert (block.kind, prepared.run(block.text)) == ("sh", "")
    commands, outputs = blocks[start + 1 :: 2], blocks[start + 2 :: 2]
    with prepared.serving(blocks[start].text):
        for command, output in zip(commands, outputs, strict=True):
            assert (command.kind, output.kind) == ("sh", "text")
            assert prepared.run_elsewhere(command.text, "~/securefs-quickstart") == output.text
    records = prepared.run("cat journal/*.jsonl")
    assert '"places":"declared"' in records
    assert '"places":"undeclared"' not in records
    shown = "".join(output.text for output in outputs)
    for line in ("stored letter.txt\n", "letter.txt:1\n", "/letter.txt:0\n", "the salary is 4321\n", "500\n"):
        assert line in shown


def test_what_runs_is_what_pip_installed_from_the_checkout(prepared):
    path = prepared.run("python -c 'import securefs; print(securefs.__file__)'")
    assert path.startswith(f"{prepared.home}/securefs-quickstart/.venv/lib/")


def test_the_user_may_write_nowhere_else(prepared):
    assert "Permission denied" in prepared.run("touch /etc/securefs-quickstart")


@pytest.fixture(scope="module")
def user_of_the_readme():
    """A terminal in which README's commands were pasted, in the folder of an app."""
    with terminal() as user:
        assert user.run("mkdir myapp; cd myapp") == ""
        assert user.run(README[0].text) == ""
        yield user


def readme_block(name: str) -> str:
    (found,) = [block.text for block in README if block.name == name]
    return found


def test_each_block_of_the_readme_is_pasted_here():
    names = [block.name for block in README if block.kind == "python"]
    assert names == ["app.py", "mysite/wsgi.py", "server.py", "read.py"]
    assert [block.is_server for block in README if block.kind == "sh"] == [False, True]


def test_the_readme_s_flask_app_wsgi_app_and_script(user_of_the_readme):
    user = user_of_the_readme
    (command,) = [block.text for block in README if block.is_server]
    for name in ("app.py", "server.py", "read.py"):
        user.save(name, readme_block(name))
    user.run("echo '%PDF canary' > report.pdf")
    with user.serving(command):
        answer = user.run(f"curl -s -F file=@report.pdf http://127.0.0.1:{user.port}/upload")
        assert re.fullmatch(r'\{"ids":\["[0-9a-f]{64}"\]\}\n', answer)
        assert user.run("grep -c canary uploads/report.enc") == "0\n"
        assert user.run(f"curl -s http://127.0.0.1:{user.port}/report") == "%PDF canary\n"
    with user.serving("python server.py"):
        assert user.run(f"curl -s http://127.0.0.1:{user.port}/") == "%PDF canary\n"
    assert user.run("python read.py") == "report.pdf 12 b'%PDF canary\\n'\n"


def test_the_readme_s_django_project(user_of_the_readme):
    user = user_of_the_readme
    made = (
        "django-admin startproject mysite .; mkdir media; echo 'MEDIA_ROOT = \"media\"' >> mysite/settings.py"
    )
    assert user.run(made) == ""
    user.save("mysite/wsgi.py", readme_block("mysite/wsgi.py"))
    with user.serving("gunicorn --bind 127.0.0.1:8000 mysite.wsgi"):
        assert "<title>" in user.run(f"curl -s http://127.0.0.1:{user.port}/")
    assert user.run("python manage.py check") == "System check identified no issues (0 silenced).\n"


YOUR_PACKAGE = """
mkdir dist
printf '[project]\\nname = "yourpackage"\\nversion = "1"\\n' > pyproject.toml
python -m pip wheel --quiet --no-deps --wheel-dir dist .
"""


def test_the_page_of_the_examples():
    # Those of Django are run by tests/test_examples_django.py, in an environment of their own.
    prepare, index, clients, tracker = [block.text for block in blocks_of(ROOT / "examples/README.md")][:4]
    with terminal() as user:
        # In the folder of the repository. gunicorn.conf.py knows the port, and the page does not say
        # it. Unlike this terminal, a real one keeps variables that are not exported.
        assert user.run(f"cd {user.checkout}; export SECUREFS_BIND=127.0.0.1:8000") == ""
        assert "\nSuccessfully installed securefs-" in user.run(
            prepare.replace("DATA=$HOME", "export DATA=$HOME")
        )
        with user.serving(index):
            user.run(f"mkdir ~/yourpackage; cd ~/yourpackage; {YOUR_PACKAGE}")
            user.run("export TWINE_USERNAME=any TWINE_PASSWORD=... PIP_NO_INDEX=0")
            printed = user.run(clients)
            assert "\nSuccessfully downloaded yourpackage\n" in printed
            assert printed.endswith("\n1 verified, 0 failed\n")
            assert user.run("cmp yourpackage-*.whl dist/*; cmp -s dist/* $DATA/packages/*; echo $?") == "1\n"
        user.run(f"cd {user.checkout}")
        # Where the page says that a password is asked for, one is given.
        with user.serving(tracker.replace("initialise ", "initialise secret ")):
            assert "tracker" in user.run(f"curl -s http://127.0.0.1:{user.port}/")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_page_installs_securefs_by_its_name(page):
    """Until it is published, anyone may register the name."""
    for line in re.findall(r"\bpip install (.*)$", page.read_text("utf-8"), re.MULTILINE):
        words = line.partition("#")[0].replace("'", " ").replace("`", " ").split()
        assert not [word for word in words if re.match(r"securefs\b", word)], line


def test_the_pages_say_why():
    for page in ("README.md", "docs/quickstart.md"):
        text = " ".join((ROOT / page).read_text("utf-8").split())
        assert (
            f"securefs is not on a package index yet. `{PLACEHOLDER}` stands for the folder of this repository"
            in text
        )
