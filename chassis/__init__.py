"""The parts that services share: errors, configuration, logs, a server, a client, a database.

They do not depend on devices or brokers. A module belongs here if two services use it.
"""
