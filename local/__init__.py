"""Everything on one machine: an embedded PostgreSQL and the three services, for `make run`.

`python -m local` is the supervisor. Whatever it keeps is under MOORING_HOME. `local.postgres` is
of use alone: tests run on the PostgreSQL that it starts.
"""
