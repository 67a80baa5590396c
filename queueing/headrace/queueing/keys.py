"""The Redis keys of headrace, besides the queue lists (which are kombu's: `QUEUE` and `QUEUE\\x06\\x16STEP`)."""

from __future__ import annotations

from typing import Final

#: What kombu's Redis transport puts between a queue's name and the priority step of a list.
SEPARATOR: Final = "\x06\x16"

#: kombu's priority steps: priorities 0-2 share the list of step 0, 3-5 that of 3, 6-8 that of 6; 9 has its own.
PRIORITY_STEPS: Final = (0, 3, 6, 9)

#: Sorted set: consumer id → end of its lease, in milliseconds of the server's clock.
LEASES: Final = "headrace:leases"

#: Hash: SHA-1 of a message → how many consumers died or lost their lease while they held it.
DELIVERIES: Final = "headrace:deliveries"

#: Dead letters. Sorted set: dead-letter id → time of burial in seconds; hash: id → JSON of what happened
#: (`DeadLetter`); hash: id → the message as it was in its list; hash: queue → how many of its messages are buried.
DEAD_INDEX: Final = "headrace:dead:index"
DEAD_LETTERS: Final = "headrace:dead:letters"
DEAD_MESSAGES: Final = "headrace:dead:messages"
DEAD_COUNTS: Final = "headrace:dead:counts"

#: What the key of every doorbell starts with.
BELL_PREFIX: Final = "headrace:bell:"

#: What the key of every in-flight hash starts with.
IN_FLIGHT_PREFIX: Final = "headrace:inflight:"

#: Seconds after which a token that nobody took disappears, so that queues that come and go (those for the replies of
#: remote control) leave nothing behind. A consumer that finds no token still looks every 50 ms.
BELL_TTL_S: Final = 60


def queue_list(queue: str, step: int) -> str:
    """Give the list that holds a queue's messages of one priority step."""
    return f"{queue}{SEPARATOR}{step}" if step else queue


def queue_of(list_key: str) -> str:
    """Give the queue that a list of `queue_list` belongs to."""
    return list_key.partition(SEPARATOR)[0]


def priority_step(priority: int) -> int:
    """Give the priority step that a priority of 0 to 9 belongs to."""
    return PRIORITY_STEPS[min(max(priority, 0), 9) // 3]


def doorbell(queue: str) -> str:
    """Give the list that holds at most one token while a queue has news; idle consumers block on it."""
    return BELL_PREFIX + queue


def in_flight(consumer: str) -> str:
    """Give the hash of the messages that a consumer holds: `SEQUENCE:QUEUE_LIST` → message as it was in the list."""
    return IN_FLIGHT_PREFIX + consumer


def inbox(client: str) -> str:
    """Give the list to which workers push the replies of a client; one element holds the replies of a batch."""
    return f"headrace:inbox:{client}"
