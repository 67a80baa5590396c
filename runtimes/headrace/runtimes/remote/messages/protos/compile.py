"""Compiles the protos beside this file into the descriptors that `headrace.runtimes.remote.messages` loads.

Needs grpcio-tools, best in an environment of its own; any version will do, since descriptors are data and no code:

    python -m venv /tmp/protos && /tmp/protos/bin/pip install grpcio-tools
    /tmp/protos/bin/python runtimes/headrace/runtimes/remote/messages/protos/compile.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent

#: Descriptors → the proto that imports all others.
TARGETS: Final = {"tfserving": "tensorflow_serving.proto", "oip": "open_inference.proto"}

if __name__ == "__main__":
    for target, source in TARGETS.items():
        out = f"--descriptor_set_out={HERE.parent / target}.binpb"
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", "--include_imports", out, source]
        subprocess.run(command, check=True)
