"""How Alembic reaches the database: one transaction, one migrator at a time, no long locks."""

from alembic import context
from sqlalchemy import create_engine, pool, text
from sqlalchemy.engine import make_url

# Any fixed number; two migrators on one database take turns on it.
ADVISORY_LOCK = 7_305_811

url = make_url(context.config.attributes["database_url"]).set(drivername="postgresql+psycopg")
engine = create_engine(url, poolclass=pool.NullPool)
try:
    with engine.connect() as connection:
        # A migration that waits for a lock makes everybody behind it wait: it gives up instead.
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.execute(text(f"SELECT pg_advisory_lock({ADVISORY_LOCK})"))
        connection.commit()
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
finally:
    engine.dispose()
