"""Images as inputs, exactly as in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tests.bulk.columns.images.drawn import encoded, picture, reference, with_orientation
from tests.bulk.columns.made import job, manifest, one, tensor, tensors_of

from headrace.bulk.columns.base import PreparedRows
from headrace.bulk.columns.images.paths import resolved
from headrace.bulk.columns.preparation import make_preparation
from headrace.bulk.storage.base import InputMissing, StorageUnavailable
from headrace.contracts import ModelPackage, TensorSpec
from headrace.contracts.package.image_recipe import IMAGENET, ImageDecode

SQUARE = ImageDecode(resize=36, crop=32)


def image_input(recipe: ImageDecode = SQUARE, shape: tuple[int, ...] = (3, 32, 32), kind: str = "FP32") -> TensorSpec:
    return tensor("image", kind, shape, decode=recipe)


def rows_of(images: list[bytes | str | None], spec: TensorSpec, **more: Any) -> PreparedRows:
    fields = {key: more.pop(key) for key in ("on_null",) if key in more}
    package = ModelPackage(folder=Path("/nowhere"), manifest=manifest(spec))
    kind = pa.string() if any(isinstance(image, str) for image in images) else pa.binary()
    table = one(images, name="image", kind=kind)
    return make_preparation(package, job(**fields), table.schema, **more).prepare(table)


def pixels_of(image: bytes, spec: TensorSpec) -> NDArray[Any]:
    found = rows_of([image], spec)
    assert found.refused == []
    row: NDArray[Any] = tensors_of(found)["image"][0]
    return row


@pytest.mark.parametrize(("width", "height"), [(60, 45), (45, 60), (200, 150), (36, 36), (500, 33), (20, 24)])
def test_resizing_and_cropping_are_those_of_training(width: int, height: int) -> None:
    image = picture(width, height)
    found = pixels_of(encoded(image), image_input())
    assert found.shape == (3, 32, 32)
    assert found.dtype == np.float32
    assert np.abs(found - reference(image, 36, 32)).max() <= 1 / 255


def test_numbers_are_bit_for_bit_those_of_totensor_and_normalize() -> None:
    image = picture(224, 224)
    spec = image_input(IMAGENET, (3, 224, 224))
    found = pixels_of(encoded(image.resize((256, 256))), spec)
    cropped = np.asarray(image.resize((256, 256)).crop((16, 16, 240, 240)))
    values = cropped.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    mean, std = np.array(IMAGENET.mean, np.float32), np.array(IMAGENET.std, np.float32)
    np.testing.assert_array_equal(found, (values - mean[:, None, None]) / std[:, None, None])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_gives_the_same_pixels(orientation: int) -> None:
    upright = picture()
    expected = pixels_of(encoded(upright), image_input())
    np.testing.assert_array_equal(pixels_of(with_orientation(upright, orientation), image_input()), expected)
    jpeg = pixels_of(with_orientation(upright, orientation, "JPEG"), image_input())
    assert np.abs(jpeg - expected).mean() < 0.02


def test_exif_is_left_alone_for_a_model_that_was_trained_so() -> None:
    stored = with_orientation(picture(), 6)
    found = pixels_of(stored, image_input(ImageDecode(resize=36, crop=32, exif=False)))
    assert np.abs(found - reference(picture().transpose(Image.Transpose.ROTATE_90), 36, 32)).max() <= 1 / 255


def test_channels_and_dimensions_are_those_of_the_input() -> None:
    image = encoded(picture(32, 32))
    exact = ImageDecode(resize=(32, 32))
    chw = pixels_of(image, image_input(exact))
    np.testing.assert_array_equal(pixels_of(image, image_input(exact, (32, 32, 3))), chw.transpose(1, 2, 0))
    bgr = ImageDecode(resize=(32, 32), channels="bgr")
    np.testing.assert_array_equal(pixels_of(image, image_input(bgr)), chw[::-1])
    np.testing.assert_array_equal(pixels_of(image, image_input(bgr, (32, 32, 3))), chw[::-1].transpose(1, 2, 0))


def test_gray_images_have_one_channel_or_none() -> None:
    gray = ImageDecode(resize=(32, 32), channels="gray", mean=(0.5,), std=(0.25,))
    expected = (np.asarray(picture(32, 32).convert("L"), np.float32) / 255 - 0.5) / 0.25
    for shape in ((32, 32), (1, 32, 32), (32, 32, 1)):
        found = pixels_of(encoded(picture(32, 32)), image_input(gray, shape))
        assert found.shape == shape
        np.testing.assert_allclose(found.reshape(32, 32), expected, rtol=1e-6)


def test_mean_and_std_go_with_the_channels_as_they_are_ordered() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    image = encoded(picture(32, 32))
    plain = pixels_of(image, image_input(ImageDecode(resize=(32, 32), channels="bgr"), (32, 32, 3)))
    recipe = ImageDecode(resize=(32, 32), channels="bgr", mean=mean, std=std)
    found = pixels_of(image, image_input(recipe, (32, 32, 3)))
    np.testing.assert_allclose(found, (plain - mean) / std, rtol=1e-5)


def test_other_scales_and_datatypes() -> None:
    image = encoded(picture(32, 32))
    raw = np.asarray(picture(32, 32)).transpose(2, 0, 1)
    as_they_are = ImageDecode(resize=(32, 32), scale=1.0)
    np.testing.assert_array_equal(pixels_of(image, image_input(as_they_are, kind="UINT8")), raw)
    assert pixels_of(image, image_input(as_they_are, kind="UINT8")).dtype == np.uint8
    signed = ImageDecode(resize=(32, 32), scale=1 / 127.5, mean=(1.0,))
    np.testing.assert_allclose(pixels_of(image, image_input(signed)), raw / 127.5 - 1, atol=1e-6)
    half = pixels_of(image, image_input(ImageDecode(resize=(32, 32)), kind="FP16"))
    assert half.dtype == np.float16


@pytest.mark.parametrize("filter_name", ["nearest", "box", "hamming", "bicubic", "lanczos"])
def test_other_filters_are_those_of_pillow(filter_name: Any) -> None:
    recipe = ImageDecode(resize=(20, 30), interpolation=filter_name)
    found = pixels_of(encoded(picture()), image_input(recipe, (3, 20, 30)))
    expected = np.asarray(picture().resize((30, 20), Image.Resampling[filter_name.upper()]))
    np.testing.assert_array_equal(found * 255, expected.transpose(2, 0, 1))


def test_an_image_that_is_smaller_than_the_crop_lies_on_black() -> None:
    found = pixels_of(encoded(Image.new("RGB", (10, 7), "white")), image_input(ImageDecode(crop=12), (3, 12, 12)))
    assert found[0].sum() == 70
    assert found[0][2:9, 1:11].all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_images_of_every_mode_become_rgb(mode: str) -> None:
    image = picture(32, 32)
    if mode == "I;16":
        stored = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        stored = image.convert(mode)
    kind = "JPEG" if mode in {"CMYK", "YCbCr"} else "PNG"
    found = pixels_of(encoded(stored, kind), image_input(ImageDecode(resize=(32, 32)))) * 255
    gray = mode in {"1", "L", "LA", "I;16"}
    expected = np.asarray((image.convert("1") if mode == "1" else image.convert("L") if gray else image).convert("RGB"))
    close = np.abs(found - expected.transpose(2, 0, 1)).mean()
    assert close < (0.01 if gray else 30 if mode in {"P", "CMYK"} else 6)


def test_floating_point_images_are_refused_as_nobody_knows_their_scale() -> None:
    found = rows_of([encoded(Image.new("F", (8, 8), 0.5), "TIFF")], image_input())
    assert "floating-point" in found.refused[0].message


def test_the_first_image_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue")]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels_of(gif, image_input(ImageDecode(resize=(32, 32))))[:, 5, 5].round().tolist() == [1, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.95])
def test_a_truncated_image_is_one_bad_row(kind: str, share: float) -> None:
    whole = encoded(picture(), kind)
    found = rows_of([whole, whole[: int(len(whole) * share)], whole], image_input())
    assert found.good.tolist() == [0, 2]
    assert [(bad.at, bad.stage, bad.type) for bad in found.refused] == [(1, "decode", "BadImage")]
    assert "column 'image': " in found.refused[0].message


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "TGA", "ICO", "JPEG2000"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damaged_files_are_images_or_bad_rows_and_nothing_else(kind: str, changes: list[tuple[float, int]]) -> None:
    data = bytearray(encoded(picture(16, 16), kind))
    for place, value in changes:
        data[int(place * len(data))] = value
    found = rows_of([bytes(data)], image_input())
    assert len(found.good) + len(found.refused) == 1


def test_what_is_no_image_is_a_bad_row() -> None:
    found = rows_of([b"", b"%!PS-Adobe-3.0 EPSF-3.0", b"<html>"], image_input())
    messages = [bad.message for bad in found.refused]
    assert messages[0] == "column 'image': the image is empty"
    assert messages[1] == "column 'image': no image of a known format (b'%!PS'…)"
    assert len(messages) == 3


def test_an_image_of_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = encoded(Image.new("1", (400, 300)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    assert "more than 100000 pixels" in rows_of([bomb], image_input()).refused[0].message
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "more than 1000 pixels" in rows_of([bomb], image_input()).refused[0].message


def test_nulls_are_skipped_or_bad_and_never_filled() -> None:
    image = encoded(picture())
    assert rows_of([image, None], image_input(), on_null="skip").skipped.tolist() == [1]
    assert rows_of([image, None], image_input(), on_null="fill=0").refused[0].type == "NullValue"


def test_an_image_of_another_size_than_the_input_is_a_bad_row() -> None:
    found = rows_of([encoded(picture(32, 32)), encoded(picture(33, 32))], image_input(ImageDecode()))
    assert found.good.tolist() == [0]
    assert "the image is 32 by 33, but the model takes 32 by 32" in found.refused[0].message


def test_images_of_any_size_share_batches_by_their_size() -> None:
    images = [encoded(picture(20, 10)), encoded(picture(10, 20)), encoded(picture(20, 10))]
    found = rows_of(list(images), image_input(ImageDecode(), (3, -1, -1)))
    assert found.groups is not None
    assert found.groups[0] == found.groups[2] != found.groups[1]
    assert found.tensors(np.array([0, 2]))["image"].shape == (2, 3, 10, 20)
    with pytest.raises(ValueError, match="different sizes"):
        found.tensors(np.array([0, 1]))


def test_threads_give_the_same_images_in_the_same_order() -> None:
    images: list[bytes | str | None] = [encoded(picture(40 + number, 50)) for number in range(20)]
    images[7] = b"broken"
    alone, together = rows_of(images, image_input()), rows_of(images, image_input(), threads=4)
    assert together.good.tolist() == alone.good.tolist()
    np.testing.assert_array_equal(tensors_of(together)["image"], tensors_of(alone)["image"])


def test_paths_are_read_from_the_folder_of_the_file_that_names_them() -> None:
    files = {"/data/images/a.png": encoded(picture()), "s3://bucket/b.png": encoded(picture())}
    package = ModelPackage(folder=Path("/nowhere"), manifest=manifest(image_input()))

    def read(uri: str) -> bytes:
        if uri not in files:
            raise InputMissing(f"{uri} does not exist")
        return files[uri]

    table = one(["images/a.png", "s3://bucket/b.png", "missing.png", "", "/data/images/a.png"], name="image")
    made = make_preparation(package, job(), table.schema, read_bytes=read)
    made.file_uri = "/data/index.csv"
    found = made.prepare(table)
    assert found.good.tolist() == [0, 1, 4]
    assert [(bad.at, bad.type) for bad in found.refused] == [(2, "InputMissing"), (3, "NullValue")]
    assert found.refused[0].message == "column 'image' ('missing.png'): /data/missing.png does not exist"


def test_a_storage_that_is_away_stops_the_table_and_not_the_row() -> None:
    def away(uri: str) -> bytes:
        raise StorageUnavailable(f"{uri}: no answer")

    with pytest.raises(StorageUnavailable):
        rows_of(["a.png"], image_input(), read_bytes=away)


@pytest.mark.parametrize(
    ("path", "file_uri", "uri"),
    [
        ("a.png", "/data/x.csv", "/data/a.png"),
        ("../a.png", "/data/lists/x.csv", "/data/a.png"),
        ("a b/ü.png", "s3://bucket/lists/x.csv", "s3://bucket/lists/a b/ü.png"),
        ("a.png", "s3://bucket/x.csv", "s3://bucket/a.png"),
        ("/abs/a.png", "/data/x.csv", "/abs/a.png"),
        ("gs://other/a.png", "/data/x.csv", "gs://other/a.png"),
        ("a.png", "", "a.png"),
    ],
)
def test_relative_paths_start_at_the_folder_of_their_file(path: str, file_uri: str, uri: str) -> None:
    assert resolved(path, file_uri) == uri


def test_structs_of_bytes_and_path_are_images() -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = one([{"bytes": encoded(picture()), "path": "a.png"}, {"bytes": None, "path": None}, None], kind=kind)
    package = ModelPackage(folder=Path("/nowhere"), manifest=manifest(image_input()))
    found = make_preparation(package, job(mapping={"x": "image"}), table.schema).prepare(table)
    assert found.good.tolist() == [0]


def test_tables_are_cut_so_that_decoded_images_fit_into_memory() -> None:
    package = ModelPackage(folder=Path("/nowhere"), manifest=manifest(image_input(IMAGENET, (3, 224, 224))))
    made = make_preparation(package, job(), pa.schema([("image", pa.binary())]))
    assert 100 < made.rows_at_once < 1000
