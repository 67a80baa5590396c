"""The sender of replies and acknowledgements; replies that nobody reads neither fill the broker nor delay others.

Rows are committed before their replies are sent, so a reply is a convenience: an inbox that holds much gets references
to rows in the place of outputs, and one that is full, or a server without memory, gets nothing. Clients that wait look
for rows from time to time anyway, and for the answers of dead letters that have no row.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from headrace.contracts import Settings
from headrace.contracts.message import REPLIES_DROPPED, Reply, encode_replies
from headrace.queueing import REFUSALS, Command, CommandLine
from headrace.queueing.keys import Keys
from headrace.workers.outbox.replies import OutgoingReplies, celery_result_key

logger = logging.getLogger(__name__)

#: Replies are packed into elements of about this size at most, so that one that is too large for what memory is left
#: takes few others with it.
ELEMENT_BYTES: Final = 1 << 20

#: Results for Celery clients that the server had no memory for are kept up to this size, and sent with later ones.
OWED_BYTES: Final = 16 << 20

#: So many inboxes that are full are remembered, to log each of them once.
_FULL_REMEMBERED: Final = 1_000

#: KEYS: an inbox. ARGV: its time to live in seconds, most bytes that it may take, an element, and what to leave there
#: once when the element has no room. The time to live begins anew only if the element was pushed. Gives 1, or 0 when
#: there was no room.
PUSH: Final = """
local used = redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0) or 0
if used + #ARGV[3] > tonumber(ARGV[2]) then
  if ARGV[4] ~= '' and redis.call('LINDEX', KEYS[1], -1) ~= ARGV[4] then
    redis.call('RPUSH', KEYS[1], ARGV[4])
    if used == 0 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
  end
  return 0
end
redis.call('RPUSH', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
"""


class Element(msgspec.Struct, frozen=True):
    """Replies that are pushed to an inbox at once. inbox: its key."""

    inbox: str
    replies: list[Reply]
    packed: bytes


class ReplySender:
    """Sends replies, and then the acknowledgements of their messages, in one round trip. For one thread."""

    def __init__(self, line: CommandLine, keys: Keys, settings: Settings) -> None:
        """line: to the broker. keys: its key space."""
        self.line = line
        self._keys = keys
        self._settings = settings
        self._full: set[str] = set()
        self._owed: dict[str, bytes] = {}

    @property
    def owes(self) -> bool:
        """Whether something waits for room that nobody finds elsewhere: `send` is to be called again now and then."""
        return bool(self._owed)

    def send(self, replies: OutgoingReplies, settling: Sequence[Command]) -> None:
        """Send replies, then the commands that settle messages.

        Raises the errors of `redis.exceptions` when the settling commands, or all commands, are refused or unanswered:
        then everything is to be sent again. Clients bear a reply that comes twice.
        """
        elements = list(self._elements(replies.by_inbox))
        results = self._owed | replies.celery
        commands = [self._push(each, self._settings.inbox_bytes // 2) for each in elements]
        commands += self._celery_commands(results)
        told = self.line.run([*commands, *settling])
        _check(told[len(commands) :])
        self._keep_owed(results, told[len(elements) : len(commands)])
        without_room = self._without_room(elements, told)
        if without_room:
            self._refer(without_room)

    def commands(self, replies: OutgoingReplies) -> list[Command]:
        """Return the commands that tell clients everything, whatever room there is."""
        pushes = [self._push(each, self._settings.inbox_bytes // 2) for each in self._elements(replies.by_inbox)]
        return [*pushes, *self._celery_commands(replies.celery)]

    def _elements(self, by_inbox: dict[str, list[Reply]]) -> Iterator[Element]:
        for name, replies in by_inbox.items():
            inbox = self._keys.inbox(name)
            for some, packed in _packed(replies):
                yield Element(inbox, some, packed)

    def _push(self, element: Element, most_bytes: int, otherwise: bytes = b"") -> Command:
        ttl_s = self._settings.inbox_ttl_s
        return "EVAL", PUSH, 1, element.inbox, ttl_s, most_bytes, element.packed, otherwise

    def _celery_commands(self, results: dict[str, bytes]) -> Iterator[Command]:
        for request_id, meta in results.items():
            key = celery_result_key(self._keys.prefix, request_id)
            yield "SET", key, meta, "EX", self._settings.celery_result_ttl_s
            yield "PUBLISH", key, meta

    def _keep_owed(self, results: dict[str, bytes], told: Sequence[object]) -> None:
        """Keep the results for Celery clients that found no memory; beyond the bound the oldest are given up."""
        kept = {
            request_id: meta
            for (request_id, meta), answer in zip(results.items(), told[::2], strict=True)
            if _is_refusal(answer, "a result for a Celery client")
        }
        size = sum(map(len, kept.values()))
        while size > OWED_BYTES:
            request_id = next(iter(kept))
            size -= len(kept.pop(request_id))
            logger.error("workers.celery_result_dropped request=%s; its row has the outputs", request_id)
        self._owed = kept

    def _without_room(self, elements: Sequence[Element], told: Sequence[object]) -> list[Element]:
        found = []
        for element, answer in zip(elements, told, strict=False):
            if answer == 1:
                self._full.discard(element.inbox)
            elif answer == 0 or _is_refusal(answer, "a reply"):
                found.append(element)
        return found

    def _refer(self, elements: Sequence[Element]) -> None:
        """Send references to rows in the place of outputs."""
        references = [
            Element(element.inbox, replies, packed)
            for element in elements
            for replies, packed in _packed([_reference(reply) for reply in element.replies])
        ]
        commands = [self._push(each, self._settings.inbox_bytes, REPLIES_DROPPED) for each in references]
        dropped = self._without_room(references, self.line.run(commands))
        for element in dropped:
            if element.inbox not in self._full:
                if len(self._full) >= _FULL_REMEMBERED:
                    self._full.clear()
                self._full.add(element.inbox)
                logger.warning("workers.inbox_full inbox=%s; its client finds its answers in the store", element.inbox)


def _packed(replies: list[Reply]) -> Iterator[tuple[list[Reply], bytes]]:
    """Pack replies into elements of ELEMENT_BYTES at most, if they have more than one reply."""
    packed = encode_replies(replies)
    if len(packed) <= ELEMENT_BYTES or len(replies) == 1:
        yield replies, packed
        return
    half = len(replies) // 2
    yield from _packed(replies[:half])
    yield from _packed(replies[half:])


def _reference(reply: Reply) -> Reply:
    return msgspec.structs.replace(reply, outputs=b"", stored=True) if reply.outputs else reply


def _check(answers: Sequence[object]) -> None:
    """Log which of the settling commands were refused. Raises refusals that pass.

    What the ACL forbids this user is not among them: where it is what the worker can't do without, it claims nothing.
    """
    refused = [answer for answer in answers if isinstance(answer, ResponseError)]
    for refusal in refused:
        if isinstance(refusal, REFUSALS) and not isinstance(refusal, NoPermissionError):
            raise refusal
    if refused:
        logger.error("workers.settling_refused refused=%d of=%d error=%s", len(refused), len(answers), refused[0])


def _is_refusal(answer: object, what: str) -> bool:
    """Return whether the server had no memory for it; other refusals are logged, since no second attempt mends them."""
    if isinstance(answer, OutOfMemoryError):
        return True
    if isinstance(answer, ResponseError):
        if "OOM" in str(answer)[:200]:  # Redis 6 wraps the error of a script in one of its own
            return True
        logger.error("workers.reply_refused what=%s error=%s", what, answer)
    return False
