"""The contents of a database, to check that a refused request has changed none of them."""

from psycopg import Connection, sql

# Tables that change with a request whether it is refused or not.
NOTED_TABLES = (
    *("alembic_version", "audit_%", "api_key_failures"),
    *("processes", "kind_changes%"),
    *("registration_counts", "refusal_counts", "device_events"),
)
NOTED_COLUMNS = ["last_used_at", "last_seen_at"]

TABLES = """
SELECT tablename FROM pg_tables
WHERE schemaname = 'public' AND NOT tablename LIKE ANY (%s) ORDER BY tablename
"""
# Rows as JSON, so that a column that may change can be left out even if a table lacks it.
SUM = """
SELECT {label}, count(*),
       coalesce(sum(hashtextextended((to_jsonb(t) - %(noted)s::text[])::text, 0)), 0)
FROM {table} AS t
"""
# It changes with each transaction that writes, from its first statement to its end.
SNAPSHOT = "SELECT pg_current_snapshot()::text"


class Stored:
    """One connection, which is used repeatedly."""

    def __init__(self, connection: Connection) -> None:
        """`connection` commits by itself, and may read everything."""
        tables = [name for (name,) in connection.execute(TABLES, [list(NOTED_TABLES)])]
        assert "devices" in tables
        self._connection = connection
        self._query = sql.SQL(" UNION ALL ").join(
            sql.SQL(SUM).format(label=sql.Literal(name), table=sql.Identifier(name))
            for name in tables
        )
        self._snapshot = ""
        self._found: dict[str, tuple[int, int]] = {}

    def now(self) -> dict[str, tuple[int, int]]:
        """The number of rows of each table, and a checksum of their contents."""
        [(snapshot,)] = self._connection.execute(SNAPSHOT).fetchall()
        # Most refused requests begin no transaction that writes.
        if snapshot != self._snapshot:
            rows = self._connection.execute(self._query, {"noted": NOTED_COLUMNS}).fetchall()
            self._found = {name: (count, int(total)) for name, count, total in rows}
            # A change since `snapshot` is read again by the next call.
            self._snapshot = snapshot
        return dict(self._found)
