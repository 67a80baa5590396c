"""A peer that answers requests as a worker would: it takes them from the queue list and pushes replies to the inbox."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy as np
import redis

from headrace.contracts.ids import foreign_id, new_uuid, row_id
from headrace.contracts.message import Reply, decode_inputs, encode_replies, queue_name
from headrace.contracts.states import State
from headrace.contracts.tensors.codec import Tensors, datatypes_line, encode_tensors, tensors_to_json
from headrace.results_store import BatchRows, Row, StoreWriter

MODEL = "digits"


class Taken:
    """One request as it came from the queue."""

    def __init__(self, raw: bytes | str) -> None:
        document: dict[str, Any] = json.loads(raw)
        self.headers: dict[str, Any] = document["headers"]
        self.properties: dict[str, Any] = document["properties"]
        self.id: str = self.headers["id"]
        self.header: dict[str, Any] = self.headers["headrace"]
        self.inbox: str = self.header["inbox"]
        self.content_type: str = document["content-type"]
        self.inputs: dict[str, Any] = dict(decode_inputs(base64.b64decode(document["body"]), self.content_type))

    def doubled(self) -> Reply:
        outputs: Tensors = {"y": np.asarray(self.inputs["x"]) * 2}
        return Reply(id=self.id, state=State.SUCCEEDED, outputs=encode_tensors(outputs))


class Peer:
    """Answers every request with `answer`; None is no answer."""

    def __init__(self, url: str, answer: Callable[[Taken], Reply | None] = Taken.doubled) -> None:
        self.client = redis.Redis.from_url(url)
        self.answer = answer
        self.taken: list[Taken] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def take(self, count: int = 1) -> list[Taken]:
        """Wait for requests and take them without an answer, oldest first."""
        found = []
        for _ in range(count):
            popped = self.client.brpop([queue_name(MODEL)], 30)
            assert popped
            found.append(Taken(popped[1]))
        return found

    def reply(self, inbox: str, *replies: Reply) -> None:
        self.client.rpush(inbox, encode_replies(list(replies)))

    def _run(self) -> None:
        while not self._stop.is_set():
            popped = self.client.brpop([queue_name(MODEL)], 0.1)
            if not popped:
                continue
            batch = [popped[1], *(self.client.rpop(queue_name(MODEL), 63) or [])]
            by_inbox: dict[str, list[Reply]] = {}
            for request in map(Taken, batch):
                self.taken.append(request)
                reply = self.answer(request)
                if reply is not None:
                    by_inbox.setdefault(request.inbox, []).append(reply)
            for inbox, replies in by_inbox.items():
                self.reply(inbox, *replies)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.client.close()


def store(database_url: str, request_id: str, row: Row) -> None:
    """Insert the row of a request, as a worker's outbox would."""
    row.id, row.foreign_id = row_id(request_id), foreign_id(request_id)
    batch = BatchRows(model=MODEL, version="1", rows=[row], finished_at=time.time(), batch_id=new_uuid(), batch_rows=1)
    with StoreWriter(database_url) as writer:
        writer.write([batch])


def succeeded(outputs: Tensors) -> Row:
    """Return the row of a request that succeeded."""
    return Row(id=new_uuid(), state="succeeded", outputs=tensors_to_json(outputs), datatypes=datatypes_line(outputs))
