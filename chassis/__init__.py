"""What every service needs: errors, configuration, logs, a server, a client, a database.

It knows no device and no broker. A module belongs here if two services use it.
"""
