"""Why a request can be refused, or fail: every `reason`, its HTTP status, and what it means.

Programs compare reasons, so none of them may change; what they mean is for the OpenAPI document.
"""

MEANINGS: dict[str, tuple[int, str]] = {
    # HTTP itself.
    "MALFORMED_REQUEST": (400, "the request cannot be read"),
    "BODY_CUT_SHORT": (400, "the body ended early"),
    "NO_SUCH_PATH": (404, "there is nothing at this path"),
    "METHOD_NOT_ALLOWED": (405, "this path does not have that method"),
    "REQUEST_TOO_SLOW": (408, "the request did not arrive in time"),
    "HEAD_TOO_LARGE": (431, "the request line and the header fields are too long"),
    "BODY_TOO_LARGE": (413, "the body is larger than this path takes"),
    "UNSUPPORTED_MEDIA_TYPE": (415, "the body is not of a type that this path takes"),
    "RATE_LIMITED": (429, "this is asked too often"),
    # Who asks.
    "UNAUTHENTICATED": (401, "an Authorization header is needed"),
    "TOKEN_UNKNOWN": (401, "this API token is not valid"),
    "PROVISIONING_KEY_UNKNOWN": (401, "this provisioning key is not known"),
    "PROVISIONING_KEY_REVOKED": (401, "this provisioning key was revoked"),
    "DEVICE_UNAUTHENTICATED": (401, "no such device, or not its API key"),
    "FORBIDDEN": (403, "the token may not do this: its role, or the fleets it is restricted to"),
    "NO_POLICY": (403, "this path was left without a policy: a fault of ours"),
    "PROVISIONING_KEY_EXPIRED": (403, "this provisioning key has expired"),
    "PROVISIONING_KEY_USED_UP": (403, "this provisioning key has made all the devices it may"),
    "DEVICE_DISABLED": (403, "this device is disabled, or its fleet"),
    "FLEET_DISABLED": (403, "the fleet that this device would belong to is disabled"),
    "NETWORK_NOT_ALLOWED": (403, "this provisioning key is not for use from this network"),
    "DEVICE_TYPE_NOT_ALLOWED": (403, "this provisioning key is not for this type of device"),
    "UUID_NOT_ALLOWED": (403, "this provisioning key, or its fleet, is not for this uuid"),
    "DEVICE_NOT_EXPECTED": (403, "this provisioning key is for devices that are expected"),
    "UUID_RESERVED": (403, "this uuid is reserved for another fleet's device"),
    # What is asked for.
    "NOT_FOUND": (404, "there is no such thing"),
    "BROKER_NOT_FOUND": (404, "there is no such broker"),
    "REVISION_NOT_FOUND": (404, "the broker never was at this revision"),
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
    "INVALID_INPUT": (422, "a value is not what it must be; `field` says which"),
    "REFUSED_VALUES": (422, "the database refuses these values"),
    "BROKER_UNKNOWN": (422, "a broker that is named does not exist"),
    "CERTIFICATE_UNKNOWN": (
        422,
        "there is no such certificate of that kind",
    ),
    "FLEET_UNKNOWN": (422, "a fleet that is named does not exist"),
    "USERNAME_RESERVED": (422, "this MQTT username is that of a device, or would be"),
    # How things are.
    "ALREADY_EXISTS": (409, "there is such a thing already"),
    "CONFLICT": (409, "the state of things forbids it"),
    "BROKER_NAME_TAKEN": (409, "another broker has this name"),
    "BROKER_IN_USE": (409, "a device, fleet or provisioning key points at it"),
    "BROKER_IS_DEFAULT": (409, "it is the default, which must stay and stay active"),
    "BROKER_INACTIVE": (
        409,
        "the broker is not active, so it cannot become what devices are sent to",
    ),
    "PASSWORD_KEY_GONE": (409, "that password's key has left the ring: set a new password instead"),
    "TOO_MANY_BROKER_SECRETS": (409, "the broker has five secrets already: delete one first"),
    "BROKER_NOT_ALLOWED": (409, "a fleet is restricted to brokers among which this one is not"),
    "CERTIFICATE_EXISTS": (409, "the same certificate is known already"),
    "CERTIFICATE_IN_USE": (409, "a broker, a broker's history or a rotation names it"),
    "ROTATION_UNDER_WAY": (409, "one of the two certificates has a part in another rotation"),
    "ROTATION_TOO_EARLY": (409, "too few devices have been told of the replacement"),
    "FLEET_ID_TAKEN": (409, "another fleet has this id"),
    "UUID_PREFIX_TAKEN": (409, "another fleet's prefix begins with this, or this with it"),
    "TOKEN_USED_UP": (403, "this token has named all the devices it may"),
    "FLEET_IN_USE": (409, "it has devices, expected devices or provisioning keys"),
    "MAX_DEVICES_BELOW_USE": (409, "the key has made more devices than it is to be allowed"),
    "DEVICE_EXPECTED": (409, "a device with this uuid is expected already"),
    "DEVICE_REGISTERED": (409, "a device with this uuid has registered already"),
    "USERNAME_TAKEN": (409, "an imported device or a service account has this MQTT username"),
    "DEVICE_TAKEN": (409, "this uuid is registered with another device API key"),
    "JOB_STATE_FORBIDS": (409, "this does not follow the state that the job is in"),
    "JOB_HAS_NO_LIST": (409, "the list of the job's devices was not uploaded, or not to its end"),
    "JOB_HAS_FILTER": (409, "the job is for devices that a filter matches, and takes no list"),
    "LAST_ADMIN_TOKEN": (409, "no other token of an admin is good"),
    "LOST_RACE": (412, "somebody else changed it first: read it again"),
    # What we could not do.
    "INTERNAL": (500, "a fault of ours"),
    "UNKNOWN": (500, "a fault of ours"),
    "SECRET_UNREADABLE": (500, "the ring of encryption keys was not restored whole"),
    "SERVER_KEY_MISSING": (
        500,
        "the ring of server keys was not restored whole, or lacks one that another service uses",
    ),
    "UNAVAILABLE": (503, "something that is needed is down"),
    "DATABASE_UNAVAILABLE": (503, "the database cannot be reached"),
    "NO_SNAPSHOT": (503, "the brokers have not been read yet"),
    "OVERLOADED": (503, "a queue is full; nothing was begun"),
    "DEADLINE_EXCEEDED": (503, "there was no time left; whether it was done is not known"),
    "UNTRUSTED_SERVICE": (503, "our services do not trust one another"),
    "UNSUPPORTED": (503, "a service is of another version"),
    "PLACEMENT_UNKNOWN": (503, "a broker or fleet is not known yet to the broker service"),
    "BROKER_UNDECIDED": (503, "which broker cannot be found out, and a stopgap would override it"),
    "NO_BROKER_FOR_FLEET": (503, "none of the brokers that the fleet is restricted to can serve"),
}

# Those that any operation has which has the status.
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
# Those that any operation may answer.
ANYWHERE = (400, 500, 503)


def reasons_of(*wanted: int | str) -> dict[int, tuple[str, ...]]:
    """The reasons an operation can have, by status: those `wanted`, and those of any operation.

    What is wanted is a reason of the operation's own, or a status with its usual reasons.
    """
    statuses = {one if isinstance(one, int) else MEANINGS[one][0] for one in (*wanted, *ANYWHERE)}
    if 401 in statuses:
        # Who shows a token may have shown too many that are not valid.
        statuses.add(429)
    own = [one for one in wanted if isinstance(one, str)]
    return {
        status: (
            *(reason for reason in own if MEANINGS[reason][0] == status),
            *USUAL.get(status, ()),
        )
        for status in sorted(statuses)
    }
