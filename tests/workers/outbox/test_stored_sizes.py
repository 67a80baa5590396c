"""What is written can be read: outputs too large for JSON are stored as bytes, outputs too large for a row fail."""

from __future__ import annotations

import numpy as np
import pytest
from tests.workers.example_request import made_request
from tests.workers.predictions import outputs_of, prediction_of

from headrace.contracts import InferenceFailed, Settings, TensorSpec, decode_tensors
from headrace.contracts.ids import new_uuid
from headrace.contracts.tensors.rows import RowAxes
from headrace.results_store import BatchRows, StoreReader, StoreWriter
from headrace.workers.outbox import rows
from headrace.workers.outbox.finished import not_run
from headrace.workers.outbox.replies import OutgoingReplies
from headrace.workers.outbox.row_encoding import MAX_JSON_BYTES, bodies, texts
from headrace.workers.request import Run

#: More elements than an array of jsonb can have: Postgres answers XX000.
TOO_MANY_FOR_JSONB = (1 << 24) + 1


def run_of(*arrays: np.ndarray) -> Run:
    """A run with one request for each array, which is its output `y`."""
    axes = RowAxes([TensorSpec(name="y", datatype="INT8", shape=(-1,))])
    requests = [made_request({}, len(array)) for array in arrays]
    return Run(requests=requests, outputs={"y": np.concatenate(arrays)}, axes=axes)


def stored(run: Run, settings: Settings) -> BatchRows:
    batch = not_run(None, [])
    batch.runs, batch.batch_id = [run], new_uuid()
    return rows.to_rows(batch, "worker", settings, OutgoingReplies.empty())


def test_an_array_with_more_elements_than_jsonb_can_hold_is_stored_and_read_back(settings: Settings) -> None:
    many = np.arange(TOO_MANY_FOR_JSONB, dtype=np.int8).reshape(1, -1)
    run = run_of(many)
    url = settings.require_database_url()
    with StoreWriter(url) as writer, StoreReader(url) as reader:
        assert writer.write([stored(run, settings)]) == []
        np.testing.assert_array_equal(outputs_of(reader, str(run.requests[0].row_id))["y"], many)


def test_only_the_request_whose_text_would_be_too_long_is_stored_as_bytes(settings: Settings) -> None:
    width = MAX_JSON_BYTES // 10
    run = run_of(np.zeros((1, width), np.float64), np.full((1, width), -1.2345e-300, np.float64))
    first, second = stored(run, settings).rows
    assert first.outputs is not None
    assert second.blob is not None
    assert len(first.outputs) <= MAX_JSON_BYTES
    assert first.blob is None
    assert second.outputs is None
    np.testing.assert_array_equal(decode_tensors(second.blob)["y"], np.full((1, width), -1.2345e-300))


@pytest.mark.parametrize("value", [b"\x01", b"\x7f", "\u20ac".encode()])
def test_no_text_is_longer_than_its_bound_whatever_the_strings(value: bytes) -> None:
    for length in (MAX_JSON_BYTES // 6 - 10, MAX_JSON_BYTES // 6 + 10, MAX_JSON_BYTES - 10):
        run = run_of(np.array([[value * (length // len(value))]], object))
        (text,) = texts(run)
        assert text is None or len(text) <= MAX_JSON_BYTES


def test_outputs_too_large_for_a_row_fail_with_the_sizes_and_their_neighbours_are_stored(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_BLOB_BYTES", 3 << 20)
    small, large = np.ones((1, 1 << 20), np.int8), np.ones((5, 1 << 20), np.int8)
    run = run_of(small, large, small)
    url = settings.require_database_url()
    with StoreWriter(url) as writer, StoreReader(url) as reader:
        assert writer.write([stored(run, settings)]) == []
        first, second, third = (str(request.row_id) for request in run.requests)
        assert [len(outputs_of(reader, one)["y"]) for one in (first, third)] == [1, 1]
        with pytest.raises(InferenceFailed, match="take 5 MiB, and a row of the store holds at most 3 MiB"):
            prediction_of(reader, second).result()


def test_requests_of_large_runs_are_encoded_as_those_of_small_ones() -> None:
    arrays = [np.full((1, 1 << 20), number, np.float32) for number in range(3)]
    together, alone = run_of(*arrays), [run_of(array) for array in arrays]
    assert texts(together) == [texts(one)[0] for one in alone]
    assert bodies(together) == [bodies(one)[0] for one in alone]
