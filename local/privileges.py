"""How root becomes somebody else in what it starts: nobody who answers a network is root here."""

import os
from collections.abc import Sequence
from pathlib import Path

NOBODY = 65534


def owner_of(folder: Path) -> tuple[int, int]:
    """The user and group that own `folder`; nobody where it is missing, or root's."""
    if not folder.exists() or (owner := folder.stat()).st_uid == 0:
        return NOBODY, NOBODY
    return owner.st_uid, owner.st_gid


def give_away(folder: Path) -> None:
    """Where we are root, `folder` and all in it become its owner's, or nobody's if that is root."""
    if os.geteuid() == 0:
        uid, gid = owner_of(folder)
        for path in (folder, *folder.rglob("*")):
            os.lchown(path, uid, gid)


def as_owner_of(folder: Path) -> Sequence[str]:
    """Arguments of setpriv with which root becomes the owner of `folder`; others stay themselves.

    Of root's capabilities one remains: to pass through folders that are root's alone.
    """
    if os.geteuid() != 0:
        return ()
    uid, gid = owner_of(folder)
    kept = "-all,+dac_override"
    return (
        *(f"--reuid={uid}", f"--regid={gid}", "--clear-groups"),
        *(f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}"),
        # Else access(2), by which PostgreSQL finds itself, leaves the capability out.
        *("--securebits", "+no_setuid_fixup"),
    )
