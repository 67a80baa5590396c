"""Formats that no runtime here serves, and how to convert a file of each to a served one without its training code."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from headrace.contracts import PackageError
from headrace.lifecycle.packages.formats.content import Content

_KERAS: Final = (
    "a Keras model; make a SavedModel of it: python -c \"import keras; keras.models.load_model('{file}')"
    ".export('{stem}')\", then `headrace models add {stem}`"
)
_PICKLE: Final = (
    "a Python pickle, which runs code as it is read and isn't loaded here; where you trust it and have the library "
    "that wrote it: skl2onnx.to_onnx(joblib.load('{file}'), rows) makes ONNX of a scikit-learn model, onnxmltools of "
    "those of LightGBM and XGBoost"
)
_TORCH: Final = (
    "a PyTorch checkpoint: a pickle, mostly of weights without the network; with its class, torch.export.save("
    "torch.export.export(network.eval(), example), '{stem}.pt2') makes a file to add; TorchScript is loaded by "
    "torch.jit.load('{file}'), to be exported with torch.onnx.export(…, dynamo=False)"
)
_ENGINE: Final = (
    "a TensorRT engine, which runs on one kind of GPU and one version only; add the .onnx file that it was built of, "
    "and run `headrace worker --device tensorrt`"
)

#: Suffix → what such a file is, and the next step. {file} and {stem} are the file's.
REFUSED: Final = {
    ".h5": _KERAS,
    ".hdf5": _KERAS,
    ".keras": _KERAS,
    ".pb": (
        "a frozen TensorFlow graph; convert it: pip install tf2onnx, then python -m tf2onnx.convert --graphdef {file} "
        "--inputs NAME:0 --outputs NAME:0 --output {stem}.onnx (netron.app shows the names)"
    ),
    ".pt": _TORCH,
    ".pth": _TORCH,
    ".ckpt": _TORCH,
    ".bin": (
        "a file of weights without a model; add the .xml beside it (OpenVINO), or export the network it belongs to "
        "(Hugging Face: optimum-cli export onnx --model FOLDER OUT)"
    ),
    ".safetensors": (
        "a file of weights without a network; for a Hugging Face model: pip install optimum-onnx, then optimum-cli "
        "export onnx --model {folder} {stem}-onnx, and add the .onnx file that it writes"
    ),
    ".gguf": (
        "a llama.cpp language model, which answers token by token; llama.cpp's own server runs it, headrace doesn't. "
        "Encoders and classifiers are served as ONNX: optimum-cli export onnx --model NAME OUT"
    ),
    ".joblib": _PICKLE,
    ".pkl": _PICKLE,
    ".pickle": _PICKLE,
    ".mlmodel": (
        "a Core ML model, which runs on Apple's systems only; convert it: pip install onnxmltools coremltools, then "
        "onnxmltools.convert_coreml(coremltools.utils.load_spec('{file}'), '{stem}')"
    ),
    ".mlpackage": "a Core ML program, which runs on Apple's systems only; export the network it was made of as ONNX",
    ".engine": _ENGINE,
    ".plan": _ENGINE,
    ".trt": _ENGINE,
}


def refuse(source: Path, content: Content | None) -> None:
    """Raise PackageError for a file of a format that isn't served, naming the next step.

    content: what its first bytes tell.
    """
    text = REFUSED.get(source.suffix.lower())
    if text is not None:
        filled = text.format(file=source, stem=source.with_suffix(""), folder=source.parent)
        raise PackageError(f"{source} is {filled}")
    if content is not None and (content.shared or not content.suffixes):
        raise PackageError(f"{source} is {content.name}; {content.remedy}")
