"""Limits that the scripts keep to; their texts name them as they are named here."""

from __future__ import annotations

from typing import Final

#: Of a message longer than a consumer wants, it gets the last bytes only: enough for the headers of an envelope.
TAIL_BYTES: Final = 8192

#: Most bytes that one claim takes, in which case it takes fewer messages than are wanted, but one at least.
CLAIM_BYTES: Final = 32 << 20

#: Most messages, and about the most bytes, that one call puts back; bounds how long the server is busy with it.
RESTORE_MESSAGES: Final = 500
RESTORE_BYTES: Final = 32 << 20

#: Most crashes whose time and worker are kept of one message; more than any setting asks for.
CRASHES_KEPT: Final = 100

#: Most delayed messages that one claim moves back to their queues.
DUE_MESSAGES: Final = 200

#: About as many lists are looked at in one command; Lua can't pass many thousands.
LISTS_AT_ONCE: Final = 500

#: Seconds after the last event at which the counts of deliveries, crashes and retries are forgotten.
DELIVERIES_TTL_S: Final = 7 * 86_400

#: Most messages, and about the most bytes, that one piece of a search reads: 1 ms of the server's time.
PIECE_MESSAGES: Final = 250
PIECE_BYTES: Final = 4 << 20

#: Messages that a search reads by one LRANGE: small messages may be followed by large ones.
PIECE_RUN: Final = 32

#: An envelope ends with its properties, of which the two ids take at most 1,530 bytes each and the queue's name 200;
#: ids are seldom longer than a UUID.
ID_TAIL_BYTES: Final = 4096
ID_SHORT_TAIL_BYTES: Final = 640
