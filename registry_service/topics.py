"""MQTT topics and topic filters: their form, which topics a filter matches and which filters it
covers.

MQTT 5, sections 4.7 and 4.8.2. Malformed topics and filters match and cover nothing, so
callers need not check them before.
"""

MAX_BYTES = 65_535
WILDCARDS = ("+", "#")
SHARE = "$share/"


def is_topic(text: str) -> bool:
    """Whether a message can be published to this topic."""
    return _is_text(text) and "+" not in text and "#" not in text


def is_filter(text: str) -> bool:
    """Whether the text is a valid topic filter. "#" must be the whole last level, "+" a whole
    level. A shared subscription is checked like any other filter: see `without_share`.
    """
    if not _is_text(text):
        return False
    if "+" not in text and "#" not in text:
        return True
    *others, last = text.split("/")
    return (last == "#" or _is_level(last)) and all(map(_is_level, others))


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a subscription to `topic_filter` receives messages that are published to `topic`."""
    if not (is_filter(topic_filter) and is_topic(topic)):
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[0] in WILDCARDS and topic[0] == "$":
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            # "#" also matches the level above it: "a/#" matches "a".
            return True
        if index == len(levels) or level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)


def covers(grant: str, topic_filter: str) -> bool:
    """Whether `grant` matches every topic that `topic_filter` matches."""
    if not (is_filter(grant) and is_filter(topic_filter)):
        return False
    granted, asked = grant.split("/"), topic_filter.split("/")
    if granted[0] in WILDCARDS and topic_filter[0] == "$":
        return False
    if topic_filter in ("#", "/#"):
        # "#" matches the same topics as "+/#", and "/#" the same as "/+/#", because no topic is
        # empty.
        asked.insert(-1, "+")
    for index, level in enumerate(granted):
        if level == "#":
            return True
        if index == len(asked) or asked[index] == "#" or level not in ("+", asked[index]):
            return False
    return len(granted) == len(asked)


def without_share(topic_filter: str) -> str:
    """The filter of a shared subscription (`$share/<name>/<filter>`); any other filter unchanged.
    Empty, which is no filter, if the name or the filter is missing or the name has a wildcard.
    """
    if not topic_filter.startswith(SHARE):
        return topic_filter
    name, _, shared = topic_filter.removeprefix(SHARE).partition("/")
    return shared if name and "+" not in name and "#" not in name else ""


def _is_level(level: str) -> bool:
    return level == "+" or ("+" not in level and "#" not in level)


def _is_text(text: str) -> bool:
    """Section 1.5.4: UTF-8 without NUL, of a length that a packet can carry; 4.7.3: not empty."""
    if not text or len(text) > MAX_BYTES or "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        return len(text.encode()) <= MAX_BYTES
    except UnicodeEncodeError:
        # The text has half of a surrogate pair.
        return False
