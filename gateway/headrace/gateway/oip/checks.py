"""Checks of a request's names, the same for every transport of the protocol. They raise MalformedBody."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from headrace.contracts.errors import quoted
from headrace.contracts.tensors.datatypes import DTYPES
from headrace.gateway.oip.errors import MalformedBody

#: Longest id of a client's own; it is only returned.
LONGEST_ID: Final = 1000


def check_id(request_id: str) -> None:
    """Check the id that a client gave its request."""
    if len(request_id) > LONGEST_ID:
        raise MalformedBody(f"the id has more than {LONGEST_ID} characters", "id")


def check_input(name: str, datatype: str, earlier: Container[str], where: str) -> None:
    """Check that an input is there once, and its datatype exists. where: such as `inputs[0]`."""
    if name in earlier:
        raise MalformedBody(f"the input {quoted(name)} is there twice", f"{where}.name")
    if datatype not in DTYPES:
        raise MalformedBody(
            f"input {quoted(name)} has the datatype {quoted(datatype)}, which does not exist; use one of "
            f"{', '.join(DTYPES)}",
            f"{where}.datatype",
        )


def check_output(name: str, earlier: Container[str], where: str) -> None:
    """Check that an output is asked for once. where: such as `outputs[0]`."""
    if name in earlier:
        raise MalformedBody(f"the output {quoted(name)} is asked for twice", f"{where}.name")
