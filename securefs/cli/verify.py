"""``securefs verify``: verify every byte of files, and of the encrypted files in folders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from securefs.cli.paths import check_format_1, encrypted_files, finding, planted_slot, require_some
from securefs.cli.terminal import DONE, FINDING, say, say_json
from securefs.disk import read_regular
from securefs.errors import SecureFSError
from securefs.files import verify
from securefs.keys import Keyring

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> int:
    """Verify every byte of the named files, and of the encrypted files in the named folders."""
    check_format_1(arguments)
    keyring = Keyring.from_env()
    results: list[dict[str, Any]] = []
    for path, follow_links in encrypted_files(arguments.paths, format_1=arguments.format_1):
        result = _verify_one(path, keyring, arguments, follow_links=follow_links)
        results.append(result)
        if not arguments.json:
            say(f"FAILED  {path}: {result['error']}" if "error" in result else f"ok      {path}")
            for slot in result.get("planted", ()):
                say(f"PLANTED {path}: {planted_slot(slot['slot'], slot['key_id'], result['key_id'])}")
    require_some(results, arguments)
    failed = sum("error" in result for result in results)
    planted = sum("planted" in result for result in results)
    if arguments.json:
        counts = {"verified": len(results) - failed, "failed": failed, "planted": planted}
        say_json({**counts, "files": results})
    else:
        text = f"{len(results) - failed} verified, {failed} failed"
        say(f"{text}, {planted} with planted slots" if planted else text)
    return FINDING if failed or planted else DONE


def _verify_one(
    path: Path, keyring: Keyring, arguments: argparse.Namespace, *, follow_links: bool
) -> dict[str, Any]:
    try:
        with read_regular(path, follow_links=follow_links) as file:
            info = verify(file, keyring, arguments.context, format_1=arguments.format_1)
    except (SecureFSError, OSError) as error:
        # A file that can't be read was not verified: that is a finding, like a changed file.
        return finding(path, error, "cannot be read")
    result: dict[str, Any] = {
        "path": str(path),
        "format": info.format,
        "suite": info.suite,
        "object_id": info.object_id,
        "key_id": info.key_id,
        "size": info.size,
    }
    if info.passed_over:
        result["planted"] = [{"slot": index, "key_id": key_id} for index, key_id in info.passed_over]
    return result
