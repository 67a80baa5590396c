"""`headrace`, and `python -m headrace.cli`: the command line, or the line that says how to install it."""

import sys


def main() -> None:
    """Run the command line and exit. Without the libraries of the extra `cli`, that is one line on stderr."""
    try:
        from headrace.cli.main import main as run
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in {"rich", "typer"}:
            raise
        sys.exit(f'error: {library} is not installed; run `pip install "headrace[cli]"`')
    run()


if __name__ == "__main__":
    main()
