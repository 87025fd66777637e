"""Every `reason` of a refusal or failure, with its HTTP status and its meaning.

Programs compare reasons, so none of them may change. The OpenAPI document shows the meanings.
"""

MEANINGS: dict[str, tuple[int, str]] = {
    # Refusals by HTTP itself.
    "MALFORMED_REQUEST": (400, "the request cannot be read"),
    "BODY_CUT_SHORT": (400, "the body ended early"),
    "NO_SUCH_PATH": (404, "there is nothing at this path"),
    "METHOD_NOT_ALLOWED": (405, "this path does not have that method"),
    "REQUEST_TOO_SLOW": (408, "the request did not arrive in time"),
    "HEAD_TOO_LARGE": (431, "the request line and the header fields are too long"),
    "BODY_TOO_LARGE": (413, "the body is larger than this path takes"),
    "UNSUPPORTED_MEDIA_TYPE": (415, "the body is not of a type that this path takes"),
    "RATE_LIMITED": (429, "there are too many requests: try again after `Retry-After` seconds"),
    # Authentication and rights.
    "UNAUTHENTICATED": (401, "an Authorization header is needed"),
    "TOKEN_UNKNOWN": (401, "this API token is not valid"),
    "SESSION_ENDED": (401, "this session of the console has ended: sign in again"),
    "SIGN_IN_CODE_UNKNOWN": (401, "this sign-in code was used before, or has expired"),
    "PROVISIONING_KEY_UNKNOWN": (401, "this provisioning key is not known"),
    "PROVISIONING_KEY_REVOKED": (401, "this provisioning key was revoked"),
    "DEVICE_UNAUTHENTICATED": (401, "no such device, or not its API key"),
    "FORBIDDEN": (403, "the token's role, or its restriction to fleets, does not allow this"),
    "FOREIGN_ORIGIN": (403, "the console does not accept this from a page of another site"),
    "FORM_EXPIRED": (403, "this form of the console was made in another session"),
    "NO_POLICY": (403, "Mooring has no policy for this path: this is a fault of Mooring"),
    "PROVISIONING_KEY_EXPIRED": (403, "this provisioning key has expired"),
    "PROVISIONING_KEY_USED_UP": (
        403,
        "the maximum number of devices has registered with this provisioning key",
    ),
    "DEVICE_DISABLED": (403, "this device is disabled, or its fleet"),
    "FLEET_DISABLED": (403, "the fleet that this device would belong to is disabled"),
    "NETWORK_NOT_ALLOWED": (403, "this provisioning key cannot be used from this network"),
    "DEVICE_TYPE_NOT_ALLOWED": (
        403,
        "devices of this type cannot register with this provisioning key",
    ),
    "UUID_NOT_ALLOWED": (403, "this provisioning key, or its fleet, does not allow this uuid"),
    "DEVICE_NOT_EXPECTED": (403, "only expected devices can register with this provisioning key"),
    "UUID_RESERVED": (403, "this uuid is reserved for a device of another fleet"),
    # Things that the request names.
    "NOT_FOUND": (404, "there is no such thing"),
    "BROKER_NOT_FOUND": (404, "there is no such broker"),
    "REVISION_NOT_FOUND": (404, "the broker or pool has no such revision"),
    "POOL_NOT_FOUND": (404, "there is no such pool"),
    "REGION_NOT_FOUND": (404, "there is no such region"),
    "CERTIFICATE_NOT_FOUND": (404, "there is no such certificate"),
    "ROTATION_NOT_FOUND": (404, "the certificate is not being replaced"),
    "DEVICE_NOT_FOUND": (404, "there is no such device"),
    "FLEET_NOT_FOUND": (404, "there is no such fleet"),
    "ROLLOUT_NOT_FOUND": (404, "the fleet has no rollout under way"),
    "PROVISIONING_KEY_NOT_FOUND": (404, "there is no such provisioning key"),
    "TOKEN_NOT_FOUND": (404, "there is no such token"),
    "BROKER_SECRET_NOT_FOUND": (404, "the broker has no such secret"),
    "SERVICE_ACCOUNT_NOT_FOUND": (404, "there is no such service account"),
    "EXPECTED_DEVICE_NOT_FOUND": (404, "no such device is expected"),
    "JOB_NOT_FOUND": (404, "there is no such job"),
    "INVALID_INPUT": (422, "a value is invalid; `field` names it"),
    "REFUSED_VALUES": (422, "the database refuses these values"),
    "BROKER_UNKNOWN": (422, "a broker that is named does not exist"),
    "CERTIFICATE_UNKNOWN": (
        422,
        "there is no such certificate of that kind",
    ),
    "FLEET_UNKNOWN": (422, "a fleet that is named does not exist"),
    "POOL_UNKNOWN": (422, "a pool that is named does not exist"),
    "USERNAME_RESERVED": (
        422,
        "this MQTT username belongs to a device, or is reserved for devices",
    ),
    # Conflicts with the present state.
    "ALREADY_EXISTS": (409, "this exists already"),
    "CONFLICT": (409, "the present state does not allow this"),
    "BROKER_NAME_TAKEN": (409, "another broker has this name"),
    "BROKER_IN_USE": (409, "a device, fleet or provisioning key refers to the broker"),
    "BROKER_IS_DEFAULT": (409, "the broker is the default, which cannot be deleted or deactivated"),
    "BROKER_INACTIVE": (
        409,
        "the broker is not active, so no device can be assigned to it",
    ),
    "POOL_NAME_TAKEN": (409, "another pool has this name"),
    "POOL_IN_USE": (409, "a device, fleet, provisioning key or region refers to the pool"),
    "POOL_IS_DEFAULT": (409, "the pool is the default, which cannot be deleted"),
    "POOL_NOT_STICKY": (409, "the pool is not sticky, so there is nothing to rebalance"),
    "REGION_ID_TAKEN": (409, "another region has this id"),
    "PASSWORD_KEY_GONE": (
        409,
        "the encryption key of that password is no longer in the ring: set a new password instead",
    ),
    "TOO_MANY_BROKER_SECRETS": (409, "the broker already has five secrets: delete one first"),
    "BROKER_NOT_ALLOWED": (409, "a restricted fleet does not allow this broker"),
    "CERTIFICATE_EXISTS": (409, "the same certificate was uploaded before"),
    "CERTIFICATE_IN_USE": (
        409,
        "a broker, a revision of a broker or a rotation uses the certificate",
    ),
    "ROTATION_UNDER_WAY": (409, "one of the two certificates is part of another rotation"),
    "ROTATION_TOO_EARLY": (409, "too few devices have been notified of the replacement"),
    "TEST_UNDER_WAY": (409, "the broker is being tested already, or too many others are"),
    "FLEET_ID_TAKEN": (409, "another fleet has this id"),
    "UUID_PREFIX_TAKEN": (409, "the prefix overlaps with the prefix of another fleet"),
    "TOKEN_USED_UP": (403, "this token has added its maximum number of devices"),
    "FLEET_IN_USE": (409, "the fleet has devices, expected devices or provisioning keys"),
    "MAX_DEVICES_BELOW_USE": (409, "more devices have registered with the key than the new limit"),
    "DEVICE_EXPECTED": (409, "a device with this uuid is expected already"),
    "DEVICE_REGISTERED": (409, "a device with this uuid has registered already"),
    "USERNAME_TAKEN": (409, "an imported device or a service account has this MQTT username"),
    "DEVICE_TAKEN": (409, "this uuid is registered with another device API key"),
    "JOB_STATE_FORBIDS": (409, "the present state of the job does not allow this"),
    "JOB_HAS_NO_LIST": (409, "the list of the job's devices was not uploaded completely"),
    "JOB_HAS_FILTER": (409, "the job has a filter, so it takes no list"),
    "LAST_ADMIN_TOKEN": (409, "no other token of an admin is valid"),
    "LOST_RACE": (412, "another request changed this first: read it again"),
    # Failures of Mooring.
    "INTERNAL": (500, "a fault of Mooring"),
    "UNKNOWN": (500, "a fault of Mooring"),
    "SECRET_UNREADABLE": (500, "the ring of encryption keys lacks a key: restore it"),
    "SERVER_KEY_MISSING": (
        500,
        "the ring of server keys lacks a key: restore it, or add the key that another service uses",
    ),
    "UNAVAILABLE": (503, "a service that is needed is down"),
    "DATABASE_UNAVAILABLE": (503, "the database cannot be reached"),
    "NO_SNAPSHOT": (503, "the broker service has not read the brokers yet"),
    "OVERLOADED": (503, "a queue is full; nothing was done"),
    "DEADLINE_EXCEEDED": (503, "the time ran out; the change may have been made or not"),
    "UNTRUSTED_SERVICE": (503, "the services of Mooring do not trust one another"),
    "UNSUPPORTED": (503, "a service has another version"),
    "PLACEMENT_UNKNOWN": (503, "the broker service does not know a broker or fleet yet"),
    "BROKER_UNDECIDED": (
        503,
        "the broker of the device cannot be determined now, and a stopgap could be wrong",
    ),
    "NO_BROKER_FOR_FLEET": (
        503,
        "none of the brokers that the fleet is restricted to can serve the device",
    ),
}

# The reasons that every operation with the status has.
USUAL: dict[int, tuple[str, ...]] = {
    400: ("MALFORMED_REQUEST",),
    401: ("UNAUTHENTICATED", "TOKEN_UNKNOWN"),
    403: ("FORBIDDEN",),
    404: ("NOT_FOUND", "NO_SUCH_PATH"),
    412: ("LOST_RACE",),
    413: ("BODY_TOO_LARGE",),
    415: ("UNSUPPORTED_MEDIA_TYPE",),
    422: ("INVALID_INPUT",),
    429: ("RATE_LIMITED",),
    500: ("INTERNAL",),
    503: (
        "UNAVAILABLE",
        "DATABASE_UNAVAILABLE",
        "NO_SNAPSHOT",
        "OVERLOADED",
        "DEADLINE_EXCEEDED",
        "UNTRUSTED_SERVICE",
        "UNSUPPORTED",
    ),
}
# The reasons that any operation may answer.
ANYWHERE = (400, 500, 503)


def reasons_of(*wanted: int | str) -> dict[int, tuple[str, ...]]:
    """The reasons of an operation, by status: those in `wanted`, and those of any operation.

    `wanted` holds the operation's own reasons, and statuses, each of which stands for its usual
    reasons.
    """
    statuses = {one if isinstance(one, int) else MEANINGS[one][0] for one in (*wanted, *ANYWHERE)}
    if 401 in statuses:
        # If an operation requires a token, attempts with invalid tokens are limited.
        statuses.add(429)
    own = [one for one in wanted if isinstance(one, str)]
    return {
        status: (
            *(reason for reason in own if MEANINGS[reason][0] == status),
            *USUAL.get(status, ()),
        )
        for status in sorted(statuses)
    }
