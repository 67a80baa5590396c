"""kombu connections whose broker URL names Sentinels, which in turn name the master."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from kombu.utils.url import parse_url, url_to_parts

from headrace.queueing.connection.broker_url import SENTINEL_PORT, SENTINEL_SCHEME


def names_sentinels(connection: Any) -> bool:
    """Return whether the URLs of a kombu connection name Sentinels, whether they have been read or not.

    A pool copies a connection while its URLs are being read: it may get the scheme of before and the rest of after.
    """
    alternatives = connection.alt or [""]
    return SENTINEL_SCHEME in str(connection.hostname) or all(url.startswith(SENTINEL_SCHEME) for url in alternatives)


def adopt_sentinels(connection: Any) -> None:
    """Make a kombu connection of Sentinels out of one whose URLs kombu has not read, as those with a `+` in the scheme.

    URLs: `headrace+sentinel://[USER:PASSWORD@]HOST[:PORT][/DATABASE][?master_name=NAME]`, more of them after `;`. The
    user and password are the server's; the Sentinels' own go into the query, `sentinel_username`, `sentinel_password`.
    """
    urls = [
        url[url.index(SENTINEL_SCHEME) :] for url in connection.alt or [connection.hostname] if SENTINEL_SCHEME in url
    ]
    if SENTINEL_SCHEME in (connection.hostname or ""):
        first = url_to_parts(urls[0])
        last = url_to_parts(urls[-1])
        prefix = connection.uri_prefix or connection.transport_cls
        connection.hostname, connection.port = first.hostname, first.port or SENTINEL_PORT
        connection.userid, connection.password = first.username or last.username, first.password or last.password
        connection.virtual_host = first.path or last.path or "/"
        connection.transport_cls, connection.uri_prefix = f"{prefix}+sentinel", None
        connection.transport_options = _options({**first.query, **last.query}) | (connection.transport_options or {})
        parts = [url_to_parts(url) for url in urls]
        connection.alt = [f"{SENTINEL_SCHEME}{each.hostname}:{each.port or SENTINEL_PORT}" for each in parts]
        tls = parse_url(urls[-1]).get("ssl")
        if tls and prefix == "headraces" and not connection.ssl:
            connection.ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED, **tls}
    elif not connection.transport_cls.endswith("+sentinel"):
        connection.transport_cls += "+sentinel"
    # They are no alternatives: whoever connects asks all of them.
    connection.cycle = None


def _options(query: Mapping[str, str]) -> dict[str, Any]:
    """Return the transport options that a URL's query names."""
    options: dict[str, Any] = {"master_name": query["master_name"]} if query.get("master_name") else {}
    names = {"sentinel_username": "username", "sentinel_password": "password"}
    login = {what: query[name] for name, what in names.items() if query.get(name)}
    return {**options, "sentinel_kwargs": login} if login else options
