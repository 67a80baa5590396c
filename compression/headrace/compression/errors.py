"""Errors of compression; each says what to do next.

HeadraceError
├── CompressionError     a step can't do what it was asked to
│   ├── ProductFailed    what a step made can't be loaded, or fails when it runs
│   ├── DataError        the data doesn't fit the model, the metric, or is too little
│   └── NotApplicable    a recipe has nothing to do for this model, or needs what it hasn't; a search goes on without it
└── MissingLibrary       an extra isn't installed
"""

from __future__ import annotations

from headrace.contracts.errors import ConfigurationError, HeadraceError


class CompressionError(HeadraceError):
    """A model could not be compressed as asked; the original package is as it was."""


class ProductFailed(CompressionError):
    """The product of a step can't be loaded, or fails when it runs; the original package is as it was."""


class DataError(CompressionError):
    """The data can't be used with this model; give rows with the columns that its inputs name."""


class NotApplicable(CompressionError):
    """This recipe doesn't apply to this model; `headrace compress recipes` tells what each of them needs."""


class MissingLibrary(ConfigurationError):
    """A library that this needs is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        """what: the step or runtime. extra: of the distribution that brings its library."""
        super().__init__(f'{what} needs a library that is not installed; run `pip install "headrace[{extra}]"`')
