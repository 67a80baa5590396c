"""The Redis keys of one key space: ours, and the queue lists, which are kombu's: `QUEUE` and `QUEUE\\x06\\x16STEP`.

A prefix in front of all keys separates what shares a database, as kombu's transport option `global_keyprefix` does. It
travels with a client's connection pool, as the number of the database does: `attach` puts it there, `keys_of` reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from headrace.queueing.lists import DEFAULT_LISTS, Lists

#: Seconds after which the list of a queue's consumers disappears when none renewed its place in it.
CONSUMERS_TTL_S: Final = 86_400

#: Seconds after which a running marker that nobody took away disappears; longer than any batch runs.
RUNNING_TTL_S: Final = 86_400

#: Seconds after which the record of what a consumer held when its lease ended expires; by then it is back, or never.
RETURNED_TTL_S: Final = 86_400

#: Seconds after which a token that nobody took disappears, so that queues that come and go (those for the replies of
#: remote control) leave nothing behind. A consumer that finds no token still looks every 50 ms.
BELL_TTL_S: Final = 60

#: The one key without a prefix. Sorted set: prefix → end of the last lease of a consumer under it, like `Keys.leases`.
#: A client that waits under the wrong prefix finds the right one here; the rest of a key space is invisible to it.
PREFIXES: Final = "headrace:prefixes"

#: Where `attach` puts the keys of a connection pool.
_ATTRIBUTE: Final = "headrace_keys"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one key space. prefix: stands in front of each; "" is none, see `contracts.prefix`.

    lists: how its users name and order the lists of queues; no other key depends on it.

    Tags, dead letters and the names of delayed messages hold lists and queues as kombu names them, without the prefix.
    """

    prefix: str = ""
    lists: Lists = DEFAULT_LISTS

    @property
    def leases(self) -> str:
        """Sorted set: consumer id → end of its lease, in milliseconds of the server's clock."""
        return self.prefix + "headrace:leases"

    @property
    def deliveries(self) -> str:
        """Hash: SHA-1 of a redelivered message → how often its consumer was dead or without lease; 0 for other ways."""
        return self.prefix + "headrace:deliveries"

    @property
    def deaths(self) -> str:
        """Hash: SHA-1 of a message → a line for each consumer that died while it *ran* it: `MILLISECONDS WORKER`."""
        return self.prefix + "headrace:deaths"

    @property
    def retries(self) -> str:
        """Hash: SHA-1 of a message → how often its run was put off (`delayed`)."""
        return self.prefix + "headrace:retries"

    @property
    def delayed(self) -> str:
        """Sorted set: `CONSUMER:SEQUENCE:QUEUE_LIST` → when it is due, in milliseconds of the server's clock."""
        return self.prefix + "headrace:delayed"

    @property
    def delayed_messages(self) -> str:
        """Hash: member of `delayed` → the message as it was in its list."""
        return self.prefix + "headrace:delayed:messages"

    @property
    def epoch(self) -> str:
        """String: a random value that the first to ask for it writes; another one after the data were lost."""
        return self.prefix + "headrace:epoch"

    @property
    def probe(self) -> str:
        """String: written to see whether the server takes writes; gone after a second."""
        return self.prefix + "headrace:probe"

    @property
    def ceilings(self) -> str:
        """Hash: `MODEL VERSION DEVICE` → the most rows of a batch since one ran out of memory."""
        return self.prefix + "headrace:ceilings"

    @property
    def dead_index(self) -> str:
        """Sorted set: dead-letter id → when it was dead-lettered, in seconds since 1970."""
        return self.prefix + "headrace:dead:index"

    @property
    def dead_letters(self) -> str:
        """Hash: dead-letter id → JSON of what happened (`DeadLetter`)."""
        return self.prefix + "headrace:dead:letters"

    @property
    def dead_messages(self) -> str:
        """Hash: dead-letter id → the message as it was in its list."""
        return self.prefix + "headrace:dead:messages"

    @property
    def dead_counts(self) -> str:
        """Hash: queue → how many dead letters it has."""
        return self.prefix + "headrace:dead:counts"

    def dead_queue(self, queue: str) -> str:
        """Return the sorted set of the dead letters of one queue, like `dead_index`."""
        return f"{self.prefix}headrace:dead:queue:{queue}"

    def consumers(self, queue: str) -> str:
        """Return the sorted set of the consumers of a queue, like `leases`."""
        return f"{self.prefix}headrace:consumers:{queue}"

    def served(self, consumer: str) -> str:
        """Return the hash of what a consumer serves: queue → JSON of `serving.Served`."""
        return f"{self.prefix}headrace:served:{consumer}"

    def doorbell(self, queue: str) -> str:
        """Return the list that holds at most one token while a queue has news; idle consumers block on it."""
        return f"{self.prefix}headrace:bell:{queue}"

    def wake(self, consumer: str) -> str:
        """Return the list by which a consumer ends its own wait for doorbells; holds a token for a moment."""
        return f"{self.prefix}headrace:wake:{consumer}"

    def in_flight(self, consumer: str) -> str:
        """Return the hash of the messages that a consumer holds: `SEQUENCE:QUEUE_LIST` → message as it was there."""
        return f"{self.prefix}headrace:inflight:{consumer}"

    def returned(self, consumer: str) -> str:
        """Return the hash of what a consumer held when its lease ended: tag → SHA-1, then the crash noted of it."""
        return f"{self.prefix}headrace:returned:{consumer}"

    def running(self, consumer: str) -> str:
        """Return the key of a consumer's running marker: the worker's name, then the tags, one a line."""
        return f"{self.prefix}headrace:running:{consumer}"

    def inbox(self, name: str) -> str:
        """Return the list to which workers push the replies of a client. name: of `inbox_name`, as headers carry it."""
        return self.prefix + name

    def answer(self, request_id: str) -> str:
        """Return the string with the reply to a request that has no row, for a client that got no reply."""
        return f"{self.prefix}headrace:answer:{request_id}"

    def gateway_request(self, request_id: str) -> str:
        """Return the string with what the gateway notes of an asynchronous request, until it has a row."""
        return f"{self.prefix}headrace:gateway:request:{request_id}"

    def queue_list(self, queue: str, step: int) -> str:
        """Return the list that holds a queue's messages of one priority step."""
        return self.prefix + self.lists.list_of(queue, step)


#: The key space without a prefix.
PLAIN: Final = Keys()


def attach(pool: Any, keys: Keys) -> None:
    """Make `keys_of` find these keys from the clients and pipelines of a connection pool."""
    setattr(pool, _ATTRIBUTE, keys)


def keys_of(client: Any) -> Keys:
    """Return the keys of a client or pipeline, blocking or not; those without a prefix when none were attached."""
    found: Keys = getattr(client.connection_pool, _ATTRIBUTE, PLAIN)
    return found


def inbox_name(client: str) -> str:
    """Return how headers name the inbox of a client: without prefix, which the worker puts in front of it."""
    return f"headrace:inbox:{client}"
