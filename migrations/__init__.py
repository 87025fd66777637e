"""The one PostgreSQL database that both services share: its history, its roles, its grants.

Only this package changes the schema, as the role that owns it. `python -m migrations` brings the
database named by MOORING_DATABASE_URL up to date; running it twice, or twice at once, is safe.
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
    """Brings the database to `head()`, or to an older revision that it has not reached.

    The user of the libpq URL `database_url` owns what is made; it owns the database and has
    CREATEROLE, or the roles exist already.
    """
    command.upgrade(_config(database_url), revision)


def head() -> str:
    """The revision this version of Mooring works with."""
    revision = ScriptDirectory.from_config(_config("")).get_current_head()
    if revision is None:
        raise RuntimeError("there are no migrations")
    return revision
