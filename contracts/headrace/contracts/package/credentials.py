"""Credentials of model servers, from `HEADRACE_SERVER_CREDENTIALS_<NAME>`."""

from __future__ import annotations

import base64
import os
from typing import Final

from headrace.contracts.errors import ConfigurationError

PREFIX: Final = "HEADRACE_SERVER_CREDENTIALS_"


def authorization_of(name: str) -> str:
    """Return the value of the header `Authorization` for credentials by their name; "" for the name "".

    The variable holds `bearer TOKEN` or `basic USER:PASSWORD`. Raises ConfigurationError, which never quotes it.
    """
    if not name:
        return ""
    variable = PREFIX + name
    kind, _, secret = os.environ.get(variable, "").strip().partition(" ")
    secret = secret.strip()
    if not secret.isprintable():
        raise ConfigurationError(f"{variable} holds characters that no header can have; set it anew")
    if kind.lower() == "bearer" and secret and secret.isascii():
        return f"Bearer {secret}"
    if kind.lower() == "basic" and ":" in secret:
        return f"Basic {base64.b64encode(secret.encode()).decode()}"
    state = "is not set" if not kind else "is wrong"
    raise ConfigurationError(f"{variable} {state}; set it to `bearer TOKEN` or `basic USER:PASSWORD`")
