"""`headrace store`: the results in Postgres."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Annotated

import typer

from headrace.cli.terminal.console import Json, print_json, print_table, say
from headrace.cli.terminal.options import settings_with
from headrace.contracts.formatting import sized

app = typer.Typer(no_args_is_help=True, help="Migrate, measure and prune the results in Postgres.")


@app.command()
def migrate(as_json: Json = False) -> None:
    """Migrate the database to the schema of this release; safe to repeat."""
    from headrace.results_store import current_revision
    from headrace.results_store import migrate as migrate_database

    database_url = settings_with().require_database_url()
    before = current_revision(database_url)
    migrate_database(database_url)
    after = current_revision(database_url)
    if as_json:
        print_json({"before": before, "after": after})
    else:
        say(f"the schema is {after} already" if before == after else f"migrated from {before or 'nothing'} to {after}")


@app.command()
def stats(as_json: Json = False) -> None:
    """Count rows by model and state, and show their size."""
    from headrace.results_store import StoreReader

    with StoreReader(settings_with().require_database_url()) as reader:
        found = reader.stats()
    if as_json:
        print_json({"rows": found.rows, "size_bytes": found.size_bytes, **dataclasses.asdict(found)})
        return
    counts = ((count.model, str(count.state), count.rows) for count in found.counts)
    print_table(("model", "state", "rows"), counts, "the store holds no row yet")
    if found.counts:
        say(f"{found.rows:,} rows in {sized(found.size_bytes)}, finished from {found.oldest} to {found.newest}")


@app.command()
def prune(
    days: Annotated[
        int | None,
        typer.Option(min=0, show_default="30", help="Days to keep, 0 for all; also HEADRACE_RETENTION_DAYS."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete results older than the retention time; meant to run daily."""
    from headrace.results_store import prune as prune_database

    settings = settings_with(retention_days=days)
    removed = prune_database(settings.require_database_url(), settings.retention_days, dt.datetime.now(dt.UTC))
    if as_json:
        print_json({"removed_rows": removed, "retention_days": settings.retention_days})
    elif settings.retention_days == 0:
        say("all rows are kept; give --days or HEADRACE_RETENTION_DAYS a number above 0 to remove old ones")
    else:
        say(f"removed {removed:,} rows older than {settings.retention_days} days")
