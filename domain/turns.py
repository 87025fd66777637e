"""Names of rows of the table `turns`, which are locked so that one transaction at a time makes a
change.

Two services may change the same thing, so they lock the same row. Only the services may lock them.
"""

PLACEMENT = "placement"
DEVICE_COUNTS = "device_counts"
BROKER_SECRETS = "broker_secrets"
USERNAMES = "usernames"
FIRST_ADMIN = "first_admin"
