"""Entity tags: whether a client has the answer already, or has seen what it is about to change."""

import re
from collections.abc import Iterable

ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')
# One of ours, which stands for a revision. No revision is longer than these digits.
REVISION_TAG = re.compile(r'(W/)?"(\d{1,18})"')
NO_REVISION = 0


def entity_tag(generation: str, *, refresh_after_s: int, is_stale: bool) -> str:
    """The strong tag of an answer.

    `generation` stands for all of it but when to ask again and whether it is a stopgap: a device
    that was given a stopgap must learn that it is none any more, though it moves nowhere.
    """
    return f'"{generation}.{refresh_after_s}{".stale" if is_stale else ""}"'


def is_current(if_none_match: Iterable[str], tag: str) -> bool:
    """Whether the header's values, of which there may be several, name `tag` or anything.

    The comparison is weak: `W/"a"` names `"a"` (RFC 9110, section 13.1.2).
    """
    return any(value.strip() == "*" or tag in ENTITY_TAG.findall(value) for value in if_none_match)


def revision_tag(revision: int) -> str:
    """The strong tag of something that has revisions, as it is at this one."""
    return f'"{revision}"'


def expected_revisions(if_match: Iterable[str]) -> list[int]:
    """The revisions that the header's values name; empty for any, as for `*` or no header.

    The comparison is strong: a weak tag names none (RFC 9110, section 13.1.1). Where all that is
    named is none of ours, there is `NO_REVISION`, which nothing has.
    """
    values = list(if_match)
    if not values or any(value.strip() == "*" for value in values):
        return []
    found = [tag for value in values for tag in REVISION_TAG.findall(value)]
    return [int(digits) for weak, digits in found if not weak] or [NO_REVISION]
