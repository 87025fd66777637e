"""The attributes of a device are declared once, and all that names them agrees."""

import re
from typing import Any

import msgspec
import pytest
from mooring.registry.v1 import devices_pb2, expected_devices_pb2, registration_pb2

from chassis.errors import InvalidInput
from gateway.administration.device_filters import DeviceFilter
from gateway.administration.device_types import DeviceChange
from gateway.administration.expected_device_types import NewExpectedDevice
from gateway.administration.imports import ImportedDevice
from gateway.device_routes import NewDevice
from registry_service.attributes import EXPECTED, NAMES, NOWHERE, TEXTS, read_attributes
from registry_service.tables import devices
from tests import REPOSITORY

FILLED: dict[str, Any] = {name: "x" * length.shortest for name, length in TEXTS.items()}
# Hand-written code; tests, documents and generated code are not counted.
SOURCES = [
    file
    for folder in (
        *("chassis", "domain", "broker_service", "registry_service", "gateway", "local"),
        *("migrations", "protos/mooring"),
    )
    for kind in ("*.py", "*.proto", "*.sql")
    for file in (REPOSITORY / folder).rglob(kind)
]
MAX_FILES = 15
# Files in which one attribute has a special rule.
OWN_RULES = {
    # A key is restricted to types, an answer contains the type, an imported device has a default
    # one, lists have an index of types and count them, and pages have a field for the type.
    "device_type": {
        *(
            f"registry_service/provisioning/{name}.py"
            for name in ("decision", "plans", "records", "servicer", "statements")
        ),
        *("gateway/answers.py", "registry_service/administration/devices/importing.py"),
        *("registry_service/administration/devices/drivers.py", "migrations/indexes.py"),
        *("gateway/administration/device_lists.py", "gateway/console/device_counts.py"),
        *("gateway/console/device_changes.py", "gateway/console/expected_devices.py"),
    },
}


def test_the_attributes_are_fields_of_a_registration_and_columns_of_a_device() -> None:
    fields = registration_pb2.Registration.DESCRIPTOR.fields_by_name
    assert (*("latitude", "longitude"), *TEXTS) == NAMES
    assert set(TEXTS) <= set(fields)
    assert set(NAMES) <= set(devices.c.keys())
    # Administrators see each of them, and can set each for an expected device.
    shown = {*devices_pb2.Device.DESCRIPTOR.fields_by_name}
    assert set(TEXTS) <= shown | {*devices_pb2.DeviceFields.DESCRIPTOR.fields_by_name}
    expected = expected_devices_pb2.ExpectedDevice.DESCRIPTOR.fields_by_name
    assert set(TEXTS) & set(EXPECTED) == set(TEXTS) & set(expected)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_has_a_maximum_length_and_no_control_characters(name: str) -> None:
    shortest, longest = TEXTS[name]
    for text in ("x" * shortest, "é" * longest, "a b" if longest > 2 else "x"):
        attributes = read_attributes(registration_pb2.Registration(**{**FILLED, name: text}))
        assert attributes[:2] == NOWHERE
        assert attributes[NAMES.index(name)] == text
    for text in ("x" * (shortest - 1) if shortest else "\0", "x" * (longest + 1), "a\nb", "\x7f"):
        with pytest.raises(InvalidInput) as refused:
            read_attributes(registration_pb2.Registration(**{**FILLED, name: text}))
        assert refused.value.field == name


@pytest.mark.parametrize(
    "kind", [NewDevice, ImportedDevice, NewExpectedDevice, DeviceChange, DeviceFilter]
)
def test_the_openapi_document_has_the_maximum_length_of_a_text(kind: Any) -> None:
    _, schemas = msgspec.json.schema_components([kind])
    properties = schemas[kind.__name__]["properties"]
    members = dict(zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True))
    said = TEXTS.keys() & members.keys()
    assert said
    for name in said:
        shown = properties[members[name]]
        [text] = [one for one in shown.get("anyOf", [shown]) if one.get("type") == "string"]
        assert text["maxLength"] == TEXTS[name].longest, name
        # A filter with a text that no device has is valid.
        if kind is not DeviceFilter:
            assert text.get("minLength", 0) == TEXTS[name].shortest, name


def naming(name: str) -> set[str]:
    first, *others = name.split("_")
    camel = first + "".join(map(str.capitalize, others))
    words = re.compile(rf"\b({name}|{camel})\b")
    found = (file for file in SOURCES if words.search(file.read_text()))
    return {str(file.relative_to(REPOSITORY)) for file in found}


@pytest.mark.parametrize(
    "name", ["device_type", "application_id", "mac_address", "os_version", "agent_version"]
)
def test_an_attribute_is_named_in_few_files(name: str) -> None:
    """The cost of a new one; docs/adding-a-field.md lists the files."""
    files, ruled = naming(name), OWN_RULES.get(name, set())
    assert ruled <= files
    assert 5 <= len(files - ruled) <= MAX_FILES, sorted(files - ruled)
