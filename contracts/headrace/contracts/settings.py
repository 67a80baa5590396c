"""Settings from `HEADRACE_*` variables, or from the local stack when no URL is set. docs/settings.md lists them."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO, Annotated, Final, Literal

import msgspec
from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from headrace.contracts.errors import ConfigurationError
from headrace.contracts.prefix import check_prefix

#: The lease is renewed every quarter of it. Below a second, a worker that a busy machine holds up for a moment loses
#: what it holds; above a day, a dead one's requests are as good as lost.
_LEASE_S: Final = (1, 86_400)

#: A time that is longer than ten years is a mistake of units, and Redis, Postgres or a thread would fail on it later.
_LONGEST_S: Final = 3650 * 86_400

#: Redis takes no longer strings by default (`proto-max-bulk-len`).
_LONGEST_STRING: Final = 512 << 20

#: The running local stack writes its addresses here, in its home.
STACK_FILE: Final = "stack.json"


class StackAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The addresses of the local stack, as `STACK_FILE` holds them. pid: of the process that runs it."""

    broker_url: str
    database_url: str
    pid: int
    models: str = ""
    flower_url: str = ""


class Settings(BaseSettings):
    """All settings. Times are in seconds unless the name has another unit."""

    model_config = SettingsConfigDict(
        env_prefix="HEADRACE_",
        # Compose files and CI systems set a variable to nothing where they mean that it isn't set.
        env_ignore_empty=True,
        allow_inf_nan=False,
        extra="ignore",
        frozen=True,
    )

    broker_url: SecretStr | None = Field(
        None,
        description="URL of Redis or Valkey: `redis://`, `rediss://`, `headrace://` or `headraces://`; or of the "
        "Sentinels that watch it, `headrace+sentinel://one;sentinel://two/0?master_name=NAME`.",
    )
    key_prefix: Annotated[str, AfterValidator(check_prefix)] = Field(
        "",
        description="Prefix of all keys in Redis, so that deployments share a server without seeing each other; the "
        "same for clients and workers that belong together. Equivalent to `global_keyprefix` of Celery's Redis "
        "transport.",
    )
    broker_timeout_s: float = Field(
        8.0,
        ge=2,
        le=3600,
        description="Time without an answer after which a connection to Redis or Valkey counts as dead and is "
        "replaced.",
    )
    database_url: SecretStr | None = Field(
        None, description="URL of Postgres: `postgresql://user:password@host:port/name`."
    )
    database_timeout_s: float = Field(
        8.0,
        ge=2,
        le=3600,
        description="Time without an answer after which a connection to Postgres counts as dead and is replaced.",
    )
    home: Path = Field(Path(".headrace"), description="Folder for the local stack's data.")
    models: Path = Field(Path("models"), description="Folder of model packages, `NAME/VERSION/model.toml`.")
    device: str = Field("cpu", description="Device on which workers run models: `cpu`, `cuda`, `cuda:1`, `tensorrt`.")
    threads: int = Field(
        1, ge=0, description="Threads for one model in one worker process; 0 leaves it to the runtime."
    )
    lease_s: float = Field(
        60.0,
        ge=_LEASE_S[0],
        le=_LEASE_S[1],
        description="Time after which the requests of a dead worker return to their queue.",
    )
    grace_s: float = Field(
        30.0, ge=0, le=_LONGEST_S, description="Time that a worker told to stop has to finish its running batch."
    )
    max_deliveries: int = Field(
        3, ge=1, le=100, description="Crashes of workers running a request after which it becomes a dead letter."
    )
    max_retries: int = Field(
        5,
        ge=0,
        le=100,
        description="Retries of a request after transient failures, such as out of memory.",
    )
    check_every: int = Field(
        0,
        ge=0,
        description="In one of this many batches, one request is computed again, alone; if its outputs differ, the "
        "model's requests run alone from then on. 0 checks none.",
    )
    queue_limit: int = Field(
        1_000_000, ge=0, description="Requests waiting in one queue from which on QueueFull is raised; 0 is no limit."
    )
    max_payload_bytes: int = Field(16 << 20, gt=0, le=_LONGEST_STRING, description="Largest encoded request.")
    inline_reply_bytes: int = Field(
        64 << 10, ge=0, description="Largest outputs sent in a reply; larger ones are read from the store."
    )
    inbox_ttl_s: int = Field(
        3600, gt=0, le=_LONGEST_S, description="Time without traffic after which a client's inbox expires."
    )
    inbox_bytes: int = Field(
        16 << 20,
        ge=4096,
        description="Largest size of a client's inbox in the broker's memory. From half of it on, replies refer to "
        "rows instead of carrying outputs; a full inbox gets no more replies, and its client reads the rows.",
    )
    celery_result_ttl_s: int = Field(
        86_400,
        ge=0,
        le=_LONGEST_S,
        description="Time that results for plain Celery clients stay in Redis; 0 sends none.",
    )
    events_per_s: float = Field(
        50.0,
        ge=0,
        description="Requests per second that a worker shows in Flower one by one; batches are always shown.",
    )
    claimed_bytes: int = Field(
        64 << 20,
        gt=0,
        description="Bytes of requests that a worker holds before they start; raise it for models whose full batches "
        "have larger inputs.",
    )
    outbox_rows: int = Field(20_000, gt=0, description="Finished rows that a worker holds while Postgres is away.")
    outbox_bytes: int = Field(
        134_217_728,
        gt=0,
        description="Bytes of outputs that a worker holds while Postgres is away; at either bound it starts no further "
        "batch. A single batch may be larger.",
    )
    retention_days: int = Field(
        30, ge=0, le=36_500, description="`headrace store prune` drops older rows; 0 keeps all."
    )
    serve: Literal["all", "online", "bulk"] = Field(
        "all",
        description="What a worker serves: `online` requests, `bulk` jobs, or both. Workers of their own for bulk "
        "jobs, under `nice`, leave online requests alone at the price of a second copy of each model.",
    )
    bulk_roots: str = Field(
        "",
        description="Folders and URIs below which workers read the inputs of bulk jobs and write their outputs, "
        "separated by commas; colons do where there is no comma. Nothing else is touched. Without any, workers of the "
        "local stack may use all local files, and others none.",
    )
    bulk_timeout_s: float = Field(
        30.0,
        ge=2,
        le=3600,
        description="Time without an answer after which an object store counts as unavailable. A bulk job waits then, "
        "and tries again.",
    )
    bulk_scratch: Path | None = Field(
        None,
        description="Folder in which workers write the parts of bulk jobs before they are published; on the disk of "
        "the outputs, publishing needs no copy.",
    )
    gateway_host: str = Field(
        "127.0.0.1",
        description="Address on which the gateway listens; `0.0.0.0` for all, as in a container. Whoever reaches it "
        "may send requests.",
    )
    gateway_port: int = Field(8000, ge=0, le=65_535, description="Port of the gateway; 0 takes a free one.")
    gateway_grpc: bool = Field(True, description="Whether the gateway takes requests over gRPC, too.")
    gateway_grpc_port: int = Field(
        8001,
        ge=0,
        le=65_535,
        description="Port of the gateway for gRPC; 0 takes a free one. See HEADRACE_GATEWAY_GRPC.",
    )
    gateway_processes: int = Field(1, ge=1, le=256, description="Processes of the gateway, which share its ports.")
    gateway_wait_s: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="Longest time that the gateway holds a connection open for an answer. A synchronous request "
        "without a shorter `timeout` has it as its deadline.",
    )
    gateway_body_bytes: int = Field(
        64 << 20,
        gt=0,
        le=_LONGEST_STRING,
        description="Largest body of a request to the gateway, also once decompressed.",
    )
    gateway_grace_s: float = Field(
        2.0,
        ge=0,
        le=3600,
        description="Time that requests have to get their answers when the gateway is told to stop; after it, they are "
        "told where those will be.",
    )
    server_timeout_s: float = Field(
        60.0,
        ge=0.1,
        le=86_400,
        description="Time that a model server has for a batch, unless all its requests have an earlier deadline. "
        "Credentials of model servers are in `HEADRACE_SERVER_CREDENTIALS_<NAME>`: `bearer TOKEN` or "
        "`basic USER:PASSWORD`, where `[server] credentials` of a package is NAME.",
    )
    server_ca_file: Path | None = Field(
        None,
        description="Certificates of authorities, PEM, that model servers are verified with; the system's if unset.",
    )
    server_cert_file: Path | None = Field(
        None, description="Certificate, PEM, by which workers identify themselves to model servers."
    )
    server_key_file: Path | None = Field(None, description="Private key, PEM, of `HEADRACE_SERVER_CERT_FILE`.")

    def require_broker_url(self) -> str:
        """Return the broker's URL. Raises ConfigurationError when neither a setting nor a local stack names one."""
        if self.broker_url is None:
            raise ConfigurationError(_missing("HEADRACE_BROKER_URL", self.home))
        return self.broker_url.get_secret_value()

    def require_database_url(self) -> str:
        """Return the database's URL. Raises ConfigurationError when neither a setting nor a local stack names one."""
        if self.database_url is None:
            raise ConfigurationError(_missing("HEADRACE_DATABASE_URL", self.home))
        return self.database_url.get_secret_value()


def variables_of(settings: Settings) -> dict[str, str]:
    """Return the HEADRACE_* variables from which another process reads these settings."""
    return {
        "HEADRACE_" + name.upper(): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in settings
        if value is not None
    }


def _missing(name: str, home: Path) -> str:
    return f"{name} is not set and no local stack runs in {home}; set it, or start one with `headrace up`"


def load_settings() -> Settings:
    """Read the settings from the environment, and the URLs that it leaves open from the running local stack.

    Raises ConfigurationError naming the variable that is wrong; the value is not repeated, it may be secret.
    """
    try:
        settings = Settings()
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        name = "HEADRACE_" + "_".join(map(str, first["loc"])).upper()
        raise ConfigurationError(
            f"{name} is wrong: {first['msg'].removeprefix('Value error, ')}; see docs/settings.md"
        ) from None
    stack = read_stack(settings.home)
    if stack is None:
        return settings
    return settings.model_copy(
        update={
            "broker_url": settings.broker_url or SecretStr(stack.broker_url),
            "database_url": settings.database_url or SecretStr(stack.database_url),
            "models": settings.models
            if "models" in settings.model_fields_set or not stack.models
            else Path(stack.models),
        }
    )


def read_stack(home: Path) -> StackAddress | None:
    """Return the addresses of the local stack that runs in `home`, or None when none does.

    A running stack keeps its file locked; one that is not locked was left behind by a crash and is ignored.
    """
    path = home / STACK_FILE
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(), type=StackAddress) if _is_locked(file) else None
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as exc:
        raise ConfigurationError(
            f"{path} can't be read ({type(exc).__name__}); stop the local stack and delete that file"
        ) from exc


def _is_locked(file: IO[bytes]) -> bool:
    """Whether another open file description holds the lock. Ours, if we get it, ends with the file's closing."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
