"""The question that a trial answers, and its verdict: the layout that a model is served with."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.lifecycle.packages.graph_facts import Graph
from headrace.lifecycle.packages.trial.layouts import Layout
from headrace.lifecycle.packages.trial.proof import Terms
from headrace.lifecycle.packages.trial.runs import Seen


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A person's statements about rows, and facts for the trial.

    independent: None leaves it to the proof. sample: input → real rows. terms: of its service. graph: facts of it.
    """

    rows_at: dict[str, int] = {}
    row_sizes: tuple[int, ...] = ()
    independent: bool | None = None
    terms: Terms = Terms()
    sample: dict[str, Any] = {}
    graph: Graph = Graph()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Decision on how a model is to be served.

    outcome: "independent", "dependent", "given", "no rows" or "undecided". axes: output → its rows. seen: runs.
    free: input and symbol that need not be equal. slower: by how much runs of single rows take longer than batches;
    0 is unknown. why: in words, for a person. steered: whether the values of an input decide sizes. sample_helps:
    whether real rows may tell what made ones didn't.
    """

    outcome: str
    layout: Layout
    axes: dict[str, int | None]
    independent: bool
    seen: tuple[Seen, ...] = ()
    free: tuple[tuple[str, str], ...] = ()
    rows: int = 0
    slower: float = 0.0
    why: str = ""
    steered: bool = False
    sample_helps: bool = True
