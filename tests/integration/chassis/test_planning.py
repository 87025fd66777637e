"""Statements that PostgreSQL plans with the values of their parameters."""

import sqlalchemy as sa

from chassis.database import engine_of, planned_anew, writing
from tests.stack import Database

# The driver prepares a statement when it is executed for the sixth time.
EXECUTIONS = 8
PREPARED = sa.text("SELECT count(*) FROM pg_prepared_statements WHERE starts_with(statement, :of)")


async def test_only_statements_outside_of_the_block_are_prepared(database: Database) -> None:
    engine = engine_of(database.url("mooring_registry"), pool_size=1)
    try:
        async with writing(engine) as connection:

            async def executed(statement: str) -> int:
                for number in range(EXECUTIONS):
                    await connection.execute(sa.text(f"{statement} :number"), {"number": number})
                return int(await connection.scalar(PREPARED, {"of": statement}) or 0)

            async with planned_anew(connection):
                assert await executed("SELECT 1 +") == 0
            assert await executed("SELECT 2 +") == 1
            async with planned_anew(connection):
                assert await executed("SELECT 2 +") == 1
                mode = sa.text("SELECT current_setting('plan_cache_mode')")
                # Foreign keys are checked by statements whose plans are kept.
                assert await connection.scalar(mode) == "auto"
    finally:
        await engine.dispose()
