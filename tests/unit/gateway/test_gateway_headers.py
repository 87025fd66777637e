"""Authorization and entity tags by header, and configurations that are refused."""

from pathlib import Path

import msgspec
import pytest

from chassis.bearer import bearer
from chassis.config import load
from chassis.errors import InvalidInput, Unauthenticated
from gateway.administration.fields import timestamp
from gateway.administration.provisioning_key_types import NewProvisioningKey
from gateway.conditional import entity_tag, is_current
from gateway.config import GatewayConfig


@pytest.mark.parametrize(
    ("value", "secret"),
    [
        (b"Bearer abc", "abc"),
        (b"bearer abc", "abc"),
        (b"BEARER   a.b-c_d~e+f/g==", "a.b-c_d~e+f/g=="),
        (b" Bearer abc ", "abc"),
        (b"Bearer " + b"x" * 512, "x" * 512),
    ],
)
def test_a_secret_is_read(value: bytes, secret: str) -> None:
    assert bearer([(b"host", b"x"), (b"authorization", value)]) == secret


@pytest.mark.parametrize(
    "values",
    [
        [],
        [b""],
        [b"Bearer"],
        [b"Bearer "],
        [b"Bearer a b"],
        [b"Bearer \xe9"],
        [b"Bearer a\x00"],
        [b"Bearer " + b"x" * 513],
        [b"Bearera"],
        [b"Basic YTpi"],
        [b"abc"],
        [b"Bearer a", b"Bearer a"],
        [b"Bearer a", b"Basic YTpi"],
    ],
)
def test_any_other_header_is_unauthenticated(values: list[bytes]) -> None:
    with pytest.raises(Unauthenticated):
        bearer([(b"authorization", value) for value in values])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (['"g1"'], True),
        (['W/"g1"'], True),
        (['"g0", "g1"'], True),
        (['"g0",W/"g1"'], True),
        (['"g0"', '"g1"'], True),
        (["*"], True),
        ([" * "], True),
        ([], False),
        ([""], False),
        (['"g0"'], False),
        (["g1"], False),
        (['"g1'], False),
        (['"*"'], False),
        (['"ag1"'], False),
    ],
)
def test_an_entity_tag_matches_if_it_is_named(values: list[str], expected: bool) -> None:
    tag = entity_tag("g1", refresh_after_s=60, is_stale=False)
    assert is_current([value.replace("g1", "g1.60") for value in values], tag) is expected


def test_an_entity_tag_depends_on_all_that_may_differ() -> None:
    tags = {
        entity_tag(generation, refresh_after_s=refresh_after_s, is_stale=is_stale)
        for generation in ("g1", "g2")
        for refresh_after_s in (60, 3600)
        for is_stale in (False, True)
    }
    assert len(tags) == 8


def test_a_time_outside_of_the_calendar_is_refused() -> None:
    sent = b'{"fleet_id": "demo", "expires_at": "0001-01-01T00:00:00+14:00"}'
    key = msgspec.json.decode(sent, type=NewProvisioningKey)
    with pytest.raises(InvalidInput):
        timestamp("expires_at", key.expires_at)


def refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **variables: str) -> str:
    """The error with which the configuration of `variables` is refused."""
    secret = tmp_path / "secret"
    secret.write_text("s" * 32)
    for name, value in ({"SERVICE_SECRET_FILE": str(secret)} | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        load(GatewayConfig)
    return str(caught.value)


def test_leaving_loopback_needs_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "HTTPS_CERT_FILE" in refusal(monkeypatch, tmp_path, BIND_HOST="0.0.0.0")  # noqa: S104


def test_tls_needs_both_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = refusal(monkeypatch, tmp_path, HTTPS_CERT_FILE=str(tmp_path / "secret"))
    assert "together" in said


def test_every_fault_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = refusal(monkeypatch, tmp_path, BIND_PORT="70000", REQUEST_TIMEOUT_S="soon")
    assert "BIND_PORT" in said
    assert "REQUEST_TIMEOUT_S" in said
