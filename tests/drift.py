"""Checks what is written twice: protos and their generated code, tables and migrations.

`python -m tests.drift protos` fails if protos/gen differs from what the protos generate; `--write`
replaces it. `python -m tests.drift tables` migrates a real database and compares it with the
services' tables.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import broker_service.tables
import migrations
import registry_service.tables
from local.postgres import Postgres, prepare

ROOT = Path(__file__).parent.parent
PROTOS = ROOT / "protos"
GENERATED = PROTOS / "gen"


def generate(folder: Path) -> None:
    """Writes the modules and stubs of all protos below `folder`."""
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTOS}",
        f"--python_out={folder}",
        f"--grpc_python_out={folder}",
        f"--mypy_out=quiet:{folder}",
        f"--mypy_grpc_out=only_async,quiet:{folder}",
        *sorted(str(file.relative_to(PROTOS)) for file in PROTOS.glob("mooring/**/*.proto")),
    ]
    # The plugins are found on PATH, beside this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    subprocess.run(command, check=True, env={**os.environ, "PATH": path}, cwd=PROTOS)


def contents(folder: Path) -> dict[str, bytes]:
    """The generated files below `folder`, by relative path."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*.py*")
        if "__pycache__" not in file.parts
    }


def check_protos(*, write: bool) -> None:
    """Compares protos/gen with what the protos generate, or replaces it."""
    if write:
        shutil.rmtree(GENERATED, ignore_errors=True)
        GENERATED.mkdir()
        generate(GENERATED)
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch)
        generate(fresh)
        wanted, found = contents(fresh), contents(GENERATED)
    drifted = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )
    if drifted:
        raise SystemExit(f"run `make protos`: {', '.join(drifted)}")


def check_tables() -> None:
    """Compares the services' tables with the result of the migrations."""
    wanted = sa.MetaData()
    for metadata in (broker_service.tables.metadata, registry_service.tables.metadata):
        for table in metadata.tables.values():
            table.to_metadata(wanted)
    with tempfile.TemporaryDirectory() as home, Postgres(Path(home)) as server:
        url = prepare(server, secrets.token_urlsafe())
        migrations.upgrade(url)
        engine = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"))
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True}
            )
            with warnings.catch_warnings():
                # SQLAlchemy warns of an option that it sets itself for constraints that are NOT
                # VALID.
                warnings.filterwarnings("ignore", "Can't validate argument 'dialect_options'")
                differences = compare_metadata(context, wanted)
        engine.dispose()
    for service in (broker_service.tables, registry_service.tables):
        if migrations.head() != service.SCHEMA_REVISION:
            differences.append((service.__name__, "SCHEMA_REVISION", migrations.head()))
    if differences:
        raise SystemExit("\n".join(map(str, ["tables and migrations disagree:", *differences])))


if __name__ == "__main__":
    if sys.argv[1:2] == ["protos"]:
        check_protos(write="--write" in sys.argv)
    elif sys.argv[1:] == ["tables"]:
        check_tables()
    else:
        raise SystemExit(__doc__)
