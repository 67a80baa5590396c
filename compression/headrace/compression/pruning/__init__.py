"""Pruning: whole channels, single weights, or N of every M; each followed by fine-tuning with the original as teacher.

Only whole channels make a network faster on a CPU. The steps import torch when they are carried out, not before.
"""

from headrace.compression.pruning.channels import PruneChannels
from headrace.compression.pruning.magnitude import PruneMagnitude, PruneNM

__all__ = ["PruneChannels", "PruneMagnitude", "PruneNM"]
