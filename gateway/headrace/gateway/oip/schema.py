"""The OpenAPI description of `infer`, written by hand: the route itself passes the framework by."""

from __future__ import annotations

from typing import Any, Final

from headrace.contracts.tensors.datatypes import DTYPES

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
                "nonfinite": {"type": "string", "enum": ["refuse", "null", "literal"]},
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


def infer_operation(versioned: bool) -> dict[str, Any]:
    """Return the operation of OpenAPI. versioned: whether its path names a version."""
    names = ["model", "version"] if versioned else ["model"]
    answer = {"application/json": {"schema": {"type": "object"}}, "application/octet-stream": {}}
    problem = {"application/problem+json": {"schema": _PROBLEM}}
    return {
        "summary": "Run a model",
        "parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _REQUEST}}},
        "responses": {
            "200": {"description": "The answer", "content": answer},
            "202": {"description": "The request goes on; Location names it", "content": {"application/json": {}}},
            **{status: {"description": text, "content": problem} for status, text in _REFUSALS.items()},
        },
    }
