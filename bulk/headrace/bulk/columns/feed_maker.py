"""The feeds of a model's inputs, made of what columns they are matched with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from headrace.bulk.columns.base import ColumnMismatch
from headrace.bulk.columns.feeds import Feed
from headrace.bulk.columns.images.paths import resolved
from headrace.bulk.columns.matching import Match
from headrace.bulk.columns.nulls import NullPolicy
from headrace.bulk.columns.values.column_feed import ColumnFeed
from headrace.bulk.columns.values.stacked_feed import StackedFeed
from headrace.contracts.errors import ConfigurationError, InvalidRequest
from headrace.contracts.jobs import ScoreSpec
from headrace.contracts.package.manifest import ModelPackage
from headrace.contracts.package.signature import TensorSpec

ReadBytes: TypeAlias = Callable[[str], bytes]


class FilePlace:
    """The file that tables come from, and what reads the files that it names."""

    def __init__(self, read_bytes: ReadBytes | None) -> None:
        """read_bytes: None where nothing reads files."""
        #: URI of the file, from which relative paths start.
        self.file_uri = ""
        self._read_bytes = read_bytes

    def read(self, path: str) -> bytes:
        """Read the file of a path in a column."""
        if self._read_bytes is None:
            raise InvalidRequest("it is a path, but nothing reads files here; give encoded images")
        return self._read_bytes(resolved(path, self.file_uri))


class FeedMaker:
    """Makes the feeds of a model's inputs."""

    def __init__(
        self, package: ModelPackage, spec: ScoreSpec, policy: NullPolicy, read_bytes: ReadBytes, threads: int
    ) -> None:
        """read_bytes: for columns of paths. threads: of the decoding of images and of text."""
        self._package = package
        self._spec = spec
        self._policy = policy
        self._read_bytes = read_bytes
        self._threads = threads

    def feed(self, match: Match) -> Feed:
        """Return the feed of columns."""
        if match.kind == "text":
            return self._text(match.columns[0])
        spec = next(spec for spec in self._package.manifest.inputs if spec.name == match.target)
        if match.kind == "stacked":
            return StackedFeed(match.columns, spec, self._policy)
        if match.kind == "image":
            return self._image(match.columns[0], spec)
        return ColumnFeed(match.columns[0], spec, self._policy)

    def _image(self, column: str, spec: TensorSpec) -> Feed:
        try:
            from headrace.bulk.columns.images.feed import ImageFeed
        except ImportError as exc:
            raise ConfigurationError(
                f'images need Pillow, which is not installed ({exc}); pip install "headrace[bulk]"'
            ) from exc
        if spec.decode is msgspec.UNSET:
            raise ColumnMismatch(f"column {column!r} holds images, but the package has no [inputs.decode]")
        return ImageFeed(column, spec, spec.decode, self._read_bytes, self._threads)

    def _text(self, column: str) -> Feed:
        from headrace.bulk.columns.text.encoding import TextEncoder
        from headrace.bulk.columns.text.feed import TextFeed

        recipe, inputs = self._package.manifest.tokenizer, self._package.manifest.inputs
        if recipe is msgspec.UNSET:
            raise ColumnMismatch(f"column {column!r} holds text, but the package has no [tokenizer]")
        cut = self._spec.truncate == "cut"
        encoder = TextEncoder(self._package.folder, recipe, recipe.limit(inputs), cut=cut, threads=self._threads)
        fill = self._policy.fill if self._policy.action == "fill" else None
        return TextFeed(column, recipe, inputs, encoder, fill)
