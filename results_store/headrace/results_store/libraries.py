"""The libraries of the extra `store`, imported before the modules that use them: clients that only submit lack them."""

from headrace.contracts.errors import ConfigurationError

try:
    import psycopg  # noqa: F401
    import sqlalchemy  # noqa: F401
except ImportError as exc:
    # The text of what can't be loaded, such as psycopg without libpq, has more than one line.
    _STATE = "is not installed" if isinstance(exc, ModuleNotFoundError) else f"can't be loaded ({exc})"
    raise ConfigurationError(
        f'the store needs {exc.name or "psycopg"}, which {_STATE}; run `pip install "headrace[store]"`'
    ) from exc
