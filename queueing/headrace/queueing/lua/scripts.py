"""The texts of the Lua scripts, read once per process, and filled in for a key space.

They run on Valkey and on Redis from 6.2 on. They name keys that they compute, which a cluster does not allow: cluster
mode isn't supported.

Every script that writes first makes a write that can't grow memory, because a server at `maxmemory` refuses growing
writes only until a script has made its first write; so connecting, claiming, renewing and putting back go on when
memory is full, which is what empties it.

Words in capitals that a script doesn't define are parameters, for which `rendered` puts Lua values:

- `KEY_LEASES` and its like: the key of that name in `Keys`; of a key with an argument, the part before that argument.
- `PREFIX`: the prefix of all keys; `PREFIX .. list` is the key of a list.
- `SEPARATOR`, `STEPS_OF_OTHERS`, `STEPS_OF_MODELS`, `TASK_PREFIX`: how queues are made of lists.
- All others: the constant of that name in `limits` or `keys`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from headrace.contracts.message import TASK_PREFIX
from headrace.queueing import keys as key_names
from headrace.queueing.keys import Keys, keys_of
from headrace.queueing.lists import MODEL_STEPS
from headrace.queueing.lua import limits

if TYPE_CHECKING:
    from redis import Redis
    from redis.commands.core import Script


def _read(*names: str) -> str:
    """Return the text of `.lua` files one after the other, without comments, which the server has no use for."""
    folder = files("headrace.queueing.lua")
    lines = "\n".join(folder.joinpath(f"{name}.lua").read_text("utf-8") for name in names).splitlines()
    return "\n".join(line for line in lines if line.strip() and not line.lstrip().startswith("--"))


CLAIM: Final = _read("prelude", "claim")
RELEASE: Final = _read("prelude", "put_back", "release")
RELEASE_ALL: Final = _read("prelude", "put_back", "release_all")
RENEW: Final = _read("prelude", "renew")
COME_BACK: Final = _read("prelude", "come_back")
ACK_REMEMBERED: Final = _read("prelude", "ack_remembered")
DEAD_LETTER: Final = _read("prelude", "dead_letter")
TAKE_LETTER: Final = _read("prelude", "take_letter")
DEFER: Final = _read("prelude", "defer")
STATS: Final = _read("prelude", "stats")
NEXT_DELAYED: Final = _read("next_delayed")
ANNOUNCE: Final = _read("announce")
ANNOUNCE_WITH_PREFIX: Final = _read("announce", "announce_prefix")
SERVE: Final = _read("prelude", "serve")
SERVED: Final = _read("served")
BIND: Final = _read("prelude", "bind")
PROBE: Final = _read("prelude", "probe")
FIRST_WRITE: Final = _read("prelude", "first_write")
END_WAIT: Final = _read("prelude", "end_wait")
RECOVER: Final = _read("recover")
SUBMIT: Final = _read("submit")
FIND_IN_LIST: Final = _read("request_id", "find_in_list")
FIND_IN_HASH: Final = _read("request_id", "find_in_hash")

#: Parameters that are the same in all key spaces.
_CONSTANTS: Final[dict[str, str]] = {
    **{name: str(value) for name, value in vars(limits).items() if isinstance(value, int)},
    **{name: str(value) for name, value in vars(key_names).items() if name.endswith("_TTL_S")},
    "PREFIXES": f"'{key_names.PREFIXES}'",
    "TASK_PREFIX": f"'{TASK_PREFIX}'",
    "TASK_PREFIX_LENGTH": str(len(TASK_PREFIX)),
    "STEPS_OF_MODELS": ", ".join(map(str, MODEL_STEPS)),
}

_PARAMETER: Final = re.compile(
    rf"\bPREFIX \.\. |\b(?:KEY_(?P<key>[A-Z_]+)|PREFIX|SEPARATOR|STEPS_OF_OTHERS|{'|'.join(_CONSTANTS)})\b"
)


@lru_cache(maxsize=256)
def rendered(text: str, keys: Keys) -> str:
    """Return the text of a script for one key space and the lists of its users."""
    values = {
        **_CONSTANTS,
        "PREFIX .. ": f"'{keys.prefix}' .. " if keys.prefix else "",
        "PREFIX": f"'{keys.prefix}'",
        "SEPARATOR": _quoted(keys.lists.separator),
        "STEPS_OF_OTHERS": ", ".join(map(str, keys.lists.in_order)),
    }

    def value(found: re.Match[str]) -> str:
        return values[found[0]] if found["key"] is None else _key(keys, found["key"].lower())

    return _PARAMETER.sub(value, text)


def _key(keys: Keys, name: str) -> str:
    key = getattr(keys, name)
    return f"'{key('') if callable(key) else key}'"


def _quoted(text: str) -> str:
    """Write any text as a Lua string."""
    return "'" + "".join(f"\\{byte:03d}" for byte in text.encode()) + "'"


def script(client: Redis, text: str) -> Script:
    """Return a script bound to a client and its key space; the server learns it when it is first called."""
    return client.register_script(rendered(text, keys_of(client)))
