"""Names of devices and fleets may begin with a hyphen or an underscore, as in base64url."""

from alembic import op

revision = "0027"
down_revision = "0026"

# The same rule as IDENTIFIER of chassis/validation.py. A pattern that counts to 64 takes longer
# than writing a row, so `devices` checks the length separately.
CHANGES = {
    "[A-Za-z0-9][A-Za-z0-9_-]{0,63}": "[A-Za-z0-9_-]{1,64}",
    "[A-Za-z0-9][A-Za-z0-9_-]*": "[A-Za-z0-9_-]+",
}

CONSTRAINTS = """
SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid)
FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace
"""
FUNCTIONS = """
SELECT pg_get_functiondef(oid) FROM pg_proc
WHERE pronamespace = 'public'::regnamespace AND prokind = 'f'
"""


def upgrade() -> None:
    """Replaces the rule in every constraint and function that has it."""
    connection = op.get_bind()
    for table, name, rule in connection.exec_driver_sql(CONSTRAINTS).all():
        if (changed := _changed(rule)) != rule:
            # Validated separately, so that reads can go on meanwhile.
            connection.exec_driver_sql(
                f"ALTER TABLE {table} DROP CONSTRAINT {name},"
                f" ADD CONSTRAINT {name} {changed} NOT VALID".replace("%", "%%")
            )
            connection.exec_driver_sql(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")
    for (definition,) in connection.exec_driver_sql(FUNCTIONS).all():
        if (changed := _changed(definition)) != definition:
            connection.exec_driver_sql(changed.replace("%", "%%"))


def _changed(text: str) -> str:
    for old, new in CHANGES.items():
        text = text.replace(old, new)
    return text
