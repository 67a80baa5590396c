"""The queues of a channel: their keys and lists, sizes, purging and deletion."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, cast

from kombu.transport import redis as kombu_redis

from headrace.contracts.prefix import checked_prefix
from headrace.queueing.connection.bounded_channel import BoundedChannel
from headrace.queueing.consumer.recovery import Unacked, recover
from headrace.queueing.keys import Keys, attach
from headrace.queueing.lists import LOWEST_FIRST, lists_of_options
from headrace.queueing.lua import scripts

if TYPE_CHECKING:
    import redis

#: Delayed messages looked at, and forgotten, in one step when a queue is purged.
_PURGE_STEP: Final = 500


class QueueChannel(BoundedChannel):
    """A channel that names the lists of models' queues in one way, and those of other queues as its options say.

    kombu's Redis transport knows one way for all, and goes through the steps of that one to count, purge and delete.
    """

    from_transport_options = (*kombu_redis.Channel.from_transport_options, "priority_order")

    #: Which list of an ordinary queue is served first: that of the lowest priority, as on `redis://`, or the highest.
    priority_order: str = LOWEST_FIRST

    if TYPE_CHECKING:  # what kombu's stubs leave out
        _expires: dict[str, int]
        global_keyprefix: str
        pool: redis.ConnectionPool
        sep: str
        priority_steps: Any
        keyprefix_queue: str
        keyprefix_binding_permanent: str
        auto_delete_queues: set[str]

        conn_or_acquire: Any
        typeof: Any
        _fanout_queues: dict[str, tuple[str, str]]
        _create_client: Any
        unacked_key: str
        unacked_index_key: str
        visibility_timeout: int
        active_queues: Any

    @cached_property
    def keys(self) -> Keys:
        """The keys and lists of this channel. Raises ConfigurationError for transport options that can't be."""
        return Keys(
            checked_prefix(self.global_keyprefix, "the transport option global_keyprefix"),
            lists_of_options(self.sep, self.priority_steps, self.priority_order),
        )

    def _get_pool(self, asynchronous: bool = False) -> Any:
        keys = self.keys
        pool = super()._get_pool(asynchronous)  # type: ignore[misc]
        attach(pool, keys)
        return pool

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Bind a queue, as kombu does, but also in a server without memory, which only consumers can empty."""
        if queue in self._expires:
            super()._queue_bind(exchange, routing_key, pattern, queue)  # type: ignore[misc]
        else:
            if self.typeof(exchange).type == "fanout":
                self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))
            member = self.sep.join([routing_key or "", pattern or "", queue or ""])
            tables = [self.keyprefix_queue % (exchange,), self.keyprefix_binding_permanent % (exchange,)]
            with self._plain_client() as client:
                scripts.script(client, scripts.BIND)(args=[member, *(self.keys.prefix + key for key in tables)])

    @cached_property
    def _refresh_binding(self) -> Any:
        """The script by which a binding that expires is made and lives on; like `_queue_bind`."""
        first = scripts.rendered(scripts.FIRST_WRITE, self.keys)
        return self._create_client().register_script(first + kombu_redis.REFRESH_BINDING)  # type: ignore[attr-defined]  # missing from the stubs

    def _q_for_pri(self, queue: str, pri: int) -> str:
        """Return the list for a priority; without prefix, which kombu's clients put before it."""
        lists = self.keys.lists
        return lists.list_of(queue, lists.step_for(queue, pri))

    def _lists(self, queue: str) -> list[str]:
        lists = self.keys.lists
        return [lists.list_of(queue, step) for step in lists.steps_of(queue)]

    def _add_expiry(self, pipe: Any, queue: str) -> None:
        """Add to a pipeline, after a message was put or taken: a queue with `x-expires` lives on from now."""
        if queue in self._expires:
            for each in self._lists(queue):
                pipe.pexpire(each, self._expires[queue])

    def _maybe_update_queues_expire(self, client: redis.Redis, queue: str) -> None:
        if queue in self._expires:
            with client.pipeline() as pipe:
                self._add_expiry(pipe, queue)
                pipe.execute()

    def _lengths(self, queue: str) -> list[int]:
        with self.conn_or_acquire() as client, client.pipeline() as pipe:
            for each in self._lists(queue):
                pipe.llen(each)
            return cast("list[int]", pipe.execute())

    def waiting(self, queues: Iterable[str]) -> dict[str, int]:
        """Return how many messages wait in queues, of all priorities together, in one round trip."""
        lists = {queue: self._lists(queue) for queue in queues}
        with self.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            for each in chain.from_iterable(lists.values()):
                pipe.llen(each)
            lengths = iter(pipe.execute())
        return {queue: sum(islice(lengths, len(its))) for queue, its in lists.items()}

    def _size(self, queue: str) -> int:
        return sum(self._lengths(queue))

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:  # noqa: ARG002
        return any(self._lengths(queue))

    def _purge(self, queue: str) -> int:
        """Empty a queue, those of its messages that wait for their time included."""
        with self.conn_or_acquire() as client, client.pipeline() as pipe:
            for each in self._lists(queue):
                pipe.llen(each)
                pipe.delete(each)
            waiting = sum(pipe.execute()[::2])
        return int(waiting) + self._purge_delayed(queue)

    def _purge_delayed(self, queue: str) -> int:
        with self._plain_client() as client:
            found = list(self._delayed(client, queue))
            pages = (found[at : at + _PURGE_STEP] for at in range(0, len(found), _PURGE_STEP))
            return sum(self._forget(client, page) for page in pages)

    def recover_unacked(self) -> None:
        """Put back what dead workers of `redis://` held of the queues consumed here."""
        where = Unacked(hash_key=self.unacked_key, index_key=self.unacked_index_key)
        with self._plain_client() as client:
            recover(client, float(self.visibility_timeout), queues=frozenset(self.active_queues), where=where)

    def _plain_client(self) -> redis.Redis:
        """Return a client that takes keys as they are; kombu's puts the prefix before those of some commands."""
        import redis

        return redis.Redis(connection_pool=self.pool)

    def _delayed(self, client: redis.Redis, queue: str) -> Iterator[bytes]:
        lists = self.keys.lists
        for name, _ in client.zscan_iter(self.keys.delayed, count=_PURGE_STEP):
            if lists.queue_of(name.decode().split(":", 2)[2]) == queue:
                yield name

    def _forget(self, client: redis.Redis, names: list[bytes]) -> int:
        with client.pipeline() as pipe:
            pipe.zrem(self.keys.delayed, *names)
            pipe.hdel(self.keys.delayed_messages, *names)
            return int(pipe.execute()[0])

    def _delete(self, queue: str, exchange: str, routing_key: str, pattern: str, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Remove a binding, and the queue with all that waits in it."""
        self.auto_delete_queues.discard(queue)
        member = self.sep.join([routing_key or "", pattern or "", queue or ""])
        with self.conn_or_acquire(client=kwargs.get("client")) as client, client.pipeline() as pipe:
            pipe.srem(self.keyprefix_queue % (exchange,), member)
            pipe.srem(self.keyprefix_binding_permanent % (exchange,), member)
            for each in self._lists(queue):
                pipe.delete(each)
            pipe.execute()
