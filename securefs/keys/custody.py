"""Who can change a key file: only root and the user that runs this program may be able to.

Anyone else who can write to the file, or exchange it, chooses the key that new files are sealed
under. So a key file is refused if its group can write to it, if it belongs to another user, or if
another user controls a folder on the way to it. Folders and links are looked at one after the
other, from the root folder on, as the kernel follows them. What was found stays true, because only
root and this user can change it. These rules hold for root, too.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections import deque
from typing import Final

from securefs.disk import others_can_write
from securefs.keys.material import HOW

__all__ = ["file_fault", "way_fault"]

_ROOT: Final = 0  # user id
_MAX_LINKS: Final = 40  # as in the Linux kernel (path_resolution(7))


def file_fault(status: os.stat_result) -> tuple[str, str] | None:
    """Return (what is wrong with a key file, what to do); None if it may be used.

    Its group may read it, because secrets are mounted like that. The write permission of an access
    control list shows in the same bit as the group's.
    """
    if not stat.S_ISREG(status.st_mode):
        return "is not a regular file", HOW
    if status.st_mode & stat.S_IRWXO:
        return "can be accessed by other users", "run chmod 600 on it"
    if status.st_mode & stat.S_IWGRP:
        return "can be changed by its group", "run chmod g-w on it"
    if status.st_uid not in _trusted():
        return f"belongs to user {status.st_uid}, and this is user {os.geteuid()}", _give()
    return None


def way_fault(path: str) -> tuple[str, str, str] | None:
    """Return (a folder on the way to ``path``, what is wrong with it, what to do); None if nothing.

    :raises OSError: there is no such path, or this user can't follow it.
    """
    here, links = "/", 0  # a path without links, and the number of links that were followed
    ahead = deque(os.path.join(os.getcwd(), path).split("/"))  # noqa: PTH109, PTH118  # keeps ".."
    while ahead:
        part = ahead.popleft()
        if part in {"", "."}:
            continue
        if part == "..":
            here = os.path.dirname(here)  # noqa: PTH120  # without links, the parent is in the text
            continue
        entry = os.path.join(here, part)  # noqa: PTH118
        status = os.lstat(entry)
        if (fault := _folder_fault(os.lstat(here), status)) is not None:
            return here, *fault
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(entry)  # noqa: PTH115
            ahead.extendleft(reversed(target.split("/")))
            here = "/" if target.startswith("/") else here
        else:
            here = entry
    return None


def _folder_fault(folder: os.stat_result, entry: os.stat_result) -> tuple[str, str] | None:
    """Return what lets others exchange an entry of a folder, and what to do; None if nothing."""
    if folder.st_uid not in _trusted():
        return f"belongs to user {folder.st_uid}, and this is user {os.geteuid()}", _give()
    if not others_can_write(folder) or _only_we_can_write(folder):
        return None
    if not folder.st_mode & stat.S_ISVTX:
        return "can be changed by other users", "run chmod go-w on it"
    # In a sticky folder, such as /tmp, nobody else can remove an entry of root or of this user. But
    # whoever finds the name free can put any file of root or of this user there: by a hard link, or
    # by moving it out of another shared folder. A folder can't be linked, and can't be moved there
    # by somebody who may not write to it. A link passes because Kubernetes mounts secrets as links
    # in a sticky folder; all that it leads to is checked.
    if (stat.S_ISDIR(entry.st_mode) or stat.S_ISLNK(entry.st_mode)) and entry.st_uid in _trusted():
        return None
    return "is shared with other users", "put the key file into a folder of its own (mkdir -m 700)"


def _only_we_can_write(folder: os.stat_result) -> bool:
    """Return whether the group that can write to a folder is the private group of this user.

    Where users have groups of their own names, umask 002 is usual, and folders under a home are
    group-writable.
    """
    if folder.st_mode & stat.S_IWOTH or os.geteuid() == _ROOT:
        return False
    try:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(folder.st_gid)
    except KeyError:
        return False
    return (
        user.pw_gid == group.gr_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}
    )


def _trusted() -> frozenset[int]:
    return frozenset({_ROOT, os.geteuid()})


def _give() -> str:
    return f"run chown {os.geteuid()} on it, or use another"
