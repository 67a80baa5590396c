"""`headrace models`: the packages of a model directory."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headrace.cli.commands.models.adding import add
from headrace.cli.commands.models.check import check
from headrace.cli.commands.models.description import document_of, show_package
from headrace.cli.commands.models.explained import explained_toml
from headrace.cli.commands.models.problems import problems_of, problems_with
from headrace.cli.commands.models.profile import profile
from headrace.cli.terminal.console import Json, print_json, print_table, say
from headrace.cli.terminal.options import Models, directory_of, settings_with
from headrace.contracts.errors import PackageError
from headrace.contracts.package.manifest import ModelDirectory

app = typer.Typer(no_args_is_help=True, help="Add, list, show, check, profile and remove models.")

Name = Annotated[str, typer.Argument(metavar="MODEL", show_default=False, help="Model name.")]


app.command()(add)


@app.command(name="list")
def list_(models: Models = None, as_json: Json = False) -> None:
    """List the models and their versions, and the problems that workers report of those on servers."""
    settings = settings_with(models=models)
    directory = ModelDirectory(settings.models)
    found = []
    for name in directory.names():
        try:
            found.append((name, directory.versions(name), directory.get(name)))
        except PackageError as exc:
            # One package that is wrong must not hide the others.
            say(f"{name}: {exc.message}")
    problems = problems_with([latest for _, _, latest in found], settings)
    if as_json:
        print_json(
            [
                {
                    "name": name,
                    "versions": versions,
                    "latest": versions[-1],
                    "runtime": latest.manifest.runtime,
                    "problem": problems.get(name, []),
                }
                for name, versions, latest in found
            ]
        )
        return
    rows = (
        (
            name,
            ", ".join(versions),
            "; ".join(spec.describe() for spec in latest.manifest.inputs),
            "; ".join(spec.describe() for spec in latest.manifest.outputs),
        )
        for name, versions, latest in found
    )
    empty = f"no model in {directory.root}; add one with `headrace models add FILE`"
    print_table(("model", "versions", "inputs", "outputs"), rows, empty)
    for name, reported in problems.items():
        for problem in reported:
            typer.echo(f"{name}: {problem}")


@app.command()
def show(
    name: Name,
    version: Annotated[str, typer.Option(show_default="the newest", help="Version of the package.")] = "",
    models: Models = None,
    as_toml: Annotated[bool, typer.Option("--toml", help="Print model.toml with each field explained.")] = False,
    as_json: Json = False,
) -> None:
    """Show a model's inputs, outputs and batching, and verify the checksums of its files.

    Of a model on a server, it shows the problems that workers report.
    """
    if as_toml and as_json:
        raise typer.BadParameter("print either TOML or JSON", param_hint="--toml")
    settings = settings_with(models=models)
    package = ModelDirectory(settings.models).get(name, version)
    package.verify()
    if as_toml:
        typer.echo(explained_toml(package.manifest), nl=False)
        return
    problems = problems_of(package, settings)
    if as_json:
        print_json({**document_of(package), "problem": problems})
    else:
        show_package(package, problems)


app.command()(profile)
app.command()(check)


@app.command()
def rm(
    name: Name,
    version: Annotated[str, typer.Argument(metavar="VERSION", show_default=False, help="The version to remove.")],
    models: Models = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")] = False,
) -> None:
    """Remove one version of a model."""
    from headrace.lifecycle.packages.registry import remove_model

    directory = directory_of(models)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask on; pass --yes", param_hint="--yes")
        typer.confirm(f"Remove {directory.root / name / version}?", abort=True, err=True)
    remove_model(directory, name, version)
    say(f"removed {name} {version}")
