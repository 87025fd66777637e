"""A registration, checked before anything else."""

from mooring.registry.v1 import registration_pb2 as pb
from mooring.registry.v1.reports_pb2 import ConnectionReport
from msgspec import Struct

from chassis.errors import InvalidInput
from chassis.validation import check_identifier, check_text, check_token
from domain.pools import Location
from registry_service.attributes import Attributes, read_attributes
from registry_service.credentials import hash_of_secret, new_salt
from registry_service.errors import ProvisioningKeyUnknown
from registry_service.provisioning.guesses import network_of

# The least characters of a good device API key. A shorter one may be a serial number, which can be
# guessed.
SHORT_API_KEY = 32


class Proof(Struct, frozen=True):
    """How a device last authenticated, as its row records it."""

    # The address for which failed attempts are counted (`network_of`); empty if it is not known.
    proved_from: str
    # Whether its API key is so short that it may be guessed.
    has_short_api_key: bool

    @classmethod
    def of(cls, source_address: str, api_key: str) -> "Proof":
        """The proof of a device that sends its API key."""
        return cls(network_of(source_address), len(api_key) < SHORT_API_KEY)


class Registration(Attributes, frozen=True, kw_only=True):
    """A well-formed registration. `salt` is for the device if it is new."""

    key_hash: bytes
    uuid: str
    device_api_key: str
    # The client's address; empty if it is not known.
    source_address: str
    salt: str

    @property
    def location(self) -> Location | None:
        """In degrees."""
        if self.latitude is None or self.longitude is None:
            return None
        return self.latitude, self.longitude

    @property
    def proof(self) -> Proof:
        """What the row records if the registration authenticates a device."""
        return Proof.of(self.source_address, self.device_api_key)


def read_registration(message: pb.Registration) -> Registration:
    """Raises `InvalidInput`, which names the field, or `ProvisioningKeyUnknown`."""
    check_identifier("uuid", message.uuid)
    attributes = read_attributes(message)
    check_token("device_api_key", message.device_api_key, shortest=8, longest=512)
    check_text("source_address", message.source_address, longest=64)
    if not 0 < len(message.provisioning_key) <= 512:
        raise ProvisioningKeyUnknown("this provisioning key is not known")
    return Registration(
        *attributes,
        key_hash=hash_of_secret(message.provisioning_key),
        uuid=message.uuid,
        device_api_key=message.device_api_key,
        source_address=message.source_address,
        salt=new_salt(),
    )


def check_connection_request(message: pb.ConnectionRequest | ConnectionReport) -> None:
    """Raises `InvalidInput`, which names the field."""
    check_identifier("uuid", message.uuid)
    check_text("source_address", message.source_address, longest=64)
    if not 0 < len(message.device_api_key) <= 512:
        raise InvalidInput("must have 1 to 512 characters", field="device_api_key")
