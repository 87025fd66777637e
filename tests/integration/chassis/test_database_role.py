"""Each process or command uses the database as one role, and does not start with another."""

import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import broker_service.__main__
import registry_service.__main__
import registry_service.access.__main__
import registry_service.audit.sealing.__main__
from broker_service.config import BrokerServiceConfig, BrokerWorkerConfig, ReencryptConfig
from broker_service.reencrypt.__main__ import reencrypted
from broker_service.worker import __main__ as broker_worker
from chassis.config import DatabaseConfig
from chassis.probes import Probes
from registry_service.administration.server_keys.__main__ import KeysConfig, retired
from registry_service.admission.listener.config import AccessConfig
from registry_service.admission.reconciler.fill import FillConfig, filled
from registry_service.audit.sealing.config import SealingConfig
from registry_service.bootstrap import BootstrapConfig, admin_token
from registry_service.config import RegistryServiceConfig, WorkerConfig
from registry_service.worker import __main__ as worker
from tests.configurations import configurations
from tests.stack import ROLES, Database, Stack, prepared

Start = Callable[[str], Coroutine[Any, Any, object]]
OWNER = "mooring"


async def entered(process: contextlib.AbstractAsyncContextManager[object]) -> None:
    async with process:
        pass


def starts(stack: Stack) -> dict[type[DatabaseConfig], Start]:
    """How to start each process or command with a database URL."""
    ring, encryption_ring = stack.keys_file, stack.encryption_keys_file
    return {
        BrokerServiceConfig: lambda url: entered(
            broker_service.__main__.running(stack.broker_config(database_url=url))
        ),
        RegistryServiceConfig: lambda url: entered(
            registry_service.__main__.running(stack.registry_config(database_url=url))
        ),
        AccessConfig: lambda url: entered(
            registry_service.access.__main__.running(AccessConfig(database_url=url, bind_port=0))
        ),
        SealingConfig: lambda url: entered(
            registry_service.audit.sealing.__main__.running(
                SealingConfig(database_url=url, audit_keys_file=ring)
            )
        ),
        WorkerConfig: lambda url: entered(
            worker.running(WorkerConfig(database_url=url), [], Probes())
        ),
        BrokerWorkerConfig: lambda url: entered(
            broker_worker.running(
                BrokerWorkerConfig(database_url=url, encryption_keys_file=encryption_ring),
                [],
                Probes(),
            )
        ),
        ReencryptConfig: lambda url: reencrypted(
            ReencryptConfig(database_url=url, encryption_keys_file=encryption_ring)
        ),
        KeysConfig: lambda url: retired(KeysConfig(database_url=url, server_keys_file=ring), 2),
        FillConfig: lambda url: filled(
            FillConfig(
                database_url=url, server_keys_file=ring, control_password=SecretStr("x" * 32)
            ),
            1,
            "mooring",
        ),
        BootstrapConfig: lambda url: admin_token(url, "ann", is_another=True),
    }


async def test_each_process_refuses_every_other_role(database: Database, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as exits:
        found = starts(prepared(database, tmp_path, exits))
        assert {kind.process for kind in found} == {
            process
            for process, kinds in configurations().items()
            if any(issubclass(kind, DatabaseConfig) for kind in kinds)
        }
        for kind, start in found.items():
            for role in {*ROLES, OWNER} - {kind.database_role}:
                with pytest.raises(SystemExit) as refused:
                    await start(database.url(role))
                said = f"DATABASE_URL is for the role {role}: this process uses"
                assert str(refused.value) == f"{said} {kind.database_role}", kind
