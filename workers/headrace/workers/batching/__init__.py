"""The pure core of batching: which requests leave together, and when. No I/O, no threads, no clock of its own."""

from headrace.workers.batching.batch import Batch, Item, Reason
from headrace.workers.batching.batcher import MicroBatcher
from headrace.workers.batching.bucket import AGEING_S
from headrace.workers.batching.cost import CostModel
from headrace.workers.batching.policy import BatchPolicy

__all__ = ["AGEING_S", "Batch", "BatchPolicy", "CostModel", "Item", "MicroBatcher", "Reason"]
