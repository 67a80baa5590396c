"""Messages that were damaged on their way: most can't be read, and some can, as others than were sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hypothesis import strategies as st

_Read = TypeVar("_Read")


@st.composite
def damaged(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """Return a message with some of its bytes replaced by others, of which there may be more or fewer."""
    whole = draw(messages)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(whole)))
        end = min(start + draw(st.integers(0, 4)), len(whole))
        whole = whole[:start] + draw(st.binary(max_size=4)) + whole[end:]
    return whole


def read_or_error(read: Callable[[bytes], _Read], received: bytes, *declared: type[Exception]) -> _Read | Exception:
    """Return what a reader makes of a message, which is a value or one of the errors that it declares."""
    try:
        return read(received)
    except declared as exc:
        return exc
