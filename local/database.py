"""Prepares the database as its owner: checks it, migrates it, and lets the services log in."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql
from sqlalchemy.exc import SQLAlchemyError

import migrations
from broker_service.config import ReencryptConfig
from broker_service.reencrypt.__main__ import reencrypted
from chassis.errors import MooringError
from local.errors import CannotRun
from registry_service.audit.sealing.lost_key import lost_key_at

OLDEST = 14
CONNECT_S = 10


def bring_up_to_date(owner_url: str, passwords: Mapping[str, str]) -> None:
    """Migrates the database, then lets the roles in `passwords` log in.

    Raises `CannotRun` with one line if the database cannot be reached or is too old, or if its user
    lacks a right.
    """
    try:
        with psycopg.connect(owner_url, connect_timeout=CONNECT_S) as connection:
            version = connection.info.server_version // 10_000
            if version < OLDEST:
                raise CannotRun(f"the database is PostgreSQL {version}; {OLDEST} is the oldest")
        migrations.upgrade(owner_url)
        with psycopg.connect(owner_url, connect_timeout=CONNECT_S) as connection:
            for role, password in passwords.items():
                demand_ours(connection, role, url_for(role, password, owner_url))
                let_in(connection, role, password)
    except (psycopg.Error, SQLAlchemyError) as error:
        reason = getattr(error, "orig", None) or error
        raise CannotRun(f"the database: {str(reason).strip().splitlines()[0]}") from error


def bind_passwords(broker_url: str, encryption_keys: Path) -> Sequence[str]:
    """Binds brokers' passwords of earlier versions to their destinations.

    Returns the places of passwords that cannot be decrypted. Raises `CannotRun` if the database
    cannot be reached.
    """
    config = ReencryptConfig(
        database_url=broker_url,
        encryption_keys_file=encryption_keys,
        # The services themselves check the settings of their logs.
        log_level="INFO",
    )
    try:
        done = asyncio.run(reencrypted(config))
    except MooringError as error:
        raise CannotRun(f"the brokers' passwords: {error.message}") from error
    return done.unreadable


def demand_audit_key(sealer_url: str, audit_keys: Path) -> None:
    """Raises `CannotRun` if the key of the audit log's last seal is missing.

    The sealer would only log this, because no other process depends on it.
    """
    try:
        lost = asyncio.run(lost_key_at(sealer_url, audit_keys))
    except MooringError as error:
        raise CannotRun(f"the audit log: {error.message}") from error
    if lost is not None:
        raise CannotRun(lost)


def demand_ours(connection: psycopg.Connection, role: str, role_url: str) -> None:
    """Raises `CannotRun` if `role` can log in already, but not with our password.

    Roles belong to the whole server. A new password for this one would lock out the other
    installation that uses it.
    """
    row = connection.execute(
        "SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", [role]
    ).fetchone()
    if row is None or not row[0]:
        return
    try:
        psycopg.connect(role_url, connect_timeout=CONNECT_S).close()
    except psycopg.OperationalError:
        raise CannotRun(
            f"the role {role} has another password: this PostgreSQL serves the Mooring of another"
            " MOORING_HOME"
        ) from None


def let_in(connection: psycopg.Connection, role: str, password: str) -> None:
    """Lets `role` log in. Only the password's verifier is sent, so that no log can contain the
    password.
    """
    verifier = connection.pgconn.encrypt_password(
        password.encode(), role.encode(), b"scram-sha-256"
    )
    connection.execute(
        sql.SQL("ALTER ROLE {} LOGIN PASSWORD {}").format(
            sql.Identifier(role), sql.Literal(verifier.decode())
        )
    )


def url_for(role: str, password: str, owner_url: str) -> str:
    """The `owner_url` with another role."""
    parts = urlsplit(owner_url)
    address = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{quote(password, safe='')}@{address}"))
