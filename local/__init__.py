"""Mooring on one machine, for `make run`: an embedded PostgreSQL, the services and a Mosquitto.

`python -m local` is the supervisor. All that it keeps is in MOORING_HOME. Tests use
`local.postgres` alone, to start their PostgreSQL.
"""
