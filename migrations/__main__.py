"""`python -m migrations`: brings the database named by MOORING_DATABASE_URL up to date."""

import os

from sqlalchemy.exc import DBAPIError

from migrations import head, upgrade

database_url = os.environ.get("MOORING_DATABASE_URL")
if not database_url:
    raise SystemExit("MOORING_DATABASE_URL is not set: postgresql://owner:password@host/database")
try:
    upgrade(database_url)
except DBAPIError as error:
    raise SystemExit(f"the database: {str(error.orig).strip().splitlines()[0]}") from None
print(f"the schema is at {head()}")  # noqa: T201
