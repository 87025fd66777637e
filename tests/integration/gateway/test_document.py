"""The OpenAPI document is complete and true: requests that it allows and forbids are sent.

The tests walk the document itself, so they cover new operations without naming them here.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import psycopg
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mooring.registry.v1 import tokens_pb2
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

import gateway.__main__
from gateway.device_routes import NewDevice
from gateway.examples import ACCOUNT_ID, KEY_ID, PARAMETERS, SECRET_ID, UUID
from gateway.problems import MEDIA_TYPE
from gateway.reasons import MEANINGS
from tests.events import FirstEventAdapter
from tests.stack import PATIENCE_S, Stack
from tests.stored import Stored
from tests.unit.broker_service.certificates.test_certificates import root

MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
EXAMPLES = settings(
    max_examples=3,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
MAX_COVERED = 60
load_all_checks()
# The checks do not expect that everything the schema allows is accepted: the services decide
# whether a value fits the others.
COMPARED = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "unsupported_method",
    ]
)
# A drawn request may be invalid only by an additional query parameter, which is ignored.
COMPARED_AT_LIMITS = [*COMPARED, *CHECKS.get_by_names(["negative_data_rejection"])]
ROLES = {
    "viewer": tokens_pb2.ROLE_VIEWER,
    "operator": tokens_pb2.ROLE_OPERATOR,
}
OPEN = ("/healthz", "/readyz")


FILES = ("application/x-ndjson", "text/csv")


@schemathesis.serializer(*FILES)
def file_of(_: Any, value: Any) -> bytes:
    """The content of a file, which is text in the document."""
    return str(value).encode(errors="replace")


async def document_of(stack: Stack) -> dict[str, Any]:
    document: dict[str, Any] = (await stack.http.get("/openapi.json")).json()
    return document


def operations_of(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The path, the method, the operation."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


async def test_every_operation_says_what_it_does_and_how_it_fails(stack: Stack) -> None:
    document = await document_of(stack)
    operations = list(operations_of(document))
    names = [operation["operationId"] for _, _, operation in operations]
    assert len(set(names)) == len(names)
    assert json.dumps(document).count("#/components/schemas/Page_") == 0
    assert set(document["components"]["securitySchemes"]) == {
        *("provisioningKey", "deviceApiKey", "apiToken")
    }
    for path, method, operation in operations:
        name = f"{method.upper()} {path}"
        is_open = path in OPEN
        assert operation["summary"].strip(), name
        assert ("security" in operation) != is_open, name
        statuses = set(operation["responses"])
        assert {"400", "500", "503"} <= statuses, name
        assert is_open or {"401"} <= statuses, name
        assert ("requestBody" in operation) == ({"413", "415", "422"} <= statuses), name
        for parameter in operation.get("parameters", ()):
            assert parameter["in"] != "path" or "example" in parameter, (name, parameter)
        for status, response in operation["responses"].items():
            if int(status) >= 400 and not is_open:
                check_refusal(name, status, response)


def check_refusal(name: str, status: str, response: Mapping[str, Any]) -> None:
    """An error says which reasons it can have, and has an example of each."""
    content = response["content"][MEDIA_TYPE]
    reasons = content["schema"]["allOf"][1]["properties"]["reason"]["enum"]
    assert reasons, (name, status)
    assert set(content["examples"]) == set(reasons), (name, status)
    for reason in reasons:
        assert MEANINGS[reason][1] in response["description"], (name, status, reason)
        assert content["examples"][reason]["value"]["status"] == int(status)


async def test_every_body_and_every_answer_has_an_example(stack: Stack) -> None:
    for path, method, operation in operations_of(await document_of(stack)):
        answers = [
            response for status, response in operation["responses"].items() if int(status) < 400
        ]
        for body in [operation.get("requestBody", {}), *answers]:
            for content in body.get("content", {}).values():
                assert "example" in content, (method, path, content)


async def test_what_the_examples_show_is_what_happens(stack: Stack) -> None:
    """Each body is accepted, and each answer has the members of its example."""
    await furnish(stack)
    document = await document_of(stack)
    operations = sorted(operations_of(document), key=lambda found: turn_of(found[1], found[0]))
    for path, method, operation in operations:
        parameters = {
            parameter["name"]: str(parameter["example"])
            for parameter in operation.get("parameters", ())
            if parameter["in"] == "path"
        }
        url = path.format(**parameters)
        body = operation.get("requestBody")
        secret = secret_for(stack, operation, stack.admin_token)
        response = await stack.http.request(method.upper(), url, **sending(operation, secret))
        documented = operation["responses"].get(str(response.status_code))
        assert documented is not None, (method, path, response.text)
        if body:
            assert response.status_code < 300, (method, path, response.text)
        if response.status_code < 300 and (content := documented.get("content")):
            [(media_type, shown)] = [(kind, each["example"]) for kind, each in content.items()]
            assert response.headers["content-type"].partition(";")[0] == media_type
            if isinstance(shown, str):
                assert ends_of(response.text) == ends_of(shown), (method, path)
            else:
                assert members(response.json()) == members(shown), (method, path)


def sending(operation: Mapping[str, Any], secret: str = "") -> dict[str, Any]:
    """What to send with a request: the secret and the example of the body."""
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    options: dict[str, Any] = {"headers": headers}
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        headers["Content-Type"] = media_type
        example = content["example"]
        options["content"] = example if isinstance(example, str) else json.dumps(example)
    return options


def turn_of(method: str, path: str) -> int:
    """Puts operations that create first, and those that delete or revoke last."""
    if path.endswith("/credentials/revoke"):
        return 1  # the device stays
    if method == "delete" or path.endswith(("/revoke", "/cancel")):
        return 2
    return 0 if method == "post" else 1


def members(value: Any) -> Any:
    """The names in an object; for a page, those of its first item."""
    assert isinstance(value, dict)
    if "items" in value:
        return [members(item) for item in value["items"][:1]]
    return set(value) - {"stale"} if "broker" in value else set(value)


def ends_of(lines: str) -> tuple[Any, Any]:
    """The members of the first and of the last line."""
    data = [line.removeprefix("data: ") for line in lines.splitlines()]
    found = [members(json.loads(line)) for line in data if line.startswith("{")]
    return found[0], found[-1]


def secret_for(stack: Stack, operation: Mapping[str, Any], token: str) -> str:
    """The secret that an operation needs; `token` where that is an API token."""
    [scheme] = operation.get("security", [{"none": []}])[0]
    secrets: dict[str, str] = {
        "provisioningKey": stack.provisioning_key,
        "deviceApiKey": NewDevice.EXAMPLE["deviceApiKey"],
        "apiToken": token,
        "none": "",
    }
    return secrets[scheme]


async def furnish(stack: Stack, ca_pem: str = "") -> None:
    """Makes what the examples name: a device, its provisioning key, and a row of a job. The
    certificate is `ca_pem`, if it is given.

    It also makes a broker's secret, a service account, a certificate, two pools and a region, with
    the ids of the examples, and a broker that Mooring manages. Then it waits until a process has
    reported itself.
    """
    stack.database.execute("UPDATE provisioning_keys SET id = %s", KEY_ID)
    registered = await stack.register(UUID)
    assert registered.status_code == 201, registered.text
    # The row of the first job, which no process runs here.
    row = "INSERT INTO job_rows (job_id, number, device_uuid, outcome) VALUES (1, 9, %s, 'moved')"
    stack.database.execute(row, UUID)
    secret = (
        "INSERT INTO broker_secrets (id, broker_id, secret_hash, prefix) VALUES (%s, 1, '', '')"
    )
    stack.database.execute(secret, SECRET_ID)
    account = (
        "INSERT INTO service_accounts (id, username, password_hash, password_salt)"
        " VALUES (%s, 'bridge', '', '')"
    )
    stack.database.execute(account, ACCOUNT_ID)
    managed = {
        "name": "Managed",
        "host": "localhost",
        "port": 1883,
        "management": "mosquitto",
        "username": "mooring",
        "password": "p",
    }
    certificate = {"kind": "ca", "pem": ca_pem or root()}
    pool = {"members": [{"broker_id": 1}]}
    for path, fields in (
        ("/brokers", managed),
        ("/certificates", certificate),
        ("/pools", {"name": "First", **pool}),
        ("/pools", {"name": "Second", **pool}),
        ("/regions", {"id": "north", "pool_id": 1}),
    ):
        made = await stack.admin("POST", path, json=fields)
        assert made.status_code == 201, made.text
    async with asyncio.timeout(PATIENCE_S):
        while not (await stack.admin("GET", "/system/processes")).json()["items"]:
            await asyncio.sleep(0.1)


class Messenger:
    """Sends cases one after the other, and compares each answer with the document."""

    def __init__(self, url: str, stored: Stored) -> None:
        """`url` is the gateway's."""
        self._url = url
        self._stored = stored
        self._session = requests.Session()
        # Otherwise requests reads the environment for proxies at each call.
        self._session.trust_env = False
        self._session.mount(url, FirstEventAdapter())
        self._state = stored.now()
        self.sent = 0

    def send(self, case: Any, secret: str, checks: Sequence[Any]) -> None:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        response = case.call(base_url=self._url, headers=headers, session=self._session)
        self.sent += 1
        case.validate_response(response, checks=checks, headers=headers)
        assert response.status_code < 500 or response.json()["reason"] == "NO_BROKER_FOR_FLEET"
        state = self._stored.now()
        if response.status_code >= 400:
            what = (case.operation.label, case.body, response.text)
            assert response.headers["content-type"] == [MEDIA_TYPE], what
            assert response.json()["reason"], what
            assert state == self._state, what
        self._state = state


# It sends thousands of requests, on two cores that other tests use too.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["covered", "drawn"])
async def test_the_document_is_true(stack: Stack, kind: str) -> None:
    """No 5xx, every answer as documented, and a refused request stores nothing."""
    await furnish(stack)
    document = await document_of(stack)
    tokens = {"no token": ""}
    for name, role in ROLES.items():
        request = tokens_pb2.CreateTokenRequest(name=name, role=role)
        tokens[name] = (await stack.registry.tokens("CreateToken", request)).secret
    # The role that may do most comes last, and finds everything as it was.
    tokens["admin"] = stack.admin_token

    def walk(url: str) -> int:
        schema = schemathesis.openapi.from_dict(document)
        with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
            messenger = Messenger(url, Stored(connection))
            # Devices' operations come first, before administrators restrict their fleet; operations
            # that
            # delete come last.
            operations = sorted(
                [found.ok() for found in cast("Any", schema.get_all_operations())],
                key=lambda operation: (
                    not operation.path.startswith("/api/v1/device/"),
                    turn_of(operation.method, operation.path),
                ),
            )
            for operation in operations:
                described = document["paths"][operation.path][operation.method]
                if kind == "covered":
                    cover(
                        messenger, schema, operation, secret_for(stack, described, tokens["admin"])
                    )
                else:
                    secrets = {secret_for(stack, described, token): 0 for token in tokens.values()}
                    takes_anything = "parameters" in described or "requestBody" in described
                    for mode in MODES if takes_anything else MODES[:1]:
                        draw(messenger, operation, mode, list(secrets))
            return messenger.sent

    # These limits are off, because the test sends many requests with wrong secrets.
    config = stack.gateway_config(limit_failed_per_address="", limit_failed_per_prefix="")
    async with gateway.__main__.running(config) as url:
        assert await asyncio.to_thread(walk, url) > 100


def cover(messenger: Messenger, schema: Any, operation: Any, secret: str) -> None:
    """Sends values at each limit of the schema, and beyond it."""
    generation = schema.config.generation_for(operation=operation, phase="coverage")
    cases = list(
        schema.iter_coverage_cases(operation, generation_modes=MODES, generation_config=generation)
    )
    # There are very many cases: some of each kind are sent.
    for case in cases[:: 1 + len(cases) // MAX_COVERED]:
        # Anything that is sent as a file is text, as the schema says.
        checks = COMPARED if case.media_type in FILES else COMPARED_AT_LIMITS
        messenger.send(case, secret, checks)


def draw(messenger: Messenger, operation: Any, mode: Any, secrets: Sequence[str]) -> None:
    """Sends arbitrary requests that the schema allows or forbids, with each of `secrets`."""

    @EXAMPLES
    @given(case=operation.as_strategy(generation_mode=mode), is_about_what_exists=st.booleans())
    def send(case: Any, is_about_what_exists: bool) -> None:
        if is_about_what_exists and mode is GenerationMode.POSITIVE:
            for name in case.path_parameters or {}:
                case.path_parameters[name] = PARAMETERS.get(name, case.path_parameters[name])
        for secret in secrets:
            messenger.send(case, secret, COMPARED)

    send()
