"""`--device` names: a kind, and for some kinds the number of one of several."""

from __future__ import annotations

from collections.abc import Collection

from headrace.contracts import ConfigurationError


def split_device(device: str, kinds: Collection[str], numbered: Collection[str] = ()) -> tuple[str, str]:
    """Cut `cuda:1` into ("cuda", "1"), `cpu` into ("cpu", "").

    kinds: that exist for this runtime. numbered: those of them that may have a number.
    Raises ConfigurationError for anything else.
    """
    kind, colon, index = device.partition(":")
    fits = kind in kinds and (not colon or (kind in numbered and index.isascii() and index.isdigit()))
    if not fits:
        known = [*kinds, *(f"{kind}:N" for kind in numbered)]
        raise ConfigurationError(f"device {device!r} does not exist for this runtime; use {' or '.join(known)}")
    return kind, index
