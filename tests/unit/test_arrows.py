"""Imports point one way, and the three services never meet but in the protos."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SERVICES = ("broker_service", "registry_service", "gateway")
PACKAGES = ("chassis", *SERVICES, "migrations", "local", "bench")

# What a package of ours may import of ours.
MAY_IMPORT = {
    "chassis": {"chassis"},
    "broker_service": {"broker_service", "chassis"},
    "registry_service": {"registry_service", "chassis"},
    "gateway": {"gateway", "chassis"},
    "migrations": {"migrations"},
    "local": {"local", "migrations", *SERVICES, "chassis"},
    # What the registry does without batches and memory is a yardstick.
    "bench": {"bench", "local", "chassis", "registry_service"},
}
# Decisions: no database, no network, no clock of the loop; of ours only the errors they raise.
PURE = (
    "broker_service/resolution.py",
    "broker_service/explanation.py",
    "broker_service/certificates/pem.py",
    "broker_service/certificates/reading.py",
    "broker_service/certificates/private_keys.py",
    "broker_service/brokers/settings.py",
    "broker_service/destinations.py",
    "registry_service/provisioning/decision.py",
    "chassis/keyring.py",
    "domain/waves.py",
    "registry_service/credentials.py",
    "registry_service/password_hashes.py",
    "registry_service/admission/reconciler/dynamic_security.py",
    "registry_service/admission/reconciler/listings.py",
    "registry_service/admission/reconciler/planning.py",
    "registry_service/audit/sealing/chain.py",
    "registry_service/admission/decision.py",
    "registry_service/passwords.py",
    "registry_service/admission/listener/questions.py",
    "registry_service/admission/subjects.py",
    "registry_service/topics.py",
    "registry_service/admission/listener/dialects/asked.py",
    "registry_service/admission/listener/dialects/emqx.py",
    "registry_service/admission/listener/dialects/mosquitto.py",
    "registry_service/admission/listener/dialects/rabbitmq.py",
    "registry_service/admission/listener/dialects/vernemq.py",
)
# The only files that speak SQL.
SQL = ("store.py", "tables.py", "database.py")


def imports_of(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module or "")
    return found


def files_of(package: str) -> list[Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    return files


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    for file in files_of(package):
        ours = {name.split(".")[0] for name in imports_of(file)} & {*PACKAGES, "tests"}
        assert ours <= MAY_IMPORT[package], file


@pytest.mark.parametrize("name", PURE)
def test_a_decision_knows_neither_database_nor_network(name: str) -> None:
    service = name.split("/")[0]
    allowed_ours = {f"{service}.errors", "chassis.errors", "chassis.hosts", "chassis.validation"}
    # One decision may be made of another.
    allowed_ours |= {module.removesuffix(".py").replace("/", ".") for module in PURE}
    for imported in imports_of(ROOT / name):
        top = imported.split(".")[0]
        assert imported in allowed_ours or top not in {
            *PACKAGES,
            "sqlalchemy",
            "psycopg",
            "grpc",
            "mooring",
            "asyncio",
        }, imported


@pytest.mark.parametrize("service", SERVICES)
def test_sql_is_in_the_stores(service: str) -> None:
    for file in files_of(service):
        if file.name not in SQL:
            assert not imports_of(file) & {"psycopg", "psycopg.errors"}, file


@pytest.mark.parametrize("package", PACKAGES)
def test_nobody_but_the_frontier_aborts_a_call(package: str) -> None:
    for file in files_of(package):
        if file != ROOT / "chassis" / "server.py":
            assert "context.abort" not in file.read_text(), file


def test_no_cycle_among_the_modules_of_a_package() -> None:
    for package in PACKAGES:
        graph = {
            ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): {
                name for name in imports_of(file) if name.split(".")[0] == package
            }
            for file in files_of(package)
        }
        done: set[str] = set()

        def walk(module: str, above: tuple[str, ...]) -> None:
            assert module not in above, " → ".join((*above, module))
            if module in done or module not in graph:  # noqa: B023
                return
            for imported in graph[module]:  # noqa: B023
                walk(imported, (*above, module))
            done.add(module)  # noqa: B023

        for module in graph:
            walk(module, ())
