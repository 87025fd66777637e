"""Servicers: the service that each one serves, and the policies of its methods.

A servicer is a subclass of a class that grpcio generates from a proto. Each of its methods states
its policy with `allows`; the server refuses every call of a method without a policy.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pool import Default

from chassis.trust import Policy

Behaviour = TypeVar("Behaviour", bound=Callable[..., Any])

GENERATED = "_pb2_grpc"


def allows(policy: Policy) -> Callable[[Behaviour], Behaviour]:
    """A decorator that states the policy of a servicer's method."""

    def stated(behaviour: Behaviour) -> Behaviour:
        behaviour.__dict__["policy"] = policy
        return behaviour

    return stated


def policy_of(behaviour: object) -> Policy | None:
    """The policy of a servicer's method; None if it states none."""
    policy: Policy | None = getattr(behaviour, "policy", None)
    return policy


def service_of(servicer: type) -> ServiceDescriptor:
    """The service of a servicer, by its generated class. Raises `TypeError` if it has none."""
    for base in servicer.__mro__:
        if base.__module__.endswith(GENERATED):
            package = base.__module__.rpartition(".")[0]
            name = f"{package}.{base.__name__.removesuffix('Servicer')}"
            service: ServiceDescriptor = Default().FindServiceByName(name)
            return service
    raise TypeError(f"{servicer.__name__} serves no service of the protos")


def policies_of(servicer: type) -> dict[str, Policy]:
    """The policies of a servicer, by the full names of its methods."""
    service = service_of(servicer)
    stated = {
        f"/{service.full_name}/{method.name}": policy_of(getattr(servicer, method.name))
        for method in service.methods
    }
    return {name: policy for name, policy in stated.items() if policy is not None}
