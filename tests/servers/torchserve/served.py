"""The models of every server of these tests, as a handler of TorchServe.

A request is an Open Inference request, `{"instances": [...]}`, or one bare row; its answer has the same form.
"""

from __future__ import annotations

import json
import time
from typing import Any

import torch

#: Model → datatype, shape without rows.
TENSORS = {"affine": ("FP32", 4), "whole": ("INT64", 3), "slow": ("FP32", 4), "text": ("BYTES", 1)}


def handle(requests: list[dict[str, Any]] | None, context: Any) -> list[Any]:
    """Answer what the server has put together; a request that does not fit fails alone."""
    if requests is None:
        return []
    if context.manifest["model"]["modelName"] == "slow":
        time.sleep(1)
    answers = []
    for index, request in enumerate(requests):
        try:
            answers.append(answer(request.get("data") or request.get("body"), context.manifest["model"]))
        except ValueError as exc:
            context.set_response_status(code=400, phrase="Bad Request", idx=index)
            answers.append(str(exc))
    return answers


def answer(body: Any, model: dict[str, str]) -> Any:
    name = model["modelName"]
    if isinstance(body, (bytes, bytearray)):
        body = json.loads(body)
    if isinstance(body, dict) and "inputs" in body:
        (tensor,) = body["inputs"]
        output = {"name": "y", "datatype": TENSORS[name][0], "shape": tensor["shape"]}
        output["data"] = flat(compute(name, reshaped(tensor["data"], tensor["shape"][0])))
        return {
            "id": body.get("id", ""),
            "model_name": name,
            "model_version": model["modelVersion"],
            "outputs": [output],
        }
    if isinstance(body, dict) and "instances" in body:
        return {"predictions": compute(name, body["instances"])}
    return compute(name, [body])[0]


def compute(name: str, rows: list[list[Any]]) -> list[list[Any]]:
    """Return y for rows of x."""
    kind, size = TENSORS[name]
    if any(len(row) != size for row in rows):
        raise ValueError(f"x has rows of {[len(row) for row in rows]} elements, not {size}")
    if kind == "BYTES":
        return [[value.upper() for value in row] for row in rows]
    x = torch.tensor(rows, dtype=torch.float32 if kind == "FP32" else torch.int64)
    return (x * 2 + 1).tolist()


def reshaped(data: list[Any], rows: int) -> list[list[Any]]:
    values = flat(data)
    size = len(values) // rows
    return [values[start : start + size] for start in range(0, len(values), size)]


def flat(data: list[Any]) -> list[Any]:
    return [value for row in data for value in row] if data and isinstance(data[0], list) else data
