"""The schema of the one PostgreSQL database that both services share: its history, roles, grants.

Only this package changes the schema, as the role that owns it. `python -m migrations` brings the
database named by MOORING_DATABASE_URL up to date. It may run twice, also at the same time.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Upgrades the database to `head()`, or to an older revision that it has not reached.

    The user of the libpq URL `database_url` owns what is made; it must own the database, and have
    CREATEROLE unless the roles exist already.
    """
    command.upgrade(_config(database_url), revision)


def head() -> str:
    """The revision that this version of Mooring works with."""
    revision = ScriptDirectory.from_config(_config("")).get_current_head()
    if revision is None:
        raise RuntimeError("there are no migrations")
    return revision
