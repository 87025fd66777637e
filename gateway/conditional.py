"""Entity tags: whether a client already has the answer (RFC 9110, section 13.1.2)."""

import re
from collections.abc import Iterable

ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')


def entity_tag(generation: str, *, refresh_after_s: int, is_stale: bool) -> str:
    """The strong tag of an answer.

    `generation` stands for all of it but when to ask again and whether it is a stopgap: a device
    that was given a stopgap must learn that it is none any more, though it moves nowhere.
    """
    return f'"{generation}.{refresh_after_s}{".stale" if is_stale else ""}"'


def is_current(if_none_match: Iterable[str], tag: str) -> bool:
    """Whether the header's values, of which there may be several, name `tag` or anything.

    The comparison is weak: `W/"a"` names `"a"`.
    """
    return any(value.strip() == "*" or tag in ENTITY_TAG.findall(value) for value in if_none_match)
