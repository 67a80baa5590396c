"""The demo's digit classifier as a torch module: the one of the example, under a name that tests can refer to."""

from examples.digits.network import DEMO_DATA, DigitNet, LabelAndScores, trained, trained_logits

__all__ = ["DEMO_DATA", "DigitNet", "LabelAndScores", "trained", "trained_logits"]
