"""Password hashes of imports: each is refused with its row, or can be verified every time."""

import base64

from mooring.registry.v1 import devices_pb2 as pb

from chassis.errors import MooringError
from registry_service.administration.devices.importing import read_imported
from registry_service.password_hashes import HEX, cheapest, read_password_hash
from registry_service.passwords import Password, is_password
from tests.attacks.test_imported_hashes import REFUSED, TAKEN
from tests.fuzz.given import chosen, lines

ALGORITHMS = (None, *HEX, "bcrypt", "argon2id", "mosquitto_pbkdf2", "rot13")
# An algorithm, the salt, the password that a client shows, and the hash.
SEEDS = tuple(
    b"%c%c%b" % (index, 0, text.encode())
    for index, text in (
        *((0, f"\nsecret\n{text}") for text in (TAKEN | REFUSED).values()),
        *((0, f"\nä\n{base64.b64encode(bytes(size)).decode()}") for size in (20, 36, 68)),
        *((1, f"salt\nsecret\n{'0a' * 32}"), (4, f"salt\n\n{'0A' * 64}")),
        *((2, f"\nsecret\n{'0a' * 32}"), (5, f"\n\n{TAKEN[min(TAKEN)]}")),
    )
)
WORDS = (
    *(b"$2b$04$", b"$2$", b"$argon2id$v=19$m=8,t=1,p=1$", b"$6$", b"$7$1$", b"PBKDF2$sha512$1$"),
    *(b"PBKDF2$sha256$", b"rounds=", b"==", b"$", b"m=", b",t=", b",p=", b"v=19", b"\0", b"A" * 22),
)


def attempt(data: bytes) -> None:
    algorithm, rest = chosen(data, ALGORITHMS)
    has_salt, rest = chosen(rest, (False, True))
    salt, shown, text = lines(rest, 3)
    row = pb.ImportedDevice(
        uuid="device",
        fleet_id="fleet",
        mqtt_username="client",
        password_hash=text,
        password_salt=salt if has_salt else None,
        password_algorithm=algorithm,
    )
    try:
        found = read_imported(row)
    except MooringError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        # The hints contain the beginnings of hashes; the secret part is at the end.
        assert len(text) < 40 or text[-16:] not in refusal
        return
    assert found == read_imported(row)
    kept = read_password_hash(text, salt if has_salt else None, algorithm)
    cheap = cheapest(kept)
    assert read_password_hash(cheap, kept.salt if has_salt else None, algorithm).algorithm == (
        found.password_algorithm
    )
    password = Password(found.password_algorithm, cheap, found.credential_salt)
    verdicts = {is_password(password, shown) for _ in range(2)}
    assert len(verdicts) == 1
    assert verdicts <= {True, False}
