"""``securefs recover``: make one file of the containers that an app joined, or split them.

Nothing is replaced before the new file was verified. With a journal, nothing is written that it
can't record.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from securefs.cli.importing import imported
from securefs.cli.operator import keep
from securefs.cli.service import journal_of
from securefs.cli.terminal import DONE, FINDING, STREAM, Progress, say, say_json
from securefs.errors import ConfigurationError, IntegrityError
from securefs.keys import Keyring
from securefs.recovery import join, write_apart

if TYPE_CHECKING:
    import argparse

    from securefs.joined import Container

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Recover the file that an app made of encrypted chunks."""
    if STREAM in {arguments.file, arguments.output}:
        raise ConfigurationError("recover reads its source twice, and verifies what it wrote: name files")
    keyring = Keyring.from_env()
    return _split(arguments, keyring) if arguments.apart is not None else _join(arguments, keyring)


def _join(arguments: argparse.Namespace, keyring: Keyring) -> int:
    listed: list[dict[str, object]] = []
    count = 0

    def take(container: Container) -> None:
        nonlocal count
        count += 1
        if arguments.json:
            listed.append(_entry(container))
        elif container.fault is not None:
            progress.wipe()
            say(f"FAILED  {arguments.file}: {container.place}: {container.fault}")

    source = Path(arguments.file)
    document: dict[str, object] = {"path": arguments.file, "containers": listed}
    # Every byte is verified, and then sealed.
    total = 0 if arguments.quiet else 2 * source.stat().st_size
    with journal_of() as journal, Progress(total, quiet=arguments.quiet) as progress:
        if journal is not None:
            journal.check()
        try:
            info = join(
                source,
                arguments.output,
                keyring,
                arguments.context,
                overwrite=arguments.force,
                break_links=arguments.break_links,
                on_container=take,
                on_bytes=progress.add,
            )
        except IntegrityError as error:
            if journal is not None:
                keep(journal, imported(source, None, error.reason))
            if arguments.json:
                say_json({**document, "error": str(error), "reason": error.reason.value})
            raise
        target = arguments.output or arguments.file
        if journal is not None:
            keep(journal, imported(Path(target), info, None))
    if arguments.json:
        about = {"object_id": info.object_id, "key_id": info.key_id, "size": info.size}
        say_json({**document, "output": target, **about})
    else:
        say(
            f"recovered {target}: {count} containers, {info.size} bytes, in the order in which they were stored; "
            "whether it is the right one, and none is missing, can't be told"
        )
    return DONE


def _split(arguments: argparse.Namespace, keyring: Keyring) -> int:
    listed: list[dict[str, object]] = []
    written = broken = 0
    total = 0 if arguments.quiet else Path(arguments.file).stat().st_size
    with Progress(total, quiet=arguments.quiet) as progress:
        for container, target in write_apart(
            arguments.file,
            arguments.apart,
            keyring,
            arguments.context,
            overwrite=arguments.force,
            on_bytes=progress.add,
        ):
            fine = container.fault is None
            written, broken = written + fine, broken + (not fine)
            progress.wipe()
            if arguments.json:
                listed.append({**_entry(container), **({"output": str(target)} if fine else {})})
            elif not fine:
                say(f"FAILED  {arguments.file}: {container.place}: {container.fault}")
            elif not arguments.quiet:
                say(f"written {target}: {container.place}")
    if arguments.json:
        say_json({"path": arguments.file, "written": written, "failed": broken, "containers": listed})
    else:
        say(f"{written} written, {broken} failed")
    return FINDING if broken else DONE


def _entry(container: Container) -> dict[str, object]:
    entry: dict[str, object] = {"number": container.part.number, "offset": container.part.start}
    if (info := container.info) is not None:
        return {**entry, "object_id": info.object_id, "key_id": info.key_id, "size": info.size}
    fault = container.fault
    return {**entry, "error": str(fault), "reason": fault.reason.value} if fault is not None else entry
