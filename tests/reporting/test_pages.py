"""Pages need nothing beside them, and escape all that is not markup."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import jinja2
import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from headrace.reporting.pages import image_address, page_environment


def page_of(folder: Path, body: str, **values: object) -> str:
    (folder / "page.html.j2").write_text(f'{{% extends "base.html.j2" %}}{{% block main %}}{body}{{% endblock %}}')
    return page_environment(folder, twice=lambda text: text * 2).get_template("page.html.j2").render(**values)


def test_a_page_has_its_style_and_forbids_everything_from_outside(tmp_path: Path) -> None:
    page = page_of(tmp_path, "<p>hello</p>")
    assert page.startswith("<!DOCTYPE html>\n<html")
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert "prefers-color-scheme: dark" in page
    assert "<p>hello</p>" in page


def test_values_are_escaped_and_markup_is_not(tmp_path: Path) -> None:
    page = page_of(tmp_path, "{{ name }}|{{ name | twice }}|{{ mark }}", name="<\x00&>", mark=Markup("<b>bold</b>"))
    assert "&lt;\ufffd&amp;&gt;|&lt;\ufffd&amp;&gt;&lt;\ufffd&amp;&gt;|<b>bold</b>" in page


def test_a_name_that_a_template_does_not_get_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(jinja2.UndefinedError):
        page_of(tmp_path, "{{ nothing }}")


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_an_image_holds_the_pixels_it_was_made_of(shape: tuple[int, ...]) -> None:
    pixels = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    kind, _, data = image_address(pixels).partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert np.array_equal(np.asarray(image), pixels)
