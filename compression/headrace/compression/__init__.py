"""Makes models smaller and faster, and proves that it pays: quantize, prune, distill, export, evaluate, report.

Nothing heavy is loaded before it is used: torch, onnx and the converters come with the step that needs them.
"""

from headrace.compression.dataset import Dataset, Splits, split
from headrace.compression.distillation import Distill, distill
from headrace.compression.errors import CompressionError, DataError, MissingLibrary, NotApplicable
from headrace.compression.evaluation import Evaluation, MaxDrop, evaluate, within
from headrace.compression.export import OnnxExport, TorchExport
from headrace.compression.factory import load_network
from headrace.compression.graph import OptimisedGraph
from headrace.compression.measurement import Measurement, faster, measure
from headrace.compression.metrics import Metric, metric_for
from headrace.compression.profile import profile, write_profile
from headrace.compression.pruning import PruneChannels, PruneMagnitude, PruneNM
from headrace.compression.quantization import DynamicInt8, HalfPrecision, StaticInt8, WeightOnly, sensitivity
from headrace.compression.reading import read_dataset
from headrace.compression.recipe import Recipe, Workshop
from headrace.compression.recipes import parse_recipe
from headrace.compression.report import write_report
from headrace.compression.search import Found, Goal, Search
from headrace.compression.source import Request, open_source
from headrace.compression.training import Training, train
from headrace.compression.verbs import export, prune, quantize
from headrace.compression.workbench import Source
from headrace.lifecycle.packages.registry import add_model, promote, remove_model

__all__ = [
    "CompressionError",
    "DataError",
    "Dataset",
    "Distill",
    "DynamicInt8",
    "Evaluation",
    "Found",
    "Goal",
    "HalfPrecision",
    "MaxDrop",
    "Measurement",
    "Metric",
    "MissingLibrary",
    "NotApplicable",
    "OnnxExport",
    "OptimisedGraph",
    "PruneChannels",
    "PruneMagnitude",
    "PruneNM",
    "Recipe",
    "Request",
    "Search",
    "Source",
    "Splits",
    "StaticInt8",
    "TorchExport",
    "Training",
    "WeightOnly",
    "Workshop",
    "add_model",
    "distill",
    "evaluate",
    "export",
    "faster",
    "load_network",
    "measure",
    "metric_for",
    "open_source",
    "parse_recipe",
    "profile",
    "promote",
    "prune",
    "quantize",
    "read_dataset",
    "remove_model",
    "sensitivity",
    "split",
    "train",
    "within",
    "write_profile",
    "write_report",
]
