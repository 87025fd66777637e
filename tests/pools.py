"""Pools of brokers, made by SQL as an operator makes them."""

from tests.stack import Stack


def make_pool(stack: Stack, *broker_ids: int, name: str = "pool") -> int:
    """A pool of these brokers; returns its id."""
    insert = "INSERT INTO pools (name) VALUES (%s) RETURNING id"
    pool_id = int(stack.database.execute(insert, name)[0][0])
    for broker_id in broker_ids:
        member = "INSERT INTO pool_members (pool_id, broker_id) VALUES (%s, %s)"
        stack.database.execute(member, pool_id, broker_id)
    return pool_id
