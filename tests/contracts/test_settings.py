"""Settings come from the environment; what is wrong is named, and what is secret is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from headrace.contracts import ConfigurationError, Settings, load_settings
from headrace.contracts.settings import variables_of

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"HEADRACE_{name.upper()}", raising=False)
    monkeypatch.chdir(tmp_path)


def test_everything_has_a_default_but_the_two_addresses() -> None:
    settings = load_settings()
    for required in (settings.require_broker_url, settings.require_database_url):
        with pytest.raises(ConfigurationError, match=r"HEADRACE_\w+_URL is not set.*headrace up"):
            required()


def test_every_setting_is_read_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "broker_url": "redis://broker:6379/0",
        "key_prefix": "shop:",
        "database_url": "postgresql://store/headrace",
        "gateway_grpc": "false",
        "gateway_host": "::1",
        "home": "/srv/home",
        "models": "/srv/models",
        "device": "cuda:1",
        "inbox_bytes": "4097",
        "serve": "bulk",
        "bulk_roots": "/data,s3://bucket/scores",
        "bulk_scratch": "/srv/scratch",
    }
    files = {f"server_{kind}_file": f"/srv/{kind}.pem" for kind in ("ca", "cert", "key")}
    numbers = {name: "7" for name in Settings.model_fields if name not in values | files}
    for name, value in {**values, **files, **numbers}.items():
        monkeypatch.setenv(f"HEADRACE_{name.upper()}", value)
    settings = load_settings()
    assert settings.require_broker_url() == values["broker_url"]
    assert settings.require_database_url() == values["database_url"]
    assert (settings.key_prefix, settings.inbox_bytes) == ("shop:", 4097)
    assert (settings.home, settings.models, settings.device) == (Path("/srv/home"), Path("/srv/models"), "cuda:1")
    assert (settings.serve, settings.gateway_host, settings.gateway_grpc) == ("bulk", "::1", False)
    assert (settings.bulk_roots, settings.bulk_scratch) == (values["bulk_roots"], Path("/srv/scratch"))
    assert {name: str(getattr(settings, name)) for name in files} == files
    assert all(getattr(settings, name) == 7 for name in numbers)


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_variable_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"HEADRACE_{name.upper()}", "")
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEASE_S", "soon"),
        ("LEASE_S", "0"),
        ("LEASE_S", "-1"),
        ("LEASE_S", "nan"),
        ("LEASE_S", "inf"),
        ("GRACE_S", "inf"),
        ("EVENTS_PER_S", "nan"),
        ("THREADS", "1.5"),
        ("THREADS", "-1"),
        ("QUEUE_LIMIT", "many"),
        ("MAX_PAYLOAD_BYTES", "16MB"),
        ("MAX_PAYLOAD_BYTES", "0"),
        ("RETENTION_DAYS", "9" * 5000),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"HEADRACE_{name}", value)
    with pytest.raises(ConfigurationError, match=rf"HEADRACE_{name} is wrong: .*docs/settings\.md") as caught:
        load_settings()
    assert value not in caught.value.message or value in {"0", "-1", "nan", "inf"}


def test_secrets_show_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_BROKER_URL", f"redis://:{SECRET}@broker/0")
    monkeypatch.setenv("HEADRACE_DATABASE_URL", f"postgresql://headrace:{SECRET}@store/headrace")
    settings = load_settings()
    assert SECRET in settings.require_broker_url()
    for shown in (
        repr(settings),
        str(settings),
        f"{settings!r:>10}",
        settings.model_dump_json(),
        str(settings.model_dump()),
    ):
        assert SECRET not in shown


def test_an_error_never_repeats_a_value_which_may_be_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.setenv(f"HEADRACE_{name.upper()}", SECRET)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert SECRET not in caught.value.message
    assert caught.value.__suppress_context__
    assert caught.value.__cause__ is None


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().threads = 2  # type: ignore[misc]


def test_every_setting_says_what_it_is_for() -> None:
    assert all((field.description or "").endswith(".") for field in Settings.model_fields.values())


def test_another_process_reads_the_same_settings_from_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(broker_url=SecretStr(f"redis://:{SECRET}@broker/0"), models=Path("elsewhere"), lease_s=7)
    for name, value in variables_of(settings).items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings
    assert "HEADRACE_DATABASE_URL" not in variables_of(settings)
