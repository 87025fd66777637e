"""The OpenAPI document is whole, and it is true: what it allows and what it does not is sent.

What is walked is the document itself, so that a new operation is covered without being named here.
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
from tests.stack import Stack
from tests.stored import Stored

MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
EXAMPLES = settings(
    max_examples=4,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
MAX_COVERED = 120
load_all_checks()
# Not that whatever the schema allows is accepted: whether a value makes sense beside the others is
# the services' to say.
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
# What is drawn may be wrong in having one query parameter too many, which is ignored.
COMPARED_AT_LIMITS = [*COMPARED, *CHECKS.get_by_names(["negative_data_rejection"])]
ROLES = {
    "viewer": tokens_pb2.ROLE_VIEWER,
    "operator": tokens_pb2.ROLE_OPERATOR,
}
OPEN = ("/healthz", "/readyz")


FILES = ("application/x-ndjson", "text/csv")


@schemathesis.serializer(*FILES)
def file_of(_: Any, value: Any) -> bytes:
    """A file, which is text to the document."""
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
    """What to send with a request: the example of the body, and the secret."""
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    options: dict[str, Any] = {"headers": headers}
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        headers["Content-Type"] = media_type
        example = content["example"]
        options["content"] = example if isinstance(example, str) else json.dumps(example)
    return options


def turn_of(method: str, path: str) -> int:
    """What makes things comes first, what takes them away last."""
    if path.endswith("/credentials/revoke"):
        return 1  # the device stays
    if method == "delete" or path.endswith(("/revoke", "/cancel")):
        return 2
    return 0 if method == "post" else 1


def members(value: Any) -> Any:
    """The names in an object; of a page, those of its items."""
    assert isinstance(value, dict)
    if "items" in value:
        return [members(item) for item in value["items"][:1]]
    return set(value) - {"stale"} if "broker" in value else set(value)


def ends_of(lines: str) -> tuple[Any, Any]:
    """The members of the first line, and of the last."""
    found = [members(json.loads(line)) for line in lines.splitlines()]
    return found[0], found[-1]


def secret_for(stack: Stack, operation: Mapping[str, Any], token: str) -> str:
    """What an operation wants to be shown; `token` where that is an API token."""
    [scheme] = operation.get("security", [{"none": []}])[0]
    secrets: dict[str, str] = {
        "provisioningKey": stack.provisioning_key,
        "deviceApiKey": NewDevice.EXAMPLE["deviceApiKey"],
        "apiToken": token,
        "none": "",
    }
    return secrets[scheme]


async def furnish(stack: Stack) -> None:
    """Makes what the examples speak of: a device, the key that let it in, a row of a job.

    And a broker's secret, and a service account, which are called as theirs are.
    """
    stack.database.execute("UPDATE provisioning_keys SET id = %s", KEY_ID)
    registered = await stack.register(UUID)
    assert registered.status_code == 201, registered.text
    # Of the first job, which nobody runs here.
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


class Messenger:
    """Sends cases one after the other, and compares each answer with the document."""

    def __init__(self, url: str, stored: Stored) -> None:
        """`url` is the gateway's."""
        self._url = url
        self._stored = stored
        self._session = requests.Session()
        # Proxies are looked up in the environment for each request otherwise.
        self._session.trust_env = False
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
            told = (case.operation.label, case.body, response.text)
            assert response.headers["content-type"] == [MEDIA_TYPE], told
            assert response.json()["reason"], told
            assert state == self._state, told
        self._state = state


# It sends thousands of requests, on two cores that other tests use too.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", ["covered", "drawn"])
async def test_the_document_is_true(stack: Stack, kind: str) -> None:
    """No 5xx, every answer as documented, and nothing stored by what is refused."""
    await furnish(stack)
    document = await document_of(stack)
    tokens = {"nobody": ""}
    for name, role in ROLES.items():
        request = tokens_pb2.CreateTokenRequest(name=name, role=role)
        tokens[name] = (await stack.registry.tokens("CreateToken", request)).secret
    # Who may do most comes last, and finds everything as it was.
    tokens["admin"] = stack.admin_token

    def walk(url: str) -> int:
        schema = schemathesis.openapi.from_dict(document)
        with psycopg.connect(stack.database.url("mooring"), autocommit=True) as connection:
            messenger = Messenger(url, Stored(connection))
            # Devices come before administrators restrict the fleet they are in, and what takes
            # things away comes last.
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

    # Whoever asks this much may be wrong as often.
    config = stack.gateway_config(limit_failed_per_address="", limit_failed_per_prefix="")
    async with gateway.__main__.running(config) as url:
        assert await asyncio.to_thread(walk, url) > 100


def cover(messenger: Messenger, schema: Any, operation: Any, secret: str) -> None:
    """Each value that the schema has a limit for: at the limit, and beyond it."""
    generation = schema.config.generation_for(operation=operation, phase="coverage")
    cases = list(
        schema.iter_coverage_cases(operation, generation_modes=MODES, generation_config=generation)
    )
    # Of very many, some of each kind.
    for case in cases[:: 1 + len(cases) // MAX_COVERED]:
        # Whatever is sent as a file is text, as the schema has it.
        checks = COMPARED if case.media_type in FILES else COMPARED_AT_LIMITS
        messenger.send(case, secret, checks)


def draw(messenger: Messenger, operation: Any, mode: Any, secrets: Sequence[str]) -> None:
    """Some of anything that the schema allows, or does not, by whoever has one of `secrets`."""

    @EXAMPLES
    @given(case=operation.as_strategy(generation_mode=mode), is_about_what_exists=st.booleans())
    def send(case: Any, is_about_what_exists: bool) -> None:
        if is_about_what_exists and mode is GenerationMode.POSITIVE:
            for name in case.path_parameters or {}:
                case.path_parameters[name] = PARAMETERS.get(name, case.path_parameters[name])
        for secret in secrets:
            messenger.send(case, secret, COMPARED)

    send()
