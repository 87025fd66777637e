"""Answers brokers, from the cache if possible and otherwise from the database.

Concurrent lookups are joined into batches (`chassis/coalescer.py`): the questions of a fleet that
reconnects are about different devices, and one statement serves hundreds of them.
"""

import asyncio
import time

from msgspec import Struct

from chassis.coalescer import Coalescer
from chassis.errors import DeadlineExceeded
from chassis.queue import Call
from registry_service.admission.decision import (
    NOT_TOLD,
    PASSWORD_WRONG,
    TOO_MANY_ATTEMPTS,
    TOPIC_NOT_GRANTED,
    action_verdict,
    admits,
    connect_verdict,
    uuid_of_username,
    uuids_claimed,
)
from registry_service.admission.listener.sessions import Sessions
from registry_service.admission.listener.slow_passwords import SlowPasswords
from registry_service.admission.listener.store import AccessStore, Asker, Found, Wanted
from registry_service.admission.listener.subject_cache import Changes, SubjectCache
from registry_service.admission.questions import Connect, Question, Verdict
from registry_service.admission.subjects import Subject
from registry_service.passwords import Password, is_password, is_slow

MAX_BATCH = 512
MAX_WAITING = 8_192
LANES = 2
SPACING_S = 0.002
# Lookups that take longer fail. Most brokers wait less.
ANSWER_S = 4.0


class Lookup(Struct, frozen=True):
    """The rows that one question needs."""

    username: str
    claimed: tuple[str, ...]


class Seen(Struct, frozen=True):
    """The rows that a lookup found."""

    subject: Subject | None
    # The brokers at which the client id belongs to another device.
    taken_at: frozenset[int]


class Answering:
    """Finds the verdicts on brokers' questions. Use it in one event loop only."""

    def __init__(
        self,
        store: AccessStore,
        subjects: SubjectCache,
        changes: Changes,
        sessions: Sessions,
        *,
        session_s: float,
    ) -> None:
        """`session_s` is the longest session at brokers that support a limit."""
        self._store = store
        self._sessions = sessions
        self._subjects = subjects
        self._changes = changes
        self._session_s = session_s
        self._loop = asyncio.get_running_loop()
        self._lookups = Coalescer[Lookup, Seen](
            self._look_up,
            name="access",
            max_batch=MAX_BATCH,
            max_waiting=MAX_WAITING,
            lanes=LANES,
            spacing_s=SPACING_S,
        )
        self._slow = SlowPasswords()

    async def close(self) -> None:
        """Refuses new lookups, and waits for those under way."""
        await self._lookups.close()
        self._slow.close()

    def at_once(self, asker: Asker, question: Question, now: float) -> Verdict | None:
        """The verdict from the cache; None if the database must be asked.

        A denial comes from the cache only if no change of the data could turn it into another
        verdict. `now` is a time of the running loop's clock.
        """
        if not self._changes.is_current(now):
            return None
        subject = self._subjects.subject(question.username, now)
        if subject is None:
            return None
        at = time.time()
        if not admits(subject, asker.broker_id, at).is_allowed:
            return None
        if not isinstance(question, Connect):
            verdict = action_verdict(subject, question)
            is_sure = verdict.is_allowed or (subject.uuid and verdict is TOPIC_NOT_GRANTED)
            return verdict if is_sure else None
        which = self._matching_password(subject, asker.broker_id, question.password, at)
        if which is None:
            return None
        for uuid in _claimed_by(asker, question):
            if uuid != subject.uuid and not self._subjects.is_unowned(uuid, asker.broker_id, now):
                return None
        return connect_verdict(
            subject,
            is_current=which is subject.password,
            is_taken=self._is_taken(asker, question, subject, now),
            session_s=self._session_s,
            now=at,
        )

    def look_up(self, asker: Asker, question: Question, now: float) -> Call[Lookup, Seen]:
        """Looks up the rows for `judge`. Raises `Overloaded`."""
        claimed = _claimed_by(asker, question) if isinstance(question, Connect) else ()
        return self._lookups.offer(Lookup(question.username, claimed), deadline=now + ANSWER_S)

    async def prove(self, asker: Asker, question: Connect, subject: Subject, now: float) -> Verdict:
        """The verdict for a password with a slow hash, which `judge` does not compute. Raises the
        errors of a lookup.
        """
        try:
            async with asyncio.timeout_at(now + ANSWER_S):
                is_right = await self._slow.check(
                    asker.broker_id, subject.username, subject.password, question.password
                )
        except TimeoutError:
            raise DeadlineExceeded("the password could not be checked in time") from None
        if not is_right:
            return TOO_MANY_ATTEMPTS if is_right is None else PASSWORD_WRONG
        # Access may have ended meanwhile, so everything is looked up again.
        seen = await self.look_up(asker, question, now).result()
        return self.judge(asker, question, seen, now) or PASSWORD_WRONG

    def judge(self, asker: Asker, question: Question, seen: Seen, now: float) -> Verdict | None:
        """The verdict from a lookup; None if a slow hash must be computed."""
        subject, at = seen.subject, time.time()
        verdict = admits(subject, asker.broker_id, at)
        if not isinstance(question, Connect):
            return action_verdict(subject, question) if subject and verdict.is_allowed else verdict
        # No slow hash is computed for devices of other brokers: the time of the answer must reveal
        # nothing about them.
        if subject is None or verdict is NOT_TOLD:
            return verdict
        # Check the password first; reveal no other reason without it.
        which = self._matching_password(subject, asker.broker_id, question.password, at)
        if which is None:
            slow = subject.password
            is_open = is_slow(slow) and self._slow.known(slow, question.password) is None
            return None if is_open else PASSWORD_WRONG
        if not verdict.is_allowed:
            return verdict
        return connect_verdict(
            subject,
            is_current=which is not subject.previous,
            is_taken=asker.broker_id in seen.taken_at
            or self._is_taken(asker, question, subject, now),
            session_s=self._session_s,
            now=at,
        )

    def _matching_password(
        self, subject: Subject, broker_id: int, shown: str, now: float
    ) -> Password | None:
        """The subject's password that equals `shown`. None if none does, or if its hash is slow and
        the result is not cached.
        """
        kept, previous = subject.password, subject.previous
        if is_slow(kept):
            return kept if self._slow.known(kept, shown) else None
        if is_password(kept, shown):
            return kept
        if previous is None or now >= subject.previous_until:
            return None
        # The previous brokers know the previous password, so other brokers do not accept it.
        heard_by = subject.previous_broker_ids
        if heard_by is not None and broker_id not in heard_by:
            return None
        return previous if is_password(previous, shown) else None

    def _is_taken(self, asker: Asker, question: Connect, subject: Subject, now: float) -> bool:
        """Whether the client id belongs to another client. A client may always use its own username
        or uuid as its client id.
        """
        client_id, username = question.client_id, question.username
        if not self._sessions.is_anothers(asker.broker_id, client_id, username, now):
            return False
        own = uuids_claimed(client_id, asker.client_id_prefix)
        return client_id != username and (not subject.uuid or subject.uuid not in own)

    async def _look_up(self, lookups: list[Lookup], _: float) -> list[Seen]:
        uuids, usernames = set[str](), set[str]()
        for lookup in lookups:
            if uuid := uuid_of_username(lookup.username):
                uuids.add(uuid)
            else:
                usernames.add(lookup.username)
        claimed = {uuid for lookup in lookups for uuid in lookup.claimed}
        wanted = Wanted(uuids, usernames, claimed)
        while True:
            begun, changed_meanwhile = self._loop.time(), self._subjects.begin()
            found: Found | None = None
            try:
                found = await self._store.look_up(wanted)
            finally:
                is_whole = self._subjects.remember(found, claimed, changed_meanwhile, begun)
            # Rows that have changed meanwhile are read again, within the deadline of the batch.
            if is_whole:
                return [_seen(lookup, found) for lookup in lookups]


def _seen(lookup: Lookup, found: Found) -> Seen:
    subject = found.subjects.get(lookup.username)
    own = subject.uuid if subject else ""
    others = [found.claimed.get(uuid, frozenset()) for uuid in lookup.claimed if uuid != own]
    return Seen(subject, frozenset[int]().union(*others))


def _claimed_by(asker: Asker, question: Connect) -> tuple[str, ...]:
    """The uuids that the client id names; none if it is the client's own name."""
    if question.client_id == question.username:
        return ()
    own = uuid_of_username(question.username)
    claimed = uuids_claimed(question.client_id, asker.client_id_prefix)
    return tuple(uuid for uuid in claimed if uuid != own)
