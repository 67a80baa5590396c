"""Detection of a file's format by its first bytes, whatever its name."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from headrace.contracts import PackageError

#: Every mark lies in these first bytes.
_HEAD_BYTES: Final = 512

_LFS_POINTER: Final = b"version https://git-lfs"


class Content(NamedTuple):
    """A format that files tell of by a mark.

    name: with its article. remedy: what to do with such a file under another name. suffixes: that it may have here, its
    own first; none if headrace doesn't take the format. shared: whether other formats have the same mark.
    """

    name: str
    remedy: str
    suffixes: tuple[str, ...] = ()
    shared: bool = False


_UNPACK: Final = "unpack it and add the model file in it"

#: (Place, bytes there) → format. PyTorch's archives, Keras files and plain zip files all begin alike; TVM writes .tar
#: files that are compressed.
_MARKS: Final = (
    (
        0,
        b"PK\x03\x04",
        Content(
            "a zip archive (PyTorch and Keras write such)",
            "unpack it, or give it back its own suffix",
            (".pt2",),
            shared=True,
        ),
    ),
    (0, b"\x89HDF\r\n\x1a\n", Content("an HDF5 file (Keras)", "rename it to .h5 to see how it is converted")),
    (4, b"TFL3", Content("a TensorFlow Lite model", "rename it to .tflite", (".tflite", ".lite"))),
    (4, b"ORTM", Content("a model in ONNX Runtime's own format (.ort)", "add the .onnx file that it was made of")),
    (0, b"\x7fELF", Content("a library of native code", "rename it to .so if TVM built it", (".so",))),
    (0, b"GGUF", Content("a GGUF file", "rename it to .gguf to see how it is converted")),
    (0, b"\x1f\x8b", Content("a gzip archive", _UNPACK, (".tar",), shared=True)),
    (0, b"BZh", Content("a bzip2 archive", _UNPACK)),
    (0, b"7z\xbc\xaf", Content("a 7-Zip archive", _UNPACK)),
    (0, b"\xfd7zXZ", Content("an xz archive", _UNPACK)),
    (257, b"ustar", Content("a tar archive", _UNPACK, (".tar",), shared=True)),
    *(
        (0, bytes([0x80, protocol]), Content("a Python pickle", "rename it to .pkl to see how it is converted"))
        for protocol in range(2, 6)
    ),
)


def check_readable(source: Path) -> None:
    """Raise PackageError for a file that is missing, empty, or stands for one that Git LFS has not fetched."""
    try:
        head = head_of(source)
    except FileNotFoundError:
        raise PackageError(f"{source} can't be read: it does not exist") from None
    except OSError as exc:
        raise PackageError(f"{source} can't be read: {exc.strerror}") from exc
    if not head:
        raise PackageError(f"{source} is empty; download or copy it again")
    if head.startswith(_LFS_POINTER):
        raise PackageError(
            f"{source} holds no model, but Git LFS's pointer to it; run `git lfs pull` in its repository, or download "
            "the file itself"
        )


def kind_of_content(source: Path) -> Content | None:
    """Return the format that a file's first bytes tell of; None when they tell of none."""
    head = head_of(source)
    for place, mark, content in _MARKS:
        if head[place : place + len(mark)] == mark:
            return content
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return Content("a web page", "download the model file itself, past the page that shows it")
    if text.startswith((b"<?xml", b"<net")):
        return Content("an XML file", "rename it to .xml if it is an OpenVINO model", (".xml",))
    return None


def head_of(source: Path) -> bytes:
    """Return a file's first bytes."""
    with source.open("rb") as file:
        return file.read(_HEAD_BYTES)
