"""A cache of recent answers, because brokers repeat their questions.

An answer that allows something is valid until its data changes: it is tied to the subject in
memory, which is dropped when its access changes (subject_cache.py).
"""

from collections import OrderedDict

from msgspec import Struct

from chassis.direct_http import Reply
from registry_service.activity.timeline.events import Event
from registry_service.admission.listener.dialects.asked import Asked
from registry_service.admission.listener.events import event_of
from registry_service.admission.listener.sessions import Sessions
from registry_service.admission.listener.store import Asker
from registry_service.admission.listener.subject_cache import Changes, SubjectCache
from registry_service.admission.questions import Connect, Question, Verdict
from registry_service.admission.subjects import Subject

MAX_REPLIES = 20_000
# The oldest answer that is used. An answer says when the session ends, so a cached one makes the
# session shorter by up to this time.
MAX_AGE_S = 5.0

# Longer questions are not cached.
MAX_QUESTION_BYTES = 1_024

# The broker, the path of the operation, and all that a dialect reads of a request: the query, the
# body, and two headers.
Key = tuple[int, bytes, bytes, bytes, bytes | None, bytes | None]


def key_of(asker: Asker, path: bytes, asked: Asked) -> Key:
    """The key of a request to the operation at `path`."""
    headers = asked.headers
    hook, kind = headers.get(b"vernemq-hook"), headers.get(b"content-type")
    return asker.broker_id, path, asked.query, asked.body, hook, kind


class Given(Struct, frozen=True):
    """An answer, and what is recorded each time it is given."""

    subject: Subject
    question: Question
    # The event of a `Connect`.
    event: Event | None
    reply: Reply
    # When it was made.
    at: float


class ReplyCache:
    """The oldest entries are dropped first; times are of the running loop's clock."""

    def __init__(self, subjects: SubjectCache, changes: Changes, sessions: Sessions) -> None:
        """A cached reply is used only while none of these has changed it."""
        self._subjects = subjects
        self._changes = changes
        self._sessions = sessions
        self._given: OrderedDict[Key, Given] = OrderedDict()

    def again(self, asker: Asker, key: Key, now: float) -> Given | None:
        """The cached answer, which is given again; None if it is too old, or its subject has
        changed. The session of a `Connect` is recorded.
        """
        given = self._given.get(key)
        if given is None or now - given.at > MAX_AGE_S or not self._changes.is_current(now):
            return None
        question = given.question
        if self._subjects.subject(question.username, now) is not given.subject:
            return None
        if isinstance(question, Connect) and not self._sessions.begin_again(
            asker.broker_id, question.client_id, question.username, now, question.peer
        ):
            return None
        return given

    def keep(
        self, key: Key, question: Question, verdict: Verdict, reply: Reply, now: float
    ) -> None:
        """Stores an answer that was made from memory in this turn of the event loop. Denials are
        not stored, nor are answers from the database, because the cached subject may have changed
        while the database was read.
        """
        subject = self._subjects.subject(question.username, now)
        # A subject with a previous password, and an account that expires, are checked each time.
        is_lasting = subject is not None and not subject.previous and subject.expires_at is None
        if subject is None or not verdict.is_allowed or not is_lasting:
            return
        if sum(map(len, filter(None, key[1:]))) > MAX_QUESTION_BYTES:
            return
        event = event_of(key[0], question, verdict)
        self._given[key] = Given(subject, question, event, reply, now)
        self._given.move_to_end(key)
        if len(self._given) > MAX_REPLIES:
            self._given.popitem(last=False)
