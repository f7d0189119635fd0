"""The command line ``securefs``: every error is one line on standard error, no traceback.

Exit codes: 0 done; 1 a file does not verify (``audit verify`` has its own codes); 2 usage or
configuration; above 128 a signal's number plus 128, such as 130 for Ctrl-C. However a command ends,
temporary files are removed, and existing files are unchanged.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Final, NoReturn

from securefs._version import __version__
from securefs.cli.audit_parser import add_actions, log_option
from securefs.cli.terminal import FINDING, USAGE, abandon_output, complain, flush_output
from securefs.disk import explain
from securefs.errors import VERDICTS, SecureFSError
from securefs.secrecy import clears_frames
from securefs.suites import Suite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

__all__ = ["main"]

INTERRUPTED: Final = 130
MAX_PORT: Final = 65_535

_SUITES: Final = tuple(suite.label for suite in Suite)


class _Ended(BaseException):
    """A signal asks this process to end. Not an Exception, so that only ``main`` catches it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}: see {self.prog} --help")
        raise SystemExit(USAGE)


# A command says itself what is wrong, in one line: a server's log lines stay out of it.
logging.getLogger("securefs").addHandler(logging.NullHandler())


@clears_frames
def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    try:
        with _signals():
            arguments = _parser().parse_args(argv)
            module, _, function = arguments.run.partition(":")
            code: int = getattr(import_module(module), function)(arguments)
            flush_output()
            return code
    except KeyboardInterrupt:
        return _fail("interrupted: nothing unfinished was left behind", INTERRUPTED)
    except _Ended as ended:
        name = signal.Signals(ended.number).name
        return _fail(f"ended by {name}: nothing unfinished was left behind", 128 + ended.number)
    except BrokenPipeError:
        return _fail("the reader of standard output went away: the output is not complete", USAGE)
    except SecureFSError as error:
        return _fail(str(error), FINDING if isinstance(error, VERDICTS) else USAGE)
    except OSError as error:
        return _fail(_describe(error), USAGE)


def _fail(message: str, code: int) -> int:
    complain(message)
    try:
        flush_output()
    except OSError:
        abandon_output()
    return code


def _describe(error: OSError) -> str:
    what = explain(error)
    return f"{os.fsdecode(error.filename)}: {what}" if isinstance(error.filename, (str, bytes)) else what


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind as Ctrl-C does, so that temporary files are removed."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        raise _Ended(number)

    numbers = [signal.SIGTERM, signal.SIGHUP]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # Python sets handlers only in the main thread
    # A signal that nohup ignores stays ignored.
    before = {
        number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN
    }
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="securefs",
        description="Encrypts, decrypts and verifies files, rotates their keys, and verifies the audit journal.",
        epilog="The key comes from FILE_KEY_BASE64, or from the file that FILE_KEY_BASE64_FILE names. "
        "Exit codes: 0 done, 1 something does not verify, 2 usage or configuration.",
    )
    parser.add_argument("--version", action="version", version=f"securefs {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    _file_commands(commands)
    _token_commands(commands)
    _audit_commands(commands)
    _metrics_command(commands)
    text = "say whether an app can start with these settings: keys, places, journal, data folder, versions"
    command = _command(commands, "check", "securefs.cli.check:run", text)
    _data_option(command)
    _json_option(command)
    command = _command(
        commands, "demo", "securefs.cli.demo:run", "serve the reference app on this machine, to try it"
    )
    command.add_argument(
        "--port", type=_port, default=8000, metavar="N", help="default: 8000; 0: any free one"
    )
    command.add_argument("--dir", metavar="DIR", help="private folder for key, token, files and journal")
    return parser


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[_Parser]  # noqa: SLF001  # argparse names no public type


def _command(commands: Commands, name: str, run: str, text: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run=run)
    return command


def _file_commands(commands: Commands) -> None:
    command = _command(commands, "keygen", "securefs.cli.keygen:run", "make a fresh file key")
    command.add_argument(
        "--output", metavar="FILE", help="write it into a new file with mode 0600 instead of printing it"
    )

    _one_file_commands(commands)
    _many_files_commands(commands)
    _anew_commands(commands)

    keys = commands.add_parser("keys", help="tell which keys the stored files need")
    actions = keys.add_subparsers(metavar="ACTION", required=True)
    text = "count the files that need each key; exit code 0: none needs a previous key, and this is proven"
    command = _command(actions, "in-use", "securefs.cli.keys:in_use", text)
    _any_context_option(_bulk_options(command))
    _quiet_option(command)


def _one_file_commands(commands: Commands) -> None:
    command = _command(commands, "encrypt", "securefs.cli.encrypt:run", "encrypt a file")
    command.add_argument("source", metavar="SRC", help="- for standard input")
    _target_options(command, "SRC.enc")
    _opening_options(command, "write the original layout, Format 1")
    _quiet_option(command)
    command.add_argument("--nested", action="store_true", help="encrypt what is encrypted already once more")
    command.add_argument("--suite", choices=_SUITES, help=f"default: {_SUITES[0]}")
    command.add_argument("--name", metavar="TEXT", help="a file name to seal into the file")
    command.add_argument("--type", metavar="TEXT", help="a media type to seal into the file")

    command = _command(commands, "decrypt", "securefs.cli.decrypt:run", "decrypt a file")
    command.add_argument("source", metavar="SRC", help="- for standard input")
    target = _target_options(command, "SRC without .enc")
    target.add_argument(
        "--sealed-name", action="store_true", help="write beside SRC, under the name that is sealed in it"
    )
    _opening_options(command, "the file has the original layout, Format 1")
    _quiet_option(command)

    command = _command(
        commands,
        "inspect",
        "securefs.cli.inspect:run",
        "show a file's header; needs no key, verifies nothing",
    )
    command.add_argument("file", metavar="FILE", help="- for standard input")
    _json_option(command)


def _many_files_commands(commands: Commands) -> None:
    text = "verify every byte of files, and say what else is in folders"
    command = _command(commands, "verify", "securefs.cli.verify:run", text)
    _bulk_options(command)
    _quiet_option(command)
    command.add_argument(
        "--format-1", action="store_true", help="also verify files of the original layout, Format 1"
    )
    command.add_argument("--all", action="store_true", help="fail for everything that is not encrypted")

    text = "rotate keys: rewrap files, so that FILE_KEY_BASE64 opens them and no previous key does"
    command = _command(commands, "rewrap", "securefs.cli.rewrap:run", text)
    _any_context_option(_bulk_options(command))
    _quiet_option(command)
    command.add_argument("--all", action="store_true", help="fail for everything that is not encrypted")

    text = "encrypt files in place that are there already: plaintext and Format 1"
    command = _command(commands, "import", "securefs.cli.importing:run", text)
    _bulk_options(command)
    _quiet_option(command)
    command.add_argument("--dry-run", action="store_true", help="change nothing; say what would be done")
    command.add_argument(
        "--break-links",
        action="store_true",
        help="also encrypt files with several names (hard links): each name becomes a file of its own",
    )
    command.add_argument("--suite", choices=_SUITES, help=f"default: {_SUITES[0]}")


def _anew_commands(commands: Commands) -> None:
    text = "give files new data keys, because a file key leaked: write them anew under FILE_KEY_BASE64"
    command = _command(commands, "reencrypt", "securefs.cli.reencrypt:run", text)
    _bulk_options(command)
    _quiet_option(command)
    command.add_argument("--all", action="store_true", help="fail for everything that is not encrypted")
    command.add_argument("--again", action="store_true", help="also files whose data key no other key had")
    command.add_argument("--dry-run", action="store_true", help="change nothing; say what would be done")
    command.add_argument(
        "--keep-ids", action="store_true", help="the new files have the object ids of the old ones"
    )
    command.add_argument(
        "--break-links",
        action="store_true",
        help="also files with several names (hard links): each name becomes a file of its own",
    )
    command.add_argument("--suite", choices=_SUITES, help="default: each file keeps its own")

    text = "make one file of the encrypted chunks that an app joined, in the order in which they are stored"
    command = _command(commands, "recover", "securefs.cli.recover:run", text)
    command.add_argument("file", metavar="FILE")
    group = command.add_mutually_exclusive_group(required=True)
    group.add_argument("-o", "--output", metavar="DST", help="write a new file")
    group.add_argument("--in-place", action="store_true", help="replace FILE, once the new one was verified")
    group.add_argument("--apart", metavar="DIR", help="write each container into a file of its own in DIR")
    command.add_argument("--force", action="store_true", help="replace existing files")
    command.add_argument(
        "--break-links",
        action="store_true",
        help="in place, also a file with several names (hard links): the others keep the old one",
    )
    _context_options(command)
    _json_option(command)
    _quiet_option(command)


def _bulk_options(command: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Add what the commands on many files have in common; return the group of their contexts."""
    command.add_argument("paths", metavar="PATH", nargs="*", help="files, or folders of files")
    _json_option(command)
    group = _context_options(command)
    group.add_argument(
        "--context-from",
        metavar="MODULE:FUNCTION",
        help="a function of yours: it takes the path of a file and returns its context, as bytes",
    )
    text = "data folder of the reference app: each file is bound to its owner; default PATH: all of its files"
    group.add_argument("--data-dir", metavar="DIR", help=text)
    return group


def _any_context_option(group: argparse._MutuallyExclusiveGroup) -> None:
    text = "the contexts of the files are not known: do not verify the commitment, which is bound to them"
    group.add_argument("--any-context", dest="context", action="store_const", const=None, help=text)


def _target_options(command: argparse.ArgumentParser, default: str) -> argparse._MutuallyExclusiveGroup:
    command.add_argument("--force", action="store_true", help="replace an existing file")
    group = command.add_mutually_exclusive_group()
    group.add_argument("-o", "--output", metavar="DST", help=f"default: {default}; - for standard output")
    return group


def _context_options(command: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    group = command.add_mutually_exclusive_group()
    text = "the context that the file is bound to, e.g. owner:NAME for files of the reference app"
    group.add_argument("--context", type=os.fsencode, default=b"", metavar="TEXT", help=text)
    group.add_argument("--context-hex", dest="context", type=_hex, metavar="HEX", help="the context in hex")
    return group


def _opening_options(command: argparse.ArgumentParser, format_1: str) -> None:
    _context_options(command)
    command.add_argument("--format-1", action="store_true", help=format_1)


def _quiet_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--quiet", action="store_true", help="no progress, and no lines on what is in order")


def _json_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for programs")


def _token_commands(commands: Commands) -> None:
    token = commands.add_parser("token", help="add, revoke and list the tokens of the reference app")
    actions = token.add_subparsers(metavar="ACTION", required=True)
    command = _command(actions, "add", "securefs.cli.token:add", "make a token and print it, only once")
    command.add_argument("name", metavar="NAME", help="the user that it signs in")
    _data_option(command)
    command = _command(
        actions, "revoke", "securefs.cli.token:revoke", "revoke a token and the sessions opened with it"
    )
    command.add_argument("who", metavar="ID-OR-NAME", help="a token's id, or a user's name for all of theirs")
    _data_option(command)
    command = _command(actions, "list", "securefs.cli.token:show", "list the tokens, without their secrets")
    _data_option(command)
    _json_option(command)


def _data_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data-dir", metavar="DIR", help="default: SECUREFS_DATA_DIR")


def _audit_commands(commands: Commands) -> None:
    audit = commands.add_parser("audit", help="verify the audit journal, and search it")
    actions = audit.add_subparsers(metavar="ACTION", required=True)
    add_actions(lambda name, run, text: _command(actions, name, run, text))


def _metrics_command(commands: Commands) -> None:
    text = "serve metrics for Prometheus on a loopback address: what workers counted, and what is sealed"
    command = _command(commands, "metrics", "securefs.cli.metrics:run", text)
    command.add_argument("directory", metavar="DIR", nargs="?", help="journal; default: SECUREFS_AUDIT_DIR")
    text = "such as 127.0.0.1:9464; default: SECUREFS_METRICS"
    command.add_argument("--listen", metavar="ADDRESS", help=text)
    log_option(command)
    command.add_argument(
        "--stdin", action="store_true", help="end when standard input ends: for a server that started it"
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PORT)) and int(text) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port number from 0 to {MAX_PORT}")
    return int(text)


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not hexadecimal") from None


if __name__ == "__main__":  # pragma: no cover  # securefs/__main__.py is the way in
    sys.exit(main())
