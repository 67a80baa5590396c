"""The Redis keys of headrace, besides the queue lists (which are kombu's: `QUEUE` and `QUEUE\\x06\\x16STEP`)."""

from __future__ import annotations

from typing import Final

#: What kombu's Redis transport puts between a queue's name and the priority step of a list.
SEPARATOR: Final = "\x06\x16"

#: kombu's priority steps: priorities 0-2 share the list of step 0, 3-5 that of 3, 6-8 that of 6; 9 has its own.
PRIORITY_STEPS: Final = (0, 3, 6, 9)

#: Sorted set: consumer id → end of its lease, in milliseconds of the server's clock.
LEASES: Final = "headrace:leases"

#: What the key of the consumers of one queue starts with; a sorted set like `LEASES`.
CONSUMERS_PREFIX: Final = "headrace:consumers:"

#: Seconds after which the list of a queue's consumers disappears when none renewed its place in it.
CONSUMERS_TTL_S: Final = 86_400

#: What the key of what a consumer serves starts with; a hash: queue → JSON of `serving.Served`.
SERVED_PREFIX: Final = "headrace:served:"

#: Hash: SHA-1 of a message → how often it came back because its consumer died, lost its lease or lost track of it.
DELIVERIES: Final = "headrace:deliveries"

#: Hash: SHA-1 of a message → a line for each consumer that died while it *ran* it: `MILLISECONDS WORKER`.
DEATHS: Final = "headrace:deaths"

#: Hash: SHA-1 of a message → how often its run was put off (`DELAYED`).
RETRIES: Final = "headrace:retries"

#: Messages that wait before they are tried again. Sorted set: `CONSUMER:SEQUENCE:QUEUE_LIST` → when they are due, in
#: milliseconds of the server's clock; hash: the same → the message as it was in its list.
DELAYED: Final = "headrace:delayed"
DELAYED_MESSAGES: Final = "headrace:delayed:messages"

#: Hash: `MODEL VERSION DEVICE` → the most rows of a batch since one ran out of memory.
CEILINGS: Final = "headrace:ceilings"

#: Dead letters. Sorted set: dead-letter id → time of burial in seconds; hash: id → JSON of what happened
#: (`DeadLetter`); hash: id → the message as it was in its list; hash: queue → how many of its messages are buried.
DEAD_INDEX: Final = "headrace:dead:index"
DEAD_LETTERS: Final = "headrace:dead:letters"
DEAD_MESSAGES: Final = "headrace:dead:messages"
DEAD_COUNTS: Final = "headrace:dead:counts"

#: What the key of the dead letters of one queue starts with; a sorted set like `DEAD_INDEX`.
DEAD_QUEUE_PREFIX: Final = "headrace:dead:queue:"

#: What the key of every doorbell starts with.
BELL_PREFIX: Final = "headrace:bell:"

#: What the key of every in-flight hash starts with.
IN_FLIGHT_PREFIX: Final = "headrace:inflight:"

#: What the key of the mark of what a consumer runs at present starts with: the worker's name, then tags, one a line.
RUNNING_PREFIX: Final = "headrace:running:"

#: Seconds after which a mark that nobody took away disappears; longer than any batch runs.
RUNNING_TTL_S: Final = 86_400

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


def consumers(queue: str) -> str:
    """Return the sorted set of the consumers of a queue."""
    return CONSUMERS_PREFIX + queue


def served(consumer: str) -> str:
    """Return the hash of the models that a consumer serves."""
    return SERVED_PREFIX + consumer


def doorbell(queue: str) -> str:
    """Give the list that holds at most one token while a queue has news; idle consumers block on it."""
    return BELL_PREFIX + queue


def in_flight(consumer: str) -> str:
    """Give the hash of the messages that a consumer holds: `SEQUENCE:QUEUE_LIST` → message as it was in the list."""
    return IN_FLIGHT_PREFIX + consumer


def running(consumer: str) -> str:
    """Give the mark of what a consumer runs at present."""
    return RUNNING_PREFIX + consumer


def inbox(client: str) -> str:
    """Give the list to which workers push the replies of a client; one element holds the replies of a batch."""
    return f"headrace:inbox:{client}"
