"""TorchServe's own REST interface, which has neither batches nor signatures.

A call holds one row, and TorchServe gathers calls into batches itself (`batchSize`, `maxBatchDelay` of the model), so
the rows of a batch are sent side by side. What a row looks like is up to the model's handler; here it is JSON (nested
lists for a single input, else an object of inputs by name), or for a single input of BYTES without further dimensions
the bytes themselves, as `curl -T kitten.jpg` sends them. Handlers answer with JSON in the same forms.
Models with the service envelope `json` or `kserve` take all rows in one call, as `{"instances": [...]}`.
Source: docs/inference_api.md and ts/torch_handler/request_envelope of https://github.com/pytorch/serve.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from headrace.contracts.package.signature import TensorSpec
from headrace.contracts.tensors.codec import Tensors
from headrace.contracts.tensors.datatypes import datatype_of
from headrace.runtimes.remote.base import (
    Access,
    Address,
    Answer,
    BadAnswer,
    Refused,
    RemoteSignature,
    ServerAway,
)
from headrace.runtimes.remote.encoding.json_rows import read_columns, read_rows, stacked, write_rows
from headrace.runtimes.remote.encoding.json_values import read_document
from headrace.runtimes.remote.transport.http_client import MAX_ANSWER_BYTES, HttpClient
from headrace.runtimes.remote.transport.http_reply import Reply, error_text

#: Most rows of a batch that are under way at the same time: a batch of the server's own, and the next.
ROWS_SIDE_BY_SIDE: Final = 32

#: TorchServe's words for a handler that raised, under the status of a server that is away.
_HANDLER_FAILED: Final = ("Prediction failed", "Invalid model predict output", "number of batch response mismatched")

#: And for a process of the model that ended, under the status of a handler that raised.
_WORKER_GONE: Final = ("Worker died", "Worker scaled down", "Worker is")
