"""Tables of the result: the targets, then every recipe that was tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compression_parts.targets import Target


def of_targets(found: Sequence[Target]) -> str:
    """Lay the targets out as a Markdown table."""
    rows = [("model", "figure", "measured", "at least", "aim", "")]
    for each in found:
        value = "-" if each.value is None else f"{each.value + 0.0:.3g}{each.unit}"
        aim = "" if each.aim is None else f"{each.aim:g}{each.unit}"
        rows.append((each.section, each.what, value, f"{each.least:g}{each.unit}", aim, each.mark))
    return _align(rows)


def of_search(name: str, search: Mapping[str, Any]) -> str:
    """Lay the recipes of one model out as a Markdown table."""
    test = search["original"]["test"]
    rows = [("recipe", "time", "interval", "smaller", test["metric"], "drop, pt", "interval", "rows", "verdict")]
    for each in search["recipes"]:
        if each["status"] != "measured":
            rows.append((each["recipe"], *[""] * 7, each["verdict"]))
            continue
        ratio, evaluation = each["time_ratio"], each["test"] or each["selection"]
        rows.append(
            (
                each["recipe"],
                f"{ratio['median']:.2f}x",
                f"{ratio['low']:.2f} to {ratio['high']:.2f}",
                f"{each['size_ratio']:.1f}x",
                f"{evaluation['value']:.4f}",
                f"{100 * evaluation['drop']:+.2f}",
                f"{100 * evaluation['drop_low']:+.2f} to {100 * evaluation['drop_high']:+.2f}",
                f"{evaluation['rows']:,} {'test' if each['test'] else 'selection'}",
                each["verdict"],
            )
        )
    title = f"{name}, batches of {search['at_rows']}: original {test['metric']} {test['value']:.4f}"
    return f"{title}; chosen: {search['chosen'] or 'none'}\n\n{_align(rows)}"


def of_distillation(found: Mapping[str, Any]) -> str:
    """Lay the seeds of the distillation out as a Markdown table."""
    rows = [("seed", "labels, same epochs", "labels, same steps", "distilled", "gain, pt")]
    rows += [
        (
            str(seed["seed"]),
            f"{seed['labels_same_epochs']:.2%}",
            f"{seed['labels_same_steps']:.2%}",
            f"{seed['distilled']:.2%}",
            f"{seed['gain']:+.1f}",
        )
        for seed in found["seeds"]
    ]
    return f"distillation from 100 labels\n\n{_align(rows)}"


def _align(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)
