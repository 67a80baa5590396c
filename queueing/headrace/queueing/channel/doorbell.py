"""Waiting for the doorbells of queues on one connection, with a claim sent along where its answer is surely read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import NoScriptError

from headrace.queueing.keys import BELL_TTL_S, Keys
from headrace.queueing.lua import scripts

if TYPE_CHECKING:
    from redis import Redis

    from headrace.queueing.consumer.claims import ClaimingConsumer, Ticket
    from headrace.queueing.consumer.delivery import Delivery

#: How long a server may take to end a wait before its connection is cut; a worker that was told to stop has no more.
END_WAIT_S: Final = 0.8


class DoorbellWait:
    """One wait after the other: `begin` and `read_bell`, or `begin_claiming` and `read_claim`.

    awaited: the queues whose doorbells the latest wait is for, with how many messages of each were wanted.
    """

    def __init__(self, connection_errors: tuple[type[Exception], ...], keys: Keys) -> None:
        """connection_errors: what closes the connection when reading fails with it."""
        self.awaited: Mapping[str, int] = {}
        #: Whether it was told to end, so that the next wait begins.
        self.is_cut = False
        self._errors = connection_errors
        self._keys = keys
        self._ticket: Ticket | None = None
        self._consumer: ClaimingConsumer | None = None

    @property
    def claims(self) -> bool:
        """Whether a claim was sent along, whose answer follows that of the doorbell."""
        return self._ticket is not None

    def abandon(self) -> Ticket | None:
        """Forget the wait, whose connection is cut; return the claim that was sent along, if there was one."""
        ticket, self._ticket, self._consumer = self._ticket, None, None
        return ticket

    @property
    def can_be_cut(self) -> bool:
        """Whether there is a wait that was not cut."""
        return self._consumer is not None and not self.is_cut

    def begin(
        self, connection: Any, wants: Mapping[str, int], timeout_s: float, consumer: ClaimingConsumer | None = None
    ) -> None:
        """Wait on `connection`, which must be idle, until a doorbell rings or the time is over.

        consumer: whose wait it is; without one it can't be cut.
        """
        self._ticket, self._consumer = None, consumer
        self._start(connection, wants, timeout_s, [])

    def begin_claiming(
        self, connection: Any, wants: Mapping[str, int], timeout_s: float, consumer: ClaimingConsumer, ticket: Ticket
    ) -> None:
        """Wait as `begin` does; the server runs the claim as soon as the wait ends, which saves a round trip then."""
        self._ticket, self._consumer = ticket, consumer
        self._start(connection, wants, timeout_s, [consumer.command(ticket)])

    def _start(self, connection: Any, wants: Mapping[str, int], timeout_s: float, claim: list[tuple[Any, ...]]) -> None:
        self.awaited, self.is_cut = wants, False
        bells = [self._keys.doorbell(queue) for queue in wants]
        if self._consumer is not None:
            bells.append(self._keys.wake(self._consumer.id))
        commands: list[tuple[Any, ...]] = [("BLPOP", *bells, timeout_s), *claim]
        connection.send_packed_command(connection.pack_commands(commands))

    def read_bell(self, client: Redis, **options: Any) -> str | None:
        """Return the queue whose doorbell rang, or None when the time was over. client: the connection's own."""
        answer: Any = self._read(client, "BLPOP", **options)
        self._consumer = None
        name = answer[0].decode() if answer else ""
        return name.removeprefix(self._keys.doorbell("")) if name.startswith(self._keys.doorbell("")) else None

    def read_claim(self, client: Redis, **options: Any) -> tuple[list[Delivery], bool]:
        """Return the messages of the claim, and whether another claim may find more."""
        ticket, self._ticket = self._ticket, None
        consumer, self._consumer = self._consumer, None
        assert ticket is not None
        assert consumer is not None
        self.read_bell(client, **options)
        try:
            found = consumer.take(ticket, self._read(client, "EVALSHA"))
        except NoScriptError:
            # Somebody flushed the server's scripts; the next claim brings ours back.
            return [], True
        return found, len(found) >= ticket.wish

    def _read(self, client: Any, command: str, **options: Any) -> Any:
        try:
            return client.parse_response(client.connection, command, **options)
        except self._errors:
            client.connection.disconnect()
            raise

    def cut(self) -> None:
        """Have the server end the wait; its answer is read as always."""
        consumer = self._consumer
        if consumer is None or self.is_cut:
            return
        self.is_cut = True
        scripts.script(consumer.client, scripts.END_WAIT)(args=[self._keys.wake(consumer.id), BELL_TTL_S])

    def end(self, client: Any) -> bool:
        """End a wait whose claim may still run; return whether there is an answer, for `read_claim`.

        Without one the connection is cut; messages of the claim, if it has run, come back with its lease. Ended by a
        token of its own, because CLIENT UNBLOCK is among the commands that administrators refuse.
        """
        self.cut()
        if client.connection.can_read(timeout=END_WAIT_S):
            return True
        client.connection.disconnect()
        return False
