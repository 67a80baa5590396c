"""The OpenAPI document, as far as it is written by hand: routes read their requests without the framework."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from headrace.contracts.tensors.datatypes import DTYPES
from headrace.gateway.oip.parameters import NONFINITE

_PARAMETERS: Final = {"type": "object", "additionalProperties": True}

_INPUT: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "datatype": {"type": "string", "enum": list(DTYPES)},
        "data": {"type": "array", "description": "Nested or flat, row-major; not with binary_data_size."},
        "parameters": _PARAMETERS,
    },
}

_REQUEST: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string", "description": "Returned with the answer."},
        "inputs": {"type": "array", "items": _INPUT},
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "parameters": _PARAMETERS},
            },
        },
        "parameters": {
            "type": "object",
            "properties": {
                "timeout": {"type": "integer", "minimum": 0, "description": "Microseconds; 0 is no limit of its own."},
                "priority": {"type": "integer", "minimum": 0, "description": "1 is the most urgent, 0 the default."},
                "binary_data_output": {"type": "boolean"},
                "nonfinite": {"type": "string", "enum": list(NONFINITE)},
            },
        },
    },
}

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "error"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "error": {"type": "string"},
        "field": {"type": "string"},
        "request_id": {"type": "string"},
    },
}

_PROBLEMS: Final = {"application/problem+json": {"schema": _PROBLEM}}

_INDEX: Final = {"type": "object", "properties": {"ready": {"type": "boolean"}}}

#: What the path of a request takes in its query.
_QUERIES: Final[dict[str, list[dict[str, Any]]]] = {
    "/v2/requests/{id}": [
        {"name": "wait", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 999_999_999}},
        {"name": "nonfinite", "in": "query", "schema": {"type": "string", "enum": list(NONFINITE)}},
        {"name": "binary_data_output", "in": "query", "schema": {"type": "boolean"}},
    ]
}

_NAMES: Final = re.compile(r"{(\w+)}")

_REFUSALS: Final = {
    "400": "The request is malformed",
    "404": "There is no such model",
    "413": "The body is too large",
    "415": "The content encoding is not known",
    "422": "The inputs do not fit the model, or the answer has no JSON form",
    "429": "The queue is full",
    "500": "The model or the gateway failed",
    "501": "headrace does not have what is asked for",
    "503": "No worker serves the model, or the gateway is shutting down",
    "504": "The deadline passed",
}


def completed(document: dict[str, Any], infer_paths: Iterable[str]) -> dict[str, Any]:
    """Return a document of OpenAPI with `infer`, and with what every path has: its parameters, and problems.

    document: of the routes that the framework knows; their handlers read their parameters themselves.
    """
    paths: dict[str, Any] = document["paths"]
    for path in infer_paths:
        paths[path] = {"post": infer_operation()}
    for path, operations in paths.items():
        names = _NAMES.findall(path)
        for operation in operations.values():
            operation["parameters"] = [_parameter(name) for name in names] + _QUERIES.get(path, [])
            operation["responses"].setdefault("default", {"description": "A problem", "content": _PROBLEMS})
    paths["/v2/repository/index"]["post"]["requestBody"] = {"content": {"application/json": {"schema": _INDEX}}}
    return document


def _parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def infer_operation() -> dict[str, Any]:
    """Return the operation of OpenAPI, without the parameters of its path."""
    answer = {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": {}}
    return {
        "summary": "Run a model",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}}},
        "responses": {
            "200": {"description": "The answer", "content": answer},
            "202": {"description": "The request goes on; Location names it", "content": {"application/json": {}}},
            **{status: {"description": text, "content": _PROBLEMS} for status, text in _REFUSALS.items()},
        },
    }
