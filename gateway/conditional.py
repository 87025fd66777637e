"""Entity tags. They show whether a client has the present answer, or has read the version that it
changes.
"""

import re
from collections.abc import Iterable

ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')
# The tag of a revision. Revisions have at most this many digits.
REVISION_TAG = re.compile(r'(W/)?"(\d{1,18})"')
NO_REVISION = 0


def entity_tag(generation: str, *, refresh_after_s: int, is_stale: bool) -> str:
    """The strong tag of an answer.

    `generation` covers everything except when to ask again and whether the answer is a stopgap: a
    device that got a stopgap must get the proven answer, even if the broker is the same.
    """
    return f'"{generation}.{refresh_after_s}{".stale" if is_stale else ""}"'


def is_current(if_none_match: Iterable[str], tag: str) -> bool:
    """Whether the header's values, of which there may be several, name `tag` or are `*`.

    The comparison is weak: `W/"a"` names `"a"` (RFC 9110, section 13.1.2).
    """
    return any(value.strip() == "*" or tag in ENTITY_TAG.findall(value) for value in if_none_match)


def revision_tag(revision: int) -> str:
    """The strong tag of a resource at this revision."""
    return f'"{revision}"'


def expected_revisions(if_match: Iterable[str]) -> list[int]:
    """The revisions that the header's values name. With `*` or without the header, the result is
    empty, which means any revision. The comparison is strong, so weak tags are ignored (RFC 9110,
    section 13.1.1). If no tag is the tag of a revision, the result is `NO_REVISION`, which matches
    no revision.
    """
    values = list(if_match)
    if not values or any(value.strip() == "*" for value in values):
        return []
    found = [tag for value in values for tag in REVISION_TAG.findall(value)]
    return [int(digits) for weak, digits in found if not weak] or [NO_REVISION]
