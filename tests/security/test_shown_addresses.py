"""Wherever Celery or headrace shows where the broker and the store are, it shows no password, however it is written."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.worker.consumer.connection import Connection
from pydantic import SecretStr

from headrace.cli.demo.demo import DATA
from headrace.contracts import ConfigurationError, Settings
from headrace.results_store.celery_backend import PredictionBackend, shown_url
from headrace.workers.app import App, make_app
from headrace.workers.celery_app.consumer import Consumer

#: What libpq reads, and what of it nobody may see. Some of it confuses Python's and Celery's readers of URLs.
STORES = {
    "several hosts": "postgresql://ann:sEcret@a:1,b:2/db",
    "several hosts, one port": "postgresql://ann:sEcret@a,b/db?port=5433",
    "several hosts in the query": "postgresql://ann:sEcret@/db?host=a,b&port=1,2",
    "unquoted #": "postgresql://ann:sEc#rEt@a/db",
    "unquoted ?": "postgresql://ann:sEc?rEt@a/db",
    "unquoted comma and colon": "postgresql://ann:sEc,x:rEt@a/db",
    "unquoted semicolon": "postgresql://ann:sEc;rEt@a/db",
    "unquoted [": "postgresql://ann:sEc[rEt@a/db",
    "quoted": "postgresql://ann:sEc%25%23rEt@[::1]:5/db",
    "in the query": "postgresql://ann@a/db?password=sEcret",
    "of the certificate": "postgresql://ann:sEc@a/db?sslpassword=rEt",
    "socket": "postgresql://ann:sEcret@/db?host=/run/pg",
}
PARTS = ("sEc", "rEt")

BROKERS = {
    "quoted": "redis://ann:sEc%23%25%2FrEt@localhost:6379/1",
    "without a user": "redis://:sEcret@localhost",
    "TLS": "rediss://ann:sEcret@localhost:6379/1?ssl_cert_reqs=required",
    "socket": "redis+socket://:sEcret@/run/valkey.sock?virtual_host=1",
}


def app_of(broker: str, store: str) -> App:
    return make_app(Settings(broker_url=SecretStr(broker), database_url=SecretStr(store), models=DATA / "models"))


def shown_by(app: Celery) -> str:
    """All that the banner, the logs, `celery report` and `inspect conf|stats` show of addresses."""
    from celery.app.utils import filter_hidden_settings

    with app.connection_for_read() as connection:
        consumer = SimpleNamespace(connection=None)
        consumer.steps = [Connection(consumer)]
        consumer.connection = connection
        shown = [connection.as_uri(), repr(connection), Consumer.Blueprint().info(consumer)]
    conf = dict(app.conf.table(with_defaults=True, censored=True))
    settings = filter_hidden_settings(dict(app.conf.table(with_defaults=True, censored=False)))
    return f"{shown} {app.backend.as_uri()} {conf} {settings} {app.conf.humanize(with_defaults=True)} {app.bugreport()}"


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
def test_a_workers_app_shows_no_password_of_the_store(store: str) -> None:
    app = app_of("redis://localhost", store)
    shown = shown_by(app)
    assert [part for part in PARTS if part in shown] == []
    assert "headrace+postgresql://ann" in shown
    assert str(app.conf.result_backend).endswith("/db")
    assert not any(part in str(dict(app.conf)) for part in PARTS)
    app.close()


@pytest.mark.parametrize("broker", BROKERS.values(), ids=BROKERS)
def test_a_workers_app_shows_no_password_of_the_broker(broker: str) -> None:
    app = app_of(broker, "postgresql://ann@a/db")
    shown = shown_by(app)
    assert [part for part in PARTS if part in shown] == []
    app.close()


@pytest.mark.parametrize(
    "broker",
    [
        "redis://ann:sEc#rEt@localhost/1",
        "redis://ann:sEc/rEt@localhost/1",
        "redis://ann:sEc?rEt@localhost/1",
        "redis://ann:sEc[rEt@localhost/1",
        "redis://localhost/1?password=sEcrEt",
    ],
)
def test_celery_is_never_given_a_broker_url_that_it_would_quote_in_an_error(broker: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "headrace.workers.app", "worker"],
        env={
            **os.environ,
            "HEADRACE_BROKER_URL": broker,
            "HEADRACE_DATABASE_URL": "postgresql://ann@a/db",
            "HEADRACE_MODELS": str(DATA / "models"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "HEADRACE_BROKER_URL" in done.stderr
    assert [part for part in PARTS if part in done.stdout + done.stderr] == []


#: Of these, Celery itself would show a part in `inspect conf` of an app whose `result_backend` they are.
SHOWN_BY_CELERY = {"unquoted #", "unquoted ?", "unquoted comma and colon", "in the query", "of the certificate"}


@pytest.mark.parametrize("name", STORES)
def test_a_setting_that_celery_would_show_with_its_password_is_refused_in_any_app(name: str) -> None:
    app = Celery("plain", broker="memory://", set_as_current=False)
    app.loader.override_backends = {"headrace": "headrace.results_store.celery_backend:PredictionBackend"}
    app.conf["result_backend"] = f"headrace+{STORES[name]}"
    if name in SHOWN_BY_CELERY:
        with pytest.raises(ConfigurationError, match="percent-encoded") as caught:
            _ = app.backend
        shown = str(caught.value)
    else:
        assert isinstance(app.backend, PredictionBackend)
        shown = shown_by(app)
        assert app.backend.as_uri(include_password=True) == app.conf.result_backend
    assert [part for part in PARTS if part in shown] == []
    app.close()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://ann@db/scores", "headrace+postgresql://ann@db/scores"),
        ("postgresql://ann:x@a:1,b:2/db", "headrace+postgresql://ann:**@a:1,b:2/db"),
        ("postgresql://a,b/db?port=5433", "headrace+postgresql://a:5433,b:5433/db"),
        ("postgresql://ann:x@[::1]:5/db", "headrace+postgresql://ann:**@[::1]:5/db"),
        ("postgresql:///scores?password=x&host=/run/pg", "headrace+postgresql://:**@%2Frun%2Fpg/scores"),
    ],
)
def test_an_address_for_people_says_who_where_and_which_database(url: str, shown: str) -> None:
    assert shown_url(url) == shown
