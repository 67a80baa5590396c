"""The prefix of all Redis keys, by which several deployments share one server without seeing each other."""

from __future__ import annotations

import re
from typing import Final

from headrace.contracts.errors import ConfigurationError

#: Longest prefix, in characters: each key of each command carries it.
MAX_PREFIX: Final = 64

#: Printable ASCII without the characters of patterns (SCAN, ACL rules), the braces that name a hash slot (with them all
#: keys of a cluster would lie in one), quotes, angle brackets and blanks.
_PREFIX: Final = re.compile(rf"[!#$%&()+,\-./0-9:;=@A-Z_a-z|~]{{0,{MAX_PREFIX}}}\Z")


def check_prefix(prefix: str) -> str:
    """Return the prefix, which may be empty. Raises ValueError that lists the characters it may hold."""
    if not isinstance(prefix, str) or not _PREFIX.match(prefix):
        raise ValueError(
            f"a key prefix holds up to {MAX_PREFIX} letters, digits and marks such as ':', '-', '_' or '.', but no "
            f"blanks, quotes, braces or characters of patterns (* ? [ ] ^ \\), unlike {prefix!r}"
        )
    return prefix


def checked_prefix(prefix: str, name: str) -> str:
    """Return the prefix. name: of what sets it, for the error. Raises ConfigurationError."""
    try:
        return check_prefix(prefix)
    except ValueError as exc:
        raise ConfigurationError(f"{name} is wrong: {exc}") from None
