"""What everyone who reads errors of servers relies on: a line that names the server, whatever the server said."""

from __future__ import annotations

from hypothesis import strategies as st

from headrace.contracts.errors import MAX_MESSAGE_CHARACTERS

#: Texts of servers: any, with line breaks and control characters among them, and some of several thousand characters.
SAID = st.builds(
    lambda start, middle, times: start + middle * times,
    st.text(max_size=100),
    st.text(min_size=1, max_size=5),
    st.sampled_from([0, 1, 5000]),
)


def is_line_of(where: str, text: str) -> bool:
    """Return whether a log and a terminal can show an error's text, and its start tells where it came from."""
    return text.startswith(f"{where}: ") and text.isprintable() and len(text) <= MAX_MESSAGE_CHARACTERS + 1
