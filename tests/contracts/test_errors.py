"""The error tree: its drawing, its default messages, and its way over the wire."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import contracts
from headrace.contracts import HeadraceError, InferenceFailed, InvalidRequest, PackageError, ResultTimeout, errors
from headrace.contracts.errors import MAX_MESSAGE_CHARACTERS, error_from_wire, quoted

CLASSES: list[Any] = [
    value for _, value in inspect.getmembers(errors, inspect.isclass) if value.__module__ == errors.__name__
]


def drawn(cls: type[HeadraceError], lead: str = "") -> list[str]:
    lines = []
    # Other rooms add errors of their own below the tree.
    children = [child for child in cls.__subclasses__() if child.__module__ == errors.__name__]
    for child in children:
        last = child is children[-1]
        lines.append(f"{lead}{'└── ' if last else '├── '}{child.__name__}")
        lines += drawn(child, lead + ("    " if last else "│   "))
    return lines


def test_the_tree_is_drawn_at_the_top_of_its_module() -> None:
    drawing = (errors.__doc__ or "").split("\n\n")[1].splitlines()
    names = [found[0] for line in drawing if (found := re.match(r"[│├└─ ]*\w+", line))]
    assert names == ["HeadraceError", *drawn(HeadraceError)]


def test_every_error_can_be_imported_from_contracts() -> None:
    assert {cls.__name__ for cls in CLASSES} <= set(contracts.__all__)
    assert all(issubclass(cls, HeadraceError) for cls in CLASSES)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_docstring_is_the_default_message_and_one_line(cls: type[HeadraceError]) -> None:
    message = cls().message
    assert message == " ".join((cls.__doc__ or "").split())
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_survives_the_wire(cls: type[HeadraceError]) -> None:
    error = cls("what happened; what to do", request_id="id")
    back = error_from_wire(error.type, error.message, "id")
    assert type(back) is cls
    assert (back.message, back.request_id, str(back)) == (
        "what happened; what to do",
        "id",
        "what happened; what to do",
    )


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_survives_pickle_and_copy(cls: type[HeadraceError]) -> None:
    error = cls("what happened", request_id="id")
    for back in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(back) is cls
        assert (back.message, back.request_id) == ("what happened", "id")


@pytest.mark.parametrize("name", ["ValueError", "", "headrace", "HeadraceError.__init__", "invalidrequest"])
def test_an_unknown_name_becomes_inference_failed(name: str) -> None:
    assert type(error_from_wire(name, "text")) is InferenceFailed


def test_every_way_in_which_a_model_fails_is_caught_as_inference_failed() -> None:
    assert {cls.__name__ for cls in CLASSES if issubclass(cls, InferenceFailed)} == {
        "InferenceFailed",
        "InputRefused",
        "OutputMismatch",
        "RuntimeTrouble",
        "ModelOutOfMemory",
        "PoisonRequest",
    }


def test_what_can_succeed_unchanged_later_is_retriable() -> None:
    assert {cls.__name__ for cls in CLASSES if cls.retriable} == {
        "QueueFull",
        "RequestLost",
        "ResultTimeout",
        "StoreUnavailable",
        "BrokerUnavailable",
        "RuntimeTrouble",
    }


def test_a_result_timeout_is_a_timeout_error_too() -> None:
    with pytest.raises(TimeoutError, match="five seconds"):
        raise ResultTimeout("no result within five seconds", request_id="id")


@given(st.text(st.characters()))
def test_a_message_is_one_short_line_that_every_log_and_store_can_hold(text: str) -> None:
    message = InvalidRequest(text).message
    assert message.isprintable()
    assert len(message) <= MAX_MESSAGE_CHARACTERS + 1
    message.encode()


def test_a_long_message_is_cut() -> None:
    assert PackageError("x" * 1_000_000).message == "x" * MAX_MESSAGE_CHARACTERS + "…"


def test_terminal_escapes_of_a_client_never_reach_a_terminal() -> None:
    assert InvalidRequest("model \x1b[31mred\x1b[0m\r\nnext\0").message == "model [31mred [0m next"


@given(st.one_of(st.text(st.characters(), max_size=300), st.integers(), st.none(), st.lists(st.text())))
def test_a_quotation_is_short_and_printable(value: object) -> None:
    assert len(quoted(value)) <= 101
    assert quoted(value).isprintable()
