"""The REST API of TensorFlow Serving, as its documentation has it."""

from __future__ import annotations

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tests.servers.tfserving.loaded import Registry
from tests.servers.tfserving.tensors import from_json, to_json

PATH = re.compile(r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?(?P<verb>.*)")

#: Codes of TensorFlow's errors, as the server maps them to HTTP.
STATUSES = {3: 400, 5: 404, 9: 412, 12: 501, 14: 503, 8: 429, 4: 504}


class RestServer(ThreadingHTTPServer):
    """An HTTP server on a loopback port. port: 0 lets the system choose."""

    daemon_threads = True

    def __init__(self, registry: Registry, port: int) -> None:
        super().__init__(("127.0.0.1", port), RestHandler)
        self.registry = registry


class RestHandler(BaseHTTPRequestHandler):
    """One connection."""

    server: RestServer
    protocol_version = "HTTP/1.1"
    #: Headers and body leave in packets of their own, which the peer would otherwise acknowledge 40 ms late.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def answer(self, body: bytes) -> None:
        """Answer with JSON, or with the error's text as JSON."""
        try:
            status, value = 200, self.respond(body)
        except tf.errors.OpError as exc:
            status, value = STATUSES.get(exc.error_code, 500), {"error": exc.message}
        except (ValueError, TypeError, LookupError) as exc:
            status, value = 400, {"error": f"JSON Parse error: {exc}"}
        content = json.dumps(value, indent=4).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def respond(self, body: bytes) -> Any:
        found = PATH.fullmatch(self.path)
        if found is None or found["verb"] not in ("", "/metadata", ":predict"):
            raise tf.errors.NotFoundError(None, None, f"Malformed request: {self.command} {self.path}")
        spec = ModelSpec(name=found["name"])
        if found["version"]:
            spec.version.value = int(found["version"])
        if found["label"]:
            spec.version_label = found["label"]
        if found["verb"] == ":predict":
            return self.predict(spec, json.loads(body))
        return self.metadata(spec) if found["verb"] else self.status(spec)

    def predict(self, spec: ModelSpec, body: dict[str, Any]) -> Any:
        servable = self.server.registry.find(spec)
        name = body.get("signature_name", "")
        kinds = {key: tf.as_dtype(info.dtype) for key, info in servable.signature(name).inputs.items()}
        outputs = servable.run(name, from_json(body, kinds), ())
        return to_json(outputs, rows="instances" in body)

    def metadata(self, spec: ModelSpec) -> Any:
        servable = self.server.registry.find(spec)
        signatures = {
            key: MessageToDict(value, always_print_fields_with_no_presence=True, preserving_proto_field_name=True)
            for key, value in servable.signatures.items()
        }
        about = {"name": spec.name, "signature_name": "", "version": str(servable.version)}
        return {"model_spec": about, "metadata": {"signature_def": {"signature_def": signatures}}}

    def status(self, spec: ModelSpec) -> Any:
        versions = self.server.registry.versions(spec.name)
        wanted = [self.server.registry.find(spec).version] if spec.WhichOneof("version_choice") else versions
        well = {"error_code": "OK", "error_message": ""}
        states = [{"version": str(version), "state": "AVAILABLE", "status": well} for version in wanted]
        return {"model_version_status": states}

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""
