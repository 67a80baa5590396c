"""Broker URLs: how redis-py, Celery and Flower read them, and those that name Sentinels instead of a server."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from headrace.contracts.errors import ConfigurationError

#: Sentinel's own port.
SENTINEL_PORT: Final = 26379

#: How kombu writes the address of one Sentinel.
SENTINEL_SCHEME: Final = "sentinel://"

_TO_REDIS: Final = {
    "redis": "redis",
    "rediss": "rediss",
    "headrace": "redis",
    "headraces": "rediss",
    "unix": "unix",
    "redis+socket": "unix",
    "headrace+socket": "unix",
}
_TO_HEADRACE: Final = {"redis": "headrace", "rediss": "headraces", "unix": "headrace+socket"}

#: Schemes of URLs that name Sentinels, and whether the server that they watch is reached by TLS.
_SENTINELS: Final = {
    "sentinel": False,
    "redis+sentinel": False,
    "rediss+sentinel": True,
    "headrace+sentinel": False,
    "headraces+sentinel": True,
}

#: kombu accepts `CERT_REQUIRED` and `required`, redis-py only the latter.
_CERT_REQS: Final = re.compile(r"(ssl_cert_reqs=)CERT_(NONE|OPTIONAL|REQUIRED)")

_LOGIN_IN_QUERY: Final = re.compile(r"\?(?:[^#]*&)?(?:username|password)=")

#: The URL itself may hold a password and stays out of messages.
UNREADABLE: Final = (
    "the broker URL can't be read; check HEADRACE_BROKER_URL, and percent-encode special characters in its password"
)


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """A server that Sentinels watch.

    sentinels: hosts and ports. master_name: what they call it. login: `username` and `password` at the server.
    tls: None for plain TCP to the server, else options of redis-py such as `ssl_ca_certs`; Sentinels themselves are
    asked by plain TCP. sentinel_login: `username` and `password` at the Sentinels.
    """

    sentinels: tuple[tuple[str, int], ...]
    master_name: str
    database: int = 0
    login: dict[str, str] = field(default_factory=dict, repr=False)
    tls: dict[str, Any] | None = None
    sentinel_login: dict[str, str] = field(default_factory=dict, repr=False)


def redis_url(url: str) -> str:
    """Write a broker URL the way redis-py and Flower read it: `redis://`, `rediss://` or `unix://`.

    Raises ConfigurationError for any other scheme.
    """
    scheme, rest = _split(url)
    plain = _CERT_REQS.sub(lambda m: m[1] + m[2].lower(), rest)
    if scheme == "unix":
        plain = plain.replace("virtual_host=", "db=")
    return f"{scheme}://{plain}"


def headrace_url(url: str) -> str:
    """Write a broker URL so that Celery reaches the server through headrace's transport: `headrace://`, `headraces://`.

    Raises ConfigurationError for URLs that can't be read.
    """
    found = sentinels_of(url)
    if found is not None:
        scheme = "headrace" if found.tls is None else "headraces"
        return ";".join(f"{scheme}+{SENTINEL_SCHEME}{part.partition('://')[2]}" for part in url.split(";"))
    scheme, rest = _split(url)
    if scheme == "unix":
        rest = rest.replace("db=", "virtual_host=")
    return f"{_TO_HEADRACE[scheme]}://{rest}"


def tls_options(url: str) -> dict[str, Any] | None:
    """Return what Celery calls `broker_use_ssl` for a broker URL: None without TLS, else the server is checked.

    kombu's own `rediss://` and Flower's check nothing unless they are told to.
    """
    import ssl

    from kombu.utils.url import parse_url

    found = sentinels_of(url)
    if found is not None:
        if found.tls is None:
            return None
        url = url.rpartition(";")[2]
    elif _split(url)[0] != "rediss":
        return None
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, **parse_url(url).get("ssl", {})}


def sentinels_of(url: str) -> SentinelAddress | None:
    """Return the Sentinels that a broker URL names, or None where it names a server.

    `sentinel://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, more of them after `;`, and `?master_name=NAME` at the end; the
    scheme may have `redis+`, `rediss+`, `headrace+` or `headraces+` in front. Raises ConfigurationError.
    """
    scheme = url.partition("://")[0]
    if scheme not in _SENTINELS:
        return None
    parts = url.split(";")
    if any(part.partition("://")[0] not in _SENTINELS for part in parts):
        raise ConfigurationError("the broker URL names Sentinels and other servers; after each ; goes another Sentinel")
    try:
        return _read_sentinels(parts, tls=_SENTINELS[scheme])
    except ValueError:
        raise ConfigurationError(UNREADABLE) from None


def _read_sentinels(parts: list[str], *, tls: bool) -> SentinelAddress:
    found = [urlsplit("http://" + part.partition("://")[2]) for part in parts]
    for part in parts:
        _refuse_login_in_query(part)
    query = dict(pair for each in found for pair in parse_qsl(each.query))
    name = query.get("master_name")
    if not name:
        raise ConfigurationError(
            "a broker URL of Sentinels needs the name of the server that they watch: ?master_name=NAME at its end"
        )
    named = next((each for each in found if each.username or each.password), found[0])
    login = {"username": named.username, "password": named.password}
    path = next((each.path.strip("/") for each in found if each.path.strip("/")), "0")
    at_sentinels = {"username": query.get("sentinel_username"), "password": query.get("sentinel_password")}
    return SentinelAddress(
        tuple((each.hostname or "localhost", each.port or SENTINEL_PORT) for each in found),
        name,
        int(path),
        {what: unquote(value) for what, value in login.items() if value},
        _tls_of(query) if tls else None,
        {what: value for what, value in at_sentinels.items() if value},
    )


def _tls_of(query: dict[str, str]) -> dict[str, Any]:
    """Return redis-py's options of TLS that a query names."""
    options: dict[str, Any] = {name: value for name, value in query.items() if name.startswith("ssl_")}
    if "ssl_cert_reqs" in options:
        options["ssl_cert_reqs"] = options["ssl_cert_reqs"].removeprefix("CERT_").lower()
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() != "false"
    return options


def _split(url: str) -> tuple[str, str]:
    scheme, found, rest = url.partition("://")
    if not found or scheme not in _TO_REDIS:
        # The URL itself may hold a password and stays out of the message.
        shown = scheme if found else "none"
        raise ConfigurationError(
            f"the broker URL's scheme is {shown!r}; use redis://, rediss://, headrace:// or headraces://, or "
            "headrace+sentinel://"
        )
    _refuse_login_in_query(rest)
    return _TO_REDIS[scheme], rest


def _refuse_login_in_query(url: str) -> None:
    if _LOGIN_IN_QUERY.search(url):
        raise ConfigurationError(
            "the broker URL names its user or password after the question mark, where Celery doesn't read it; write "
            "HEADRACE_BROKER_URL as redis://user:password@host"
        )
