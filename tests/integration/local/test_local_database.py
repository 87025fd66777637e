"""What `make run` does to a database, and what it refuses to do."""

import pytest

from local.database import bring_up_to_date, url_for
from local.errors import CannotRun
from local.home import SERVICE_ROLES
from tests.stack import Database


def test_roles_of_another_installation_are_not_changed(database: Database) -> None:
    owner_url = database.url("mooring")
    ours = dict.fromkeys(SERVICE_ROLES, database.password)
    bring_up_to_date(owner_url, ours)
    theirs = ours | {"mooring_operator": "another"}
    with pytest.raises(CannotRun, match="another MOORING_HOME"):
        bring_up_to_date(owner_url, theirs)
    assert url_for("mooring_operator", database.password, owner_url) == database.url(
        "mooring_operator"
    )
    assert database.execute("SELECT 1", role="mooring_operator") == [(1,)]
