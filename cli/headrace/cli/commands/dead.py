"""`headrace dead`: list, retry and remove dead letters, the requests that no worker could serve."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from headrace.cli.terminal.console import Json, print_fields, print_json, print_table, say
from headrace.cli.terminal.errors import NoSuchLetter
from headrace.cli.terminal.options import seconds, settings_with
from headrace.contracts.formatting import sized
from headrace.contracts.message import TASK_PREFIX, queue_name

if TYPE_CHECKING:
    from redis import Redis

    from headrace.queueing import DeadLetter, LetterFilter

app = typer.Typer(
    no_args_is_help=True, help="List, retry and remove dead letters: requests that no worker could serve."
)

#: Letters that `list` shows by default.
_SHOWN: Final = 100

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", show_default=False, help="Ids as in `dead list`.")]
Model = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", show_default=False, help="Only letters of this model.")
]
Queue = Annotated[
    str | None, typer.Option("--queue", metavar="QUEUE", show_default=False, help="Only letters of this queue.")
]
Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", show_default=False, help="Only letters with this text in the reason."),
]
Older = Annotated[
    float | None,
    typer.Option(
        "--older",
        metavar="AGE",
        parser=seconds,
        show_default=False,
        help="Only letters older than this: 90s, 15m, 12h, 7d.",
    ),
]
Newer = Annotated[
    float | None,
    typer.Option(
        "--newer",
        metavar="AGE",
        parser=seconds,
        show_default=False,
        help="Only letters newer than this: 90s, 15m, 12h, 7d.",
    ),
]
All = Annotated[bool, typer.Option("--all", help="All letters that match the other options.")]


@app.command(name="list")
def list_(  # noqa: PLR0913, PLR0917  (the options of a command are its arguments)
    model: Model = None,
    queue: Queue = None,
    reason: Reason = None,
    older: Older = None,
    newer: Newer = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of letters to show.")] = _SHOWN,
    as_json: Json = False,
) -> None:
    """List dead letters, the newest first."""
    from headrace.queueing import find_letters

    with _broker() as client:
        letters = find_letters(client, _filter(model, queue, reason, older, newer))
        found = [letter for letter, _ in zip(letters, range(limit), strict=False)]
    if as_json:
        print_json(found)
        return
    now = time.time()
    rows = ((one.id, _model_of(one), now - one.buried_at, len(one.history), one.reason) for one in found)
    print_table(("id", "model", "age (s)", "deaths", "reason"), rows, "no dead letters")


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", show_default=False, help="Id as in `dead list`.")],
    as_json: Json = False,
) -> None:
    """Show one dead letter: its reason, its history and its message."""
    from headrace.queueing import dead_letter, dead_message

    with _broker() as client:
        letter, message = dead_letter(client, letter_id), dead_message(client, letter_id)
    if letter is None or message is None:
        raise NoSuchLetter(f"there is no dead letter {letter_id}; `headrace dead list` shows them")
    headers = _headers(message)
    if as_json:
        about: dict[str, Any] = {"message_bytes": len(message), "headers": headers}
        print_json({**msgspec.to_builtins(letter), **about})
        return
    print_fields(
        [
            ("id", letter.id),
            ("queue", letter.queue),
            ("request", headers.get("id") or "unreadable"),
            ("reason", letter.reason),
            ("buried", dt.datetime.fromtimestamp(letter.buried_at, dt.UTC).isoformat(timespec="seconds")),
            *(("history", line) for line in letter.history),
            ("message", sized(len(message))),
            ("arguments", headers.get("argsrepr") or ""),
        ]
    )


@app.command()
def retry(  # noqa: PLR0913, PLR0917
    ids: Ids = None,
    model: Model = None,
    queue: Queue = None,
    reason: Reason = None,
    older: Older = None,
    newer: Newer = None,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Return dead letters to their queues, as if they had never been delivered.

    The failed row of the request is removed first, so that the row of the new run counts.
    """
    from headrace.queueing import retry_letter
    from headrace.results_store import StoreReader

    wanted = _filter(model, queue, reason, older, newer)
    with _broker() as client, StoreReader(settings_with().require_database_url()) as store:
        done = []
        for letter in _chosen(client, ids, wanted, everything=everything):
            _remove_row(client, store, letter)
            if retry_letter(client, letter.id):
                done.append(letter.id)
    _report("put back", done, as_json)


@app.command()
def drop(  # noqa: PLR0913, PLR0917
    ids: Ids = None,
    model: Model = None,
    queue: Queue = None,
    reason: Reason = None,
    older: Older = None,
    newer: Newer = None,
    everything: All = False,
    as_json: Json = False,
) -> None:
    """Delete dead letters; the failed rows of their requests stay."""
    from headrace.queueing import drop_letter

    wanted = _filter(model, queue, reason, older, newer)
    with _broker() as client:
        letters = _chosen(client, ids, wanted, everything=everything)
        done = [letter.id for letter in letters if drop_letter(client, letter.id)]
    _report("removed", done, as_json)


@contextmanager
def _broker() -> Iterator[Redis]:
    from headrace.queueing import connect_to, translate_errors

    with translate_errors(), connect_to(settings_with()) as client:
        yield client


def _filter(
    model: str | None, queue: str | None, reason: str | None, older: float | None, newer: float | None
) -> LetterFilter:
    from headrace.queueing import LetterFilter

    if model is not None and queue is not None:
        raise typer.BadParameter("a model's queue has its name; give one of the two", param_hint="--queue")
    queue = queue_name(model) if model is not None else queue
    return LetterFilter(queue=queue, reason=reason, older_s=older, newer_s=newer)


def _chosen(client: Redis, ids: list[str] | None, wanted: LetterFilter, *, everything: bool) -> list[DeadLetter]:
    """Return the letters that a command applies to. Raises NoSuchLetter for an id that is not there."""
    from headrace.queueing import LetterFilter, dead_letter, find_letters

    if not ids:
        if not everything and wanted == LetterFilter():
            raise typer.BadParameter("name dead letters by id, choose them by --model and the like, or say --all")
        return list(find_letters(client, wanted))
    if everything or wanted != LetterFilter():
        raise typer.BadParameter("give either ids or options that choose, not both")
    found = {letter_id: dead_letter(client, letter_id) for letter_id in ids}
    missing = [letter_id for letter_id, letter in found.items() if letter is None]
    if missing:
        raise NoSuchLetter(f"there is no dead letter {', '.join(missing)}; nothing was done")
    return [letter for letter in found.values() if letter is not None]


def _remove_row(client: Redis, store: Any, letter: DeadLetter) -> None:
    """Remove the row, or the answer without one, that was written when the letter was buried; a later row stays."""
    from headrace.queueing import dead_message
    from headrace.queueing.keys import keys_of

    request_id = _headers(dead_message(client, letter.id) or b"").get("id")
    if request_id:
        client.delete(keys_of(client).answer(str(request_id)))
        store.remove_failed(str(request_id), until=dt.datetime.fromtimestamp(letter.buried_at, dt.UTC))


def _headers(message: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(message)
        headers = document["headers"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, KeyError):
        return {}
    return headers if isinstance(headers, dict) else {}


def _model_of(letter: DeadLetter) -> str:
    return letter.queue.removeprefix(TASK_PREFIX)


def _report(what: str, ids: list[str], as_json: bool) -> None:
    if as_json:
        print_json({"ids": ids})
    else:
        say(f"{what} {len(ids):,} dead letter{'' if len(ids) == 1 else 's'}")
