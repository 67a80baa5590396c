"""Compression of models: quantize, prune, distill, export, evaluate, search and report.

Nothing heavy is loaded before it is used: torch, onnx and the converters come with the step that needs them.
"""

from headrace.compression.benchmarking.compare import Measurement, faster, measure
from headrace.compression.benchmarking.profiler import profile, write_profile
from headrace.compression.data.dataset import Dataset, Splits, split
from headrace.compression.data.loading import read_dataset
from headrace.compression.distillation.distill import Distill, distill
from headrace.compression.errors import CompressionError, DataError, MissingLibrary, NotApplicable
from headrace.compression.evaluation.evaluate import Evaluation, evaluate
from headrace.compression.evaluation.max_drop import MaxDrop, within
from headrace.compression.evaluation.metric_choice import metric_for
from headrace.compression.evaluation.metrics import Metric
from headrace.compression.export.onnx import OnnxExport
from headrace.compression.export.torch_program import TorchExport
from headrace.compression.networks.loading import load_network
from headrace.compression.pruning import PruneChannels, PruneMagnitude, PruneNM
from headrace.compression.quantization import DynamicInt8, HalfPrecision, StaticInt8, WeightOnly, sensitivity
from headrace.compression.quantization.graph_optimization import OptimisedGraph
from headrace.compression.recipes.catalog import parse_recipe
from headrace.compression.recipes.functions import export, prune, quantize
from headrace.compression.recipes.runner import Source
from headrace.compression.report import write_report
from headrace.compression.search.inputs import Request, open_source
from headrace.compression.search.search import Search, SearchConfig, SearchResult
from headrace.compression.steps import Recipe, StepContext
from headrace.compression.training.options import Training
from headrace.compression.training.train import train
from headrace.lifecycle.packages.registry import add_model, promote, remove_model

__all__ = [
    "CompressionError",
    "DataError",
    "Dataset",
    "Distill",
    "DynamicInt8",
    "Evaluation",
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
    "SearchConfig",
    "SearchResult",
    "Source",
    "Splits",
    "StaticInt8",
    "StepContext",
    "TorchExport",
    "Training",
    "WeightOnly",
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
