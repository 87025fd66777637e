"""What any of our services needs: errors, configuration, logs, a server, a client, a database.

It knows no device and no broker. A module enters with its second user.
"""
