"""Makes the file of a Mosquitto's dynamic security plugin before the broker starts. With it a
broker holds a thousand devices at once; over the control topic that takes about ten seconds. It
also replaces a broken file: before 2.0.16 Mosquitto writes its file in place, so a broker that is
killed meanwhile restarts with half a file, and without clients.
"""

import hashlib
import os
import shutil
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from registry_service.admission.reconciler.dynamic_security import (
    LIMITS,
    MARK,
    RECEIVE,
    SEND,
    SUBSCRIBE,
    Acl,
    Wanted,
    acl_documents,
    acls_of,
    held_documents,
    limits,
    role_of,
    roles_of,
)
from registry_service.errors import UsernameReserved
from registry_service.password_hashes import PasswordHash

# https://github.com/eclipse-mosquitto/mosquitto/blob/v2.0.11/src/password_mosq.h. The same number
# of iterations as Mosquitto itself uses: passwords of devices are random and long, so they cannot
# be guessed.
ITERATIONS = 101
SALT_BYTES = 12
# A client without a role may only unsubscribe. Roles also grant what is received: otherwise a
# client that connects with another's client id gets that client's subscriptions.
DEFAULT_ACCESS = {
    "publishClientSend": False,
    "publishClientReceive": False,
    "subscribe": False,
    "unsubscribe": True,
}
# This role's name lacks `ROLE_PREFIX`, so the reconciler does not change it.
CONTROL_ROLE = "mooring-control"
CONTROL_TOPICS = "$CONTROL/dynamic-security/#"


def first_fill(
    wanted: Iterable[Wanted],
    *,
    control_username: str,
    control_password: str,
    new_salt: Callable[[], bytes] = lambda: os.urandom(SALT_BYTES),
) -> str:
    """The file's text: the wanted clients, and Mooring's login for the control topic. Clients whose
    password the plugin cannot check are left out (`can_hold`). Raises `UsernameReserved` if a
    wanted client has the username of the login.
    """
    held = sorted((one for one in wanted if can_hold(one)), key=lambda one: one.username)
    if any(one.username == control_username for one in held):
        raise UsernameReserved("is Mooring's own login at the broker", field="username")
    control = frozenset(Acl(kind, CONTROL_TOPICS) for kind in (SEND, RECEIVE, SUBSCRIBE))
    roles = {CONTROL_ROLE: control, **({LIMITS: limits()} if held else {})}
    roles |= {role_of(one.username): acls_of(one.grants) for one in held}
    document = {
        "defaultACLAccess": DEFAULT_ACCESS,
        "clients": [
            {
                "username": control_username,
                "textname": "Mooring's own login",
                "roles": [{"rolename": CONTROL_ROLE}],
                **_hashed(control_password, new_salt()),
            },
            *(
                {
                    "username": one.username,
                    "textname": MARK,
                    "textdescription": one.description,
                    "roles": held_documents(roles_of(one.username)),
                    **_secret(one, new_salt),
                }
                for one in held
            ),
        ],
        "groups": [],
        "roles": [{"rolename": name, "acls": acl_documents(acls)} for name, acls in roles.items()],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode()


def can_hold(one: Wanted) -> bool:
    """Whether the plugin can hold the client's password, or its known hash."""
    if not isinstance(one.password, PasswordHash):
        return True
    if one.password.algorithm != "mosquitto_pbkdf2":
        return False
    return len(b64decode(one.password.hash.split("$")[3])) == SALT_BYTES


def write(path: Path, text: str, *, owner: str | None = None, replaces: bool = False) -> None:
    """Writes the whole file or nothing, readable for the owner only. `owner` is the user that
    Mosquitto runs as, which rewrites the file: only root can change the owner of files. Raises
    `FileExistsError` if there is a file and it must not be replaced: it may hold clients that
    others have made. A broker reads the file only when it starts, and a running broker overwrites
    it.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if owner is not None:
            shutil.chown(unfinished, owner)
        if replaces:
            unfinished.replace(path)
        else:
            os.link(unfinished, path)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


def _secret(one: Wanted, new_salt: Callable[[], bytes]) -> dict[str, object]:
    if isinstance(one.password, PasswordHash):
        _, _, iterations, salt, digest = one.password.hash.split("$")
        return {"password": digest, "salt": salt, "iterations": int(iterations)}
    return _hashed(one.password(), new_salt())


def _hashed(password: str, salt: bytes) -> dict[str, object]:
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS)
    return {
        "password": b64encode(digest).decode(),
        "salt": b64encode(salt).decode(),
        "iterations": ITERATIONS,
    }
