"""Pages by Jinja2 that need nothing beside them: style and images are in the page, and nothing is fetched or run."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from headrace.reporting.text import cleaned


def page_environment(templates: Path, **filters: Any) -> Environment:
    """Return an environment for the templates of a folder, in which all that isn't markup is escaped.

    Templates extend `base.html.j2`, with the blocks `title` and `main`. filters: functions, by their names.
    """
    environment = Environment(
        loader=FileSystemLoader([templates, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=cleaned,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment


def image_address(pixels: NDArray[np.uint8]) -> str:
    """Return pixels, [height, width] grey or [height, width, 3] RGB, as the address of an image within the page."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
