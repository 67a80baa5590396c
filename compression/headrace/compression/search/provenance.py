"""Provenance: the record that a repetition of a search needs, and that of a promoted package."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import msgspec

from headrace.compression.data.dataset import Splits, dataset_sha256
from headrace.compression.recipes.runner import Source
from headrace.compression.search.result import SearchConfig, SearchResult
from headrace.compression.search.trials import Trial
from headrace.contracts.package.processor import processor_name

#: Distributions whose versions decide what a recipe gives.
_LIBRARIES: Final = (
    "headrace",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "apache-tvm",
    "nncf",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "onnxslim",
    "openvino",
    "torch",
    "torch-pruning",
    "torchao",
)


def record_of(source: Source, data: Splits, config: SearchConfig) -> dict[str, Any]:
    """Return the record that a repetition of the search needs."""
    parts = {"train": data.train, "calibration": data.calibration, "selection": data.selection, "test": data.test}
    return {
        "origin": source.origin,
        "original_sha256": source.package.manifest.sha256,
        "network": source.network.origin if source.network is not None else "",
        "metric": config.metric.name,
        "max_drop": config.bound.fraction,
        "min_speedup": config.min_speedup,
        "exclude": list(config.exclude),
        "at_rows": config.at_rows,
        "threads": config.threads,
        "seed": config.seed,
        "processor": processor_name(),
        "rows": {name: len(part) for name, part in parts.items()},
        "data_sha256": {name: dataset_sha256(part) for name, part in parts.items()},
        "versions": {name: _version(name) for name in _LIBRARIES if _version(name)},
    }


def key_of(name: str, record: dict[str, Any], config: SearchConfig) -> str:
    """Name the folder of a search after all that its figures depend on.

    That is neither the bounds nor the recipes, so that a second search with other bounds measures nothing anew.
    """
    depends = {key: value for key, value in record.items() if key not in {"origin", "max_drop", "min_speedup"}}
    content = msgspec.json.encode([depends, str(config.metric), config.row_sizes, config.seconds, config.runtime])
    return f"{name}-{hashlib.sha256(content).hexdigest()[:12]}"


def provenance_of(found: SearchResult, trial: Trial) -> dict[str, Any]:
    """Return the entry in `model.toml`: the recipe and measurements of a version.

    trial: one that was measured and tested.
    """
    return {
        "compression": {
            "recipe": trial.recipe,
            **found.record,
            "test": msgspec.to_builtins(trial.test),
            "original_test": msgspec.to_builtins(found.baseline_test),
            "selection": msgspec.to_builtins(trial.selection),
            "measurement": msgspec.to_builtins(trial.measurement),
        }
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
