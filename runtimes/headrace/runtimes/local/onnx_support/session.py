"""ONNX Runtime sessions: the one place where their options are set and their failures are caught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import onnxruntime as ort


class Serializable(Protocol):
    """A protobuf message, such as `onnx.ModelProto`."""

    def SerializeToString(self) -> bytes:  # noqa: N802  (protobuf's name)
        """Return the message as bytes."""
        ...


Model: TypeAlias = bytes | str | Path | Serializable
Level: TypeAlias = Literal["none", "basic", "extended", "all"]
Provider: TypeAlias = str | tuple[str, dict[Any, Any]]

_CPU: Final = "CPUExecutionProvider"

#: ONNX Runtime's severities "error" and "fatal". Its exceptions hold the text of its errors, which is reported where
#: they are caught; its warnings about details of a graph help nobody.
_LOG_ERRORS: Final = 3
_LOG_FATAL_ONLY: Final = 4


class SessionFailed(Exception):
    """ONNX Runtime could not load a model; callers translate it. cause: the library's own exception."""

    def __init__(self, cause: Exception) -> None:
        """Take over the message of the cause."""
        super().__init__(str(cause))
        self.cause = cause


@dataclass(frozen=True)
class SessionConfig:
    """Options of a session.

    threads: of a run; 0 leaves it to the library. optimization: of the graph. optimized_file: where to save the
    optimized graph. providers: execution providers, the preferred one first. entries: of ONNX Runtime's
    `add_session_config_entry`. log_errors: for providers whose log says more than their exceptions.
    """

    threads: int = 0
    optimization: Level = "all"
    optimized_file: Path | None = None
    providers: Sequence[Provider] = (_CPU,)
    entries: Mapping[str, str] = field(default_factory=dict)
    log_errors: bool = False


_DEFAULT: Final = SessionConfig()


def open_session(model: Model, config: SessionConfig = _DEFAULT) -> ort.InferenceSession:
    """Load a model: the path of its file, its bytes, or an `onnx.ModelProto`. Raises SessionFailed."""
    import onnxruntime as ort

    levels = ort.GraphOptimizationLevel
    options = ort.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS if config.log_errors else _LOG_FATAL_ONLY
    options.graph_optimization_level = {
        "none": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[config.optimization]
    if config.optimized_file is not None:
        options.optimized_model_filepath = str(config.optimized_file)
    for key, value in config.entries.items():
        options.add_session_config_entry(key, value)
    try:
        content = model if isinstance(model, bytes | str | Path) else model.SerializeToString()
        return ort.InferenceSession(content, options, providers=list(config.providers))
    except Exception as exc:  # ONNX Runtime's exception classes share no base but Exception.
        raise SessionFailed(exc) from exc
