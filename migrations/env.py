"""How Alembic connects to the database: one transaction, one migrator at a time, no long locks."""

from alembic import context
from sqlalchemy import create_engine, pool, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, ProgrammingError

from migrations.containment import contain
from migrations.indexes import build_missing

# The same table as Alembic makes. Two migrators on an empty database may both try to make it; the
# second fails.
VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS alembic_version (
    version_num varchar(32) NOT NULL CONSTRAINT alembic_version_pkc PRIMARY KEY
)
"""

url = make_url(context.config.attributes["database_url"]).set(drivername="postgresql+psycopg")
engine = create_engine(url, poolclass=pool.NullPool)
try:
    try:
        with engine.begin() as connection:
            connection.execute(text(VERSION_TABLE))
    except (IntegrityError, ProgrammingError):
        with engine.connect() as connection:
            connection.execute(text("SELECT FROM alembic_version"))
    with engine.begin() as connection:
        # A migration that waits for a lock makes every later transaction wait too, so it gives up
        # instead.
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        # Only one migrator runs at a time. Services may read the table, and only its owner may lock
        # it like this.
        connection.execute(text("LOCK TABLE alembic_version IN SHARE UPDATE EXCLUSIVE MODE"))
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
        contain(connection)
        is_head = context.get_context().get_current_revision() == context.get_head_revision()
    if is_head:
        build_missing(engine)
finally:
    engine.dispose()
