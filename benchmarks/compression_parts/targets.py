"""The targets of the benchmark, and whether they were reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """One figure. least: required. aim: hoped for, or None. value: None if not measured."""

    section: str
    what: str
    least: float
    aim: float | None
    value: float | None
    unit: str = ""

    @property
    def met(self) -> bool:
        """Whether the least was reached."""
        return self.value is not None and self.value >= self.least

    @property
    def mark(self) -> str:
        """Return the mark of the outcome."""
        if not self.met:
            return "NOT MET"
        return "met" if self.aim is None or self.value is None or self.value < self.aim else "aim reached"


def targets(sections: Mapping[str, Any]) -> list[Target]:
    """List the figures of the sections that ran."""
    found: list[Target] = []
    for name in ("digits", "mnist"):
        if name in sections:
            best = chosen(sections[name])
            found += [
                Target(name, "best of the front, time at 64 rows", 2.0, 4.0, _ratio(best), "x"),
                Target(name, "accuracy gained, or lost if negative", -0.5, None, _kept(best), "pt"),
                Target(name, "times as small", 3.0, 8.0, best and best["size_ratio"], "x"),
            ]
    if "minilm" in sections:
        best = chosen(sections["minilm"])
        cosine = best["test"]["value"] if best and best["test"] else None
        found += [
            Target("minilm", "int8, time at 32 rows", 1.8, 2.5, _ratio(best), "x"),
            Target("minilm", "cosine", 0.95, 0.98, cosine),
        ]
    if "distillation" in sections:
        found.append(
            Target("distillation", "points over 100 labels alone", 8.0, None, sections["distillation"]["gain"], "pt")
        )
    searches = list(all_searches(sections))
    if searches:
        wrong = sum(len(search["wrongly_promoted"]) for search in searches)
        found.append(Target("all", "promoted though slower or out of bounds, negative", 0.0, None, -float(wrong)))
    return found


def chosen(search: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the chosen recipe: the fastest that is within the bound on the test rows."""
    return next((recipe for recipe in search["recipes"] if recipe["recipe"] == search["chosen"]), None)


def all_searches(sections: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List every search of a run."""
    plain = [sections[name] for name in ("digits", "mnist", "minilm") if name in sections]
    return [*plain, *sections.get("refusals", {}).values()]


def _ratio(recipe: Mapping[str, Any] | None) -> float | None:
    return recipe["time_ratio"]["median"] if recipe and recipe["time_ratio"] else None


def _kept(recipe: Mapping[str, Any] | None) -> float | None:
    return -100 * recipe["test"]["drop"] if recipe and recipe["test"] else None
