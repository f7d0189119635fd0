"""``securefs encrypt``: one file, or standard input.

The key comes from the environment, never from an argument, because every user of the machine can
read arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from securefs.bulk import SUFFIX
from securefs.cli.terminal import DONE, STREAM, label, open_source, open_target, reading
from securefs.errors import ConfigurationError
from securefs.files import copy_sealed
from securefs.header import MAGIC
from securefs.keys import Keyring
from securefs.sealer import NewFiles
from securefs.suites import Suite

if TYPE_CHECKING:
    import argparse

    from securefs.primitives import StreamSealer

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Encrypt one file or standard input."""
    source, target = arguments.source, arguments.output
    if target is None:
        target = STREAM if source == STREAM else source + SUFFIX
    sealer = _sealer(arguments, Keyring.from_env())
    with open_source(source) as file, reading(file, source, quiet=arguments.quiet) as plain:
        start = plain.read(len(MAGIC))
        if start == MAGIC and not arguments.nested:
            # It would open only after two decryptions, and where it is served after none.
            raise ConfigurationError(
                f"{label(source)} is encrypted already: to encrypt it once more, give --nested"
            )
        with open_target(target, force=arguments.force, keep_owner=True) as sealed:
            sealed.write(sealer.update(start))
            copy_sealed(plain, sealed, sealer)
    return DONE


def _sealer(arguments: argparse.Namespace, keyring: Keyring) -> StreamSealer:
    metadata = {key: value for key in ("name", "type") if (value := getattr(arguments, key)) is not None}
    if arguments.format_1 and (arguments.suite or arguments.context or metadata):
        raise ConfigurationError(
            "--format-1 has no place for --suite, --context, --name or --type: use Format 2"
        )
    suite = Suite.parse(arguments.suite or Suite.CBC_HMAC.label)
    return NewFiles(keyring, 1 if arguments.format_1 else 2, suite).sealer(arguments.context, metadata)
