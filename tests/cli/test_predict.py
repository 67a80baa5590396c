"""`headrace predict`: what goes in and comes out, NaN included, and what a person reads when nothing comes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.producers.peer import MODEL, Peer, Taken

from headrace.contracts import encode_tensors
from headrace.contracts.message import Reply

Run = Callable[..., Any]


@pytest.fixture
def broker(home: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the commands submit; the folder holds no models, so only the worker knows what they take."""
    monkeypatch.setenv("HEADRACE_BROKER_URL", broker_url)
    return broker_url


def answer(taken: Taken) -> Reply:
    x = np.asarray(taken.inputs["x"], np.float32)
    outputs = {
        "y": x / 10,
        "label": np.array([3]),
        "best": np.array([True]),
        "name": np.array(["né".encode()], dtype=object),
    }
    return Reply(id=taken.id, state="succeeded", outputs=encode_tensors(outputs))


@pytest.fixture
def peer(broker: str) -> Iterator[Peer]:
    with Peer(broker, answer) as peer:
        yield peer


ODD = '{"x": [[1, NaN], [Infinity, -Infinity]]}'


def test_nan_and_infinity_go_in_and_come_out_as_literals(home: Path, peer: Peer, headrace: Run) -> None:
    (home / "input.json").write_text(ODD)
    found = headrace("predict", MODEL, "input.json", "--json")
    assert found.code == 0
    assert "NaN" in found.out
    assert "-Infinity" in found.out
    (taken,) = peer.taken
    assert repr(taken.inputs["x"]) == repr(json.loads(ODD)["x"])
    outputs = found.json()["outputs"]
    assert list(outputs) == ["y", "label", "best", "name"]
    assert repr(outputs) == repr(
        {"y": [[0.1, math.nan], [math.inf, -math.inf]], "label": [3], "best": [True], "name": ["né"]}
    )
    # What was printed is an input again.
    (home / "again.json").write_text(json.dumps({"x": outputs["y"]}))
    assert headrace("predict", MODEL, "again.json").code == 0


def test_a_person_reads_the_same_words(home: Path, peer: Peer, headrace: Run) -> None:
    (home / "input.json").write_text(ODD)
    found = headrace("predict", MODEL, "input.json")
    assert found.code == 0
    assert "NaN" in found.out
    assert "-Infinity" in found.out
    assert [line.split()[0] for line in found.out.splitlines() if line[0].isalpha()] == ["y", "label", "best", "name"]


def test_null_is_no_number(home: Path, peer: Peer, headrace: Run) -> None:
    (home / "input.json").write_text('{"x": [[1, null]]}')
    found = headrace("predict", MODEL, "input.json")
    assert found.code == 1
    assert "None" in found.line


def test_arrays_of_numpy_and_scalars_go_as_they_are(home: Path, peer: Peer, headrace: Run) -> None:
    np.savez(home / "input.npz", x=np.ones((1, 2), np.float32), rate=np.array(16000))
    assert headrace("predict", MODEL, "--npz", "input.npz", "--json").json()["outputs"]["label"] == [3]
    (taken,) = peer.taken
    assert taken.inputs["rate"].shape == ()


def test_waiting_for_a_model_that_no_worker_serves_is_said_as_such(home: Path, broker: str, headrace: Run) -> None:
    (home / "input.json").write_text(ODD)
    found = headrace("predict", "digts", "input.json", "--timeout", 0.05)
    assert found.code == 1
    assert "no worker serves model 'digts' at present" in found.line
    assert "headrace worker --models" in found.line
