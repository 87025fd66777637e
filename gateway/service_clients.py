"""The two services that the gateway calls."""

from typing import Any, cast

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mooring.broker.v1 import (
    brokers_pb2_grpc,
    certificates_pb2_grpc,
    device_counts_pb2_grpc,
    history_pb2_grpc,
    pool_history_pb2_grpc,
    pools_pb2_grpc,
    references_pb2_grpc,
    regions_pb2_grpc,
    resolution_pb2_grpc,
    rotations_pb2_grpc,
)
from mooring.registry.v1 import (
    audit_pb2_grpc,
    broker_secrets_pb2_grpc,
    broker_users_pb2_grpc,
    devices_pb2_grpc,
    enforcement_pb2_grpc,
    expected_devices_pb2_grpc,
    fleets_pb2_grpc,
    jobs_pb2_grpc,
    pool_users_pb2_grpc,
    provisioning_keys_pb2_grpc,
    registration_pb2_grpc,
    reports_pb2_grpc,
    rollouts_pb2_grpc,
    series_pb2_grpc,
    server_keys_pb2_grpc,
    service_accounts_pb2_grpc,
    sessions_pb2_grpc,
    system_pb2_grpc,
    timeline_pb2_grpc,
    tokens_pb2_grpc,
)

from chassis.client import ServiceClient
from chassis.trust import Credentials
from gateway.config import GatewayConfig

HealthCheck = grpc.aio.UnaryUnaryMultiCallable[
    health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
]


class ServiceClients:
    """A channel to each service, and the stubs of its methods."""

    def __init__(self, config: GatewayConfig) -> None:
        """Connects at the first call."""
        credentials = Credentials.of(config)
        self.registry = ServiceClient(config.registry_service_address, credentials)
        self.broker = ServiceClient(config.broker_service_address, credentials)

        registry = self.registry.channel
        self.registration = registration_pb2_grpc.RegistrationServiceStub(registry)
        self.reports = reports_pb2_grpc.ReportServiceStub(registry)
        self.devices = devices_pb2_grpc.DeviceServiceStub(registry)
        self.expected_devices = expected_devices_pb2_grpc.ExpectedDeviceServiceStub(registry)
        self.fleets = fleets_pb2_grpc.FleetServiceStub(registry)
        self.rollouts = rollouts_pb2_grpc.RolloutServiceStub(registry)
        self.provisioning_keys = provisioning_keys_pb2_grpc.ProvisioningKeyServiceStub(registry)
        self.tokens = tokens_pb2_grpc.TokenServiceStub(registry)
        self.sessions = sessions_pb2_grpc.SessionServiceStub(registry)
        self.broker_users = broker_users_pb2_grpc.BrokerUserServiceStub(registry)
        self.pool_users = pool_users_pb2_grpc.PoolUserServiceStub(registry)
        self.broker_secrets = broker_secrets_pb2_grpc.BrokerSecretServiceStub(registry)
        self.service_accounts = service_accounts_pb2_grpc.ServiceAccountServiceStub(registry)
        self.enforcement = enforcement_pb2_grpc.EnforcementServiceStub(registry)
        self.jobs = jobs_pb2_grpc.JobServiceStub(registry)
        self.server_keys = server_keys_pb2_grpc.ServerKeyServiceStub(registry)
        self.series = series_pb2_grpc.SeriesServiceStub(registry)
        self.timeline = timeline_pb2_grpc.TimelineServiceStub(registry)
        self.audit = audit_pb2_grpc.AuditServiceStub(registry)
        self.system = system_pb2_grpc.SystemServiceStub(registry)
        self.registry_health = _health_checks(self.registry)

        self.brokers = brokers_pb2_grpc.BrokerServiceStub(self.broker.channel)
        self.resolution = resolution_pb2_grpc.ResolutionServiceStub(self.broker.channel)
        self.broker_history = history_pb2_grpc.BrokerHistoryServiceStub(self.broker.channel)
        self.pools = pools_pb2_grpc.PoolServiceStub(self.broker.channel)
        self.pool_history = pool_history_pb2_grpc.PoolHistoryServiceStub(self.broker.channel)
        self.regions = regions_pb2_grpc.RegionServiceStub(self.broker.channel)
        self.broker_references = references_pb2_grpc.BrokerReferenceServiceStub(self.broker.channel)
        self.device_counts = device_counts_pb2_grpc.DeviceCountServiceStub(self.broker.channel)
        self.certificates = certificates_pb2_grpc.CertificateServiceStub(self.broker.channel)
        self.rotations = rotations_pb2_grpc.RotationServiceStub(self.broker.channel)
        self.broker_health = _health_checks(self.broker)

    async def close(self) -> None:
        """Ends the channels; calls under way are cancelled."""
        await self.registry.close()
        await self.broker.close()


def _health_checks(client: ServiceClient) -> tuple[HealthCheck, HealthCheck]:
    """The health check of a healthy replica, and of any replica. The stubs' types lack `Check`."""
    stubs = (
        health_pb2_grpc.HealthStub(channel) for channel in (client.channel, client.any_replica)
    )
    healthy, any_replica = (cast("HealthCheck", cast("Any", stub).Check) for stub in stubs)
    return healthy, any_replica
