"""Every imported hash can be verified, and none keeps other clients out."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from tests.brokers import Asking, asking
from tests.integration.registry_service.administration.test_import import imported, row
from tests.stack import Stack

PASSWORD = "Pumpe 7 läuft!"
SECRET, SALT = PASSWORD.encode(), b"0123456789abcdef"
SALT64 = base64.b64encode(SALT).decode()
BCRYPT = "$2y$05$usesomesillystringforeavlnLUaq5UorWjFrQL3QL4M2x700rWy"


def base64_of(some: bytes) -> str:
    return base64.b64encode(some).decode()


def pbkdf2(name: str, iterations: int) -> str:
    return base64_of(hashlib.pbkdf2_hmac(name, SECRET, SALT, iterations))


TAKEN = {
    "mosquitto": f"$7$1000${SALT64}${pbkdf2('sha512', 1000)}",
    "mosquitto-1": f"$6${SALT64}${base64_of(hashlib.sha512(SECRET + SALT).digest())}",
    "bcrypt": BCRYPT,
    "stray-bits": BCRYPT.replace("forea", "forra"),
    "argon2id": Argon2id(
        salt=SALT, length=32, iterations=1, lanes=1, memory_cost=1024
    ).derive_phc_encoded(SECRET),
    "go-auth": f"PBKDF2$sha512$1000${SALT64}${pbkdf2('sha512', 1000)}",
    "go-auth-256": f"PBKDF2$sha256$1000${SALT64}${pbkdf2('sha256', 1000)}",
    "rabbitmq": base64_of(SALT[:4] + hashlib.sha256(SALT[:4] + SECRET).digest()),
    "rabbitmq-512": base64_of(SALT[:4] + hashlib.sha512(SALT[:4] + SECRET).digest()),
}
REFUSED = {
    "no-minor-version": BCRYPT.replace("$2y", "$2"),
    "faulty-version": BCRYPT.replace("$2y", "$2x"),
    "crypt": "$6$saltsalt$" + "a" * 86,
    "rounds": f"$7$10000000${SALT64}${pbkdf2('sha512', 1)}",
    "cost": BCRYPT.replace("$05", "$14"),
    "memory": "$argon2id$v=19$m=1048576,t=1,p=1$AAECAwQFBgcICQoLDA0ODw$" + "A" * 43,
    "argon2i": "$argon2i$v=19$m=4096,t=1,p=1$AAECAwQFBgcICQoLDA0ODw$" + "A" * 43,
    "truncated": TAKEN["rabbitmq"][:-4],
}


@pytest.fixture
async def brokers(stack: Stack) -> AsyncIterator[Asking]:
    async with asking(stack) as running:
        yield running


async def test_each_form_is_verified_or_refused_and_never_fails(stack: Stack) -> None:
    at = {"mqtt_broker_id": stack.default_broker_id}
    forms = TAKEN | REFUSED
    rows = [row(name, mqtt_username=name, password_hash=forms[name], **at) for name in forms]
    outcomes, _ = await imported(stack, rows)
    assert outcomes == [
        *[("created", "")] * len(TAKEN),
        *[("INVALID_INPUT", "password_hash")] * len(REFUSED),
    ]
    async with asking(stack) as brokers:
        for name in TAKEN:
            for wrong in ("wrong", "", PASSWORD + " ", "\x7f", "x" * 1000):
                assert not await brokers.connects(name, wrong), name
            assert await brokers.connects(name, PASSWORD), name
        for name in REFUSED:
            assert not await brokers.connects(name, PASSWORD)


@pytest.mark.parametrize("text", [REFUSED["no-minor-version"], REFUSED["rounds"]])
async def test_hashes_of_earlier_imports_never_fail(stack: Stack, text: str) -> None:
    """An earlier version checked less: the result is a denial, and not an internal error."""
    at = {"mqtt_broker_id": stack.default_broker_id}
    await imported(stack, [row("old", mqtt_username="old", password_hash=BCRYPT, **at)])
    algorithm = "bcrypt" if text.startswith("$2") else "mosquitto_pbkdf2"
    stack.database.execute(
        "UPDATE devices SET mqtt_password_hash = %s, password_algorithm = %s", text, algorithm
    )
    async with asking(stack) as brokers:
        for _ in range(2):
            assert not await brokers.connects("old", PASSWORD)


async def test_guesses_of_one_username_do_not_keep_another_device_out(brokers: Asking) -> None:
    """This holds for a fast hash, and for one as slow as those that are guessed."""
    stack = brokers.stack
    at = {"mqtt_broker_id": stack.default_broker_id}
    slow = f"$7$100000${SALT64}${pbkdf2('sha512', 100_000)}"
    await imported(
        stack,
        [row(name, mqtt_username=name, password_hash=slow, **at) for name in ("guessed", "honest")],
    )
    fast = (await stack.register("fast")).json()["mqtt"]
    guesses = [
        asyncio.create_task(brokers.connects("guessed", f"{n}", f"c{n}")) for n in range(200)
    ]
    assert await brokers.connects(fast["username"], fast["password"])
    assert await brokers.connects("honest", PASSWORD)
    assert not any(await asyncio.gather(*guesses))
