"""Drops root's privileges in programs that answer a network; none of them runs as root."""

import os
from collections.abc import Sequence
from pathlib import Path

NOBODY = 65534


def owner_of(folder: Path) -> tuple[int, int]:
    """The user and group that own `folder`; those of `nobody` if it is missing or root's."""
    if not folder.exists() or (owner := folder.stat()).st_uid == 0:
        return NOBODY, NOBODY
    return owner.st_uid, owner.st_gid


def give_away(folder: Path) -> None:
    """Gives `folder` and its contents to its owner, or to `nobody` if that is root, if we
    are root.
    """
    if os.geteuid() == 0:
        uid, gid = owner_of(folder)
        for path in (folder, *folder.rglob("*")):
            os.lchown(path, uid, gid)


def as_owner_of(folder: Path) -> Sequence[str]:
    """Arguments of setpriv with which root becomes the owner of `folder`; none for other users.

    One capability of root's remains: to pass through folders that only root may read.
    """
    if os.geteuid() != 0:
        return ()
    uid, gid = owner_of(folder)
    kept = "-all,+dac_override"
    return (
        *(f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
        *(f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}"),
        # Otherwise access(2), with which PostgreSQL finds its own program, ignores the capability.
        *("--securebits", "+no_setuid_fixup"),
    )
