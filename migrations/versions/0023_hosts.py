"""One rule for hosts, for the API and SQL; service names of container networks are valid hosts."""

from alembic import op

revision = "0023"
down_revision = "0022"

# The same rule as `check_host` of chassis/hosts.py.
IS_HOST = r"""
CREATE FUNCTION is_host(host text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
BEGIN
    IF host LIKE '%:%' THEN
        RETURN host ~ '\A[0-9A-Fa-f:]+'
                      '(:((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(?!\Z)|\Z)){4})?\Z'
               AND family(host::inet) = 6;
    END IF;
    IF host ~ '\A((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}'
              '(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\Z' THEN
        RETURN true;
    END IF;
    RETURN length(host) <= 253
        AND host ~ '\A([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.(?!\Z)|\Z))+\Z'
        -- Resolvers read these as IPv4 addresses.
        AND host !~ '(\A|\.)([0-9]+|0[xX][0-9A-Fa-f]*)\Z';
EXCEPTION WHEN invalid_text_representation THEN
    RETURN false;
END $$;
REVOKE ALL ON FUNCTION is_host(text) FROM PUBLIC;
"""

# For each function, the text to replace and its replacement. The rest of the function stays.
CHANGES = {
    "check_broker": (
        r"""        IF NEW.host !~ '\A[A-Za-z0-9.:-]{1,253}\Z'
           -- Two colons make an IPv6 address, one makes a port.
           OR NEW.host LIKE '%:%' AND NEW.host !~ '\A[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\Z'
        THEN
""",
        "        IF NOT public.is_host(NEW.host) THEN\n",
    ),
    "check_broker_management": (
        r"""
            '\A(https://[][A-Za-z0-9.:-]+|http://(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?)'
            '(/[^?#\s]*)?\Z') THEN""",
        r"""
            '\A(https://[^]:/[]*|https://\[[^]]*:[^]]*\]|http://(localhost|127\.[0-9.]+|\[::1\]))'
            '(:[0-9]+)?(/[^?#\s]*)?\Z'
            OR NOT public.is_host(ltrim(
                substring(NEW.management_url FROM '://(\[[^]]*|[^]:/[]*)'), '['
            ))) THEN""",
    ),
}


def upgrade() -> None:
    """Adds the rule, and uses it in the checks of brokers that are set by SQL."""
    connection = op.get_bind()
    connection.exec_driver_sql(IS_HOST.replace("%", "%%"))
    for function, (before, after) in CHANGES.items():
        definition = connection.exec_driver_sql(
            f"SELECT pg_get_functiondef('public.{function}'::regproc)"
        ).scalar_one()
        if before not in definition:
            raise RuntimeError(f"{function} is not as the migrations before have left it")
        changed = definition.replace(before, after)
        connection.exec_driver_sql(changed.replace("%", "%%"))
