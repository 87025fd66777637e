"""Imports go in one direction, and services have only the protos in common."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SERVICES = ("broker_service", "registry_service", "gateway")
PACKAGES = ("chassis", "domain", *SERVICES, "migrations", "local", "bench")

# The packages of this repository that a package may import.
MAY_IMPORT = {
    "chassis": {"chassis"},
    "domain": {"domain"},
    "broker_service": {"broker_service", "chassis", "domain"},
    "registry_service": {"registry_service", "chassis", "domain"},
    "gateway": {"gateway", "chassis", "domain"},
    "migrations": {"migrations"},
    "local": {"local", "migrations", *SERVICES, "chassis", "domain"},
    # The bench uses the registry's unbatched and uncached code as a yardstick, and unpacks the
    # programs that make the load like the tests do.
    "bench": {"bench", "local", "chassis", "registry_service", "tests"},
}
# The folders of a service that another folder of it may import. Modules beside the folders may be
# imported by all folders and import none of them; processes import what they start.
FOLDERS = {
    "broker_service/brokers": {"broker_service/certificates"},
    "broker_service/health": {"broker_service/brokers"},
    "broker_service/placements": {"broker_service/certificates"},
    "broker_service/pools": {"broker_service/brokers"},
    "broker_service/regions": set[str](),
    "broker_service/certificates": set[str](),
    "registry_service/activity": set[str](),
    "registry_service/provisioning": {"registry_service/activity"},
    "registry_service/reports": {
        "registry_service/activity",
        "registry_service/provisioning",
    },
    "registry_service/administration": set[str](),
    "registry_service/admission": set[str](),
    "registry_service/audit": set[str](),
    "registry_service/bulk": set[str](),
    "registry_service/admission/listener": {
        "registry_service/admission",
        "registry_service/activity",
    },
    "registry_service/admission/reconciler": {"registry_service/admission"},
}
STARTING = ("__main__.py", "bootstrap.py")
# Decisions: no database, no network, no event loop; of other modules only errors.
PURE = (
    "broker_service/resolution.py",
    "broker_service/explanation.py",
    "broker_service/pem.py",
    "broker_service/certificates/reading.py",
    "broker_service/certificates/private_keys.py",
    "broker_service/settings.py",
    "broker_service/simulate/description.py",
    "broker_service/simulate/outcome.py",
    "broker_service/simulate/picture.py",
    "broker_service/simulate/report.py",
    "broker_service/simulate/simulation.py",
    "broker_service/simulate/timeline.py",
    "broker_service/destinations.py",
    "registry_service/provisioning/decision.py",
    "chassis/keyring.py",
    "domain/pools.py",
    "domain/slots.py",
    "domain/choices.py",
    "domain/reports.py",
    "domain/waves.py",
    "broker_service/health/states.py",
    "registry_service/credentials.py",
    "registry_service/password_hashes.py",
    "registry_service/admission/reconciler/dynamic_security.py",
    "registry_service/admission/reconciler/listings.py",
    "registry_service/admission/reconciler/planning.py",
    "registry_service/audit/sealing/chain.py",
    "registry_service/activity/series/latency.py",
    "registry_service/activity/series/ranges.py",
    "registry_service/admission/decision.py",
    "registry_service/passwords.py",
    "registry_service/admission/questions.py",
    "registry_service/admission/subjects.py",
    "registry_service/topics.py",
    "registry_service/admission/listener/dialects/asked.py",
    "registry_service/admission/listener/dialects/emqx.py",
    "registry_service/admission/listener/dialects/mosquitto.py",
    "registry_service/admission/listener/dialects/rabbitmq.py",
    "registry_service/admission/listener/dialects/vernemq.py",
)
# The only files with SQL: stores, recognised by the end of their names; statements that are too
# long for their store; the tables; and the frame of transactions.
SQL_FILES = re.compile(r"(\w+_)?(store|statements)\.py|tables\.py|database\.py")
# The chassis has no stores. These write the audit log, restrict rows to fleets, listen, and take
# leases.
SQL_OF_THE_CHASSIS = (
    *("audit.py", "refusals.py", "isolation.py", "listening.py", "process_table.py", "leases.py"),
    # The second reads the driver's errors.
    *("database.py", "database_failures.py"),
)
SQL_TEXT = re.compile(
    r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|LOCK|SET|NOTIFY|LISTEN|CASE|TRUNCATE)\s"
)
SQL_MAKERS = {"text", "select", "insert", "update", "delete"}


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
def test_a_package_imports_only_allowed_packages(package: str) -> None:
    for file in files_of(package):
        ours = {name.split(".")[0] for name in imports_of(file)} & {*PACKAGES, "tests"}
        assert ours <= MAY_IMPORT[package], file


def test_the_benchmark_imports_only_programs_from_the_tests() -> None:
    found = {name for file in files_of("bench") for name in imports_of(file)}
    # `from tests import x` names only the package.
    assert not {name for name in found if name.startswith("tests.")}
    taken = [
        alias.name
        for file in files_of("bench")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "tests"
        for alias in node.names
    ]
    assert taken == ["debian_packages"]


@pytest.mark.parametrize("name", PURE)
def test_a_decision_imports_neither_database_nor_network(name: str) -> None:
    service = name.split("/")[0]
    allowed_ours = {f"{service}.errors", "chassis.errors", "chassis.hosts", "chassis.validation"}
    # A decision may use other decisions.
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


def test_a_folder_imports_only_allowed_folders() -> None:
    for folder, others in FOLDERS.items():
        service = folder.split("/")[0]
        for file in files_of(folder):
            if inner_folder(file) != folder:
                continue
            for imported in imports_of(file):
                found = folder_of(imported)
                if imported.split(".")[0] != service or found == service:
                    continue
                is_below = found.startswith(f"{folder}/") and found not in FOLDERS
                assert found == folder or is_below or found in others, f"{file}: {imported}"


@pytest.mark.parametrize("service", ["broker_service", "registry_service"])
def test_modules_beside_the_folders_import_none_of_them(service: str) -> None:
    for file in (ROOT / service).glob("*.py"):
        if file.name not in STARTING:
            for imported in imports_of(file):
                if imported.split(".")[0] == service:
                    assert folder_of(imported) == service, f"{file}: {imported}"


def inner_folder(file: Path) -> str:
    """The innermost of `FOLDERS` that contains `file`, or its service."""
    return folder_of(".".join(file.relative_to(ROOT).with_suffix("").parts))


def folder_of(module: str) -> str:
    """The innermost of `FOLDERS` that contains `module`, or its service."""
    parts = module.split(".")
    for length in range(len(parts), 1, -1):
        if "/".join(parts[:length]) in FOLDERS:
            return "/".join(parts[:length])
    return parts[0]


@pytest.mark.parametrize("package", ["chassis", "domain", *SERVICES])
def test_sql_is_in_the_stores(package: str) -> None:
    for file in files_of(package):
        in_chassis = package == "chassis" and file.name in SQL_OF_THE_CHASSIS
        if not in_chassis and not SQL_FILES.fullmatch(file.name):
            assert not imports_of(file) & {"psycopg", "psycopg.errors"}, file
            assert not sql_in(file), file


def sql_in(file: Path) -> list[str]:
    """SQL in `file`, as text or built with SQLAlchemy."""
    tree = ast.parse(file.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in docstrings:
                if SQL_TEXT.match(text):
                    found.append(text)
            case ast.Attribute(value=ast.Name(id="sa"), attr=name) if name in SQL_MAKERS:
                found.append(f"sa.{name}")
            case ast.ImportFrom(module="sqlalchemy", names=names):
                found += [one.name for one in names if one.name in SQL_MAKERS]
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_only_the_guarded_server_aborts_a_call(package: str) -> None:
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
