"""Pictures: any object that holds one, as the bytes of an image file, and the name that says which kind that is."""

import io
import re
from typing import Any, Final

from ..errors import MissingExtra

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".gif", ".svg")
"""What DVC draws (`dvc_render.image.ImageRenderer.EXTENSIONS`)."""
_MARKS: Final = (
    (rb"\x89PNG\r\n\x1a\n", ".png"),
    (rb"\xff\xd8\xff", ".jpg"),
    (rb"GIF8[79]a", ".gif"),
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!DOCTYPE svg[^>]*>\s*)?<svg[\s>]", ".svg"),
)
_KINDS: Final = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".gif": "GIF"}


def suffix(name: str) -> str:
    """Return the suffix of *name* when it is one of an image, in lower case; else an empty text."""
    dot = name.lower().rfind(".")
    return name[dot:].lower() if name[dot:].lower() in SUFFIXES else ""


def is_file(image: object) -> bool:
    """Say whether *image* is the content of a file, as bytes."""
    return isinstance(image, bytes | bytearray | memoryview)


def rendered(name: str, image: Any) -> tuple[str, bytes]:
    """Return (name with its suffix, content of the file) of *image*.

    That is the bytes of an image file, a figure of matplotlib, a picture of Pillow, or an array as numpy and torch
    have them: height x width, or height x width x 1, 3 or 4 channels; integers from 0 to 255, floats from 0 to 1, or
    bools. Raises `TypeError` for other objects, `ValueError` for other arrays and files, and `MissingExtra` for an
    array without Pillow.
    """
    wanted = suffix(name)
    if is_file(image):
        content = bytes(image)
        found = next((kind for mark, kind in _MARKS if re.match(mark, content[:4096], re.DOTALL)), "")
        if not found:
            raise ValueError(f"the content of {name} is no PNG, JPEG, GIF or SVG file")
        if wanted and _KINDS.get(wanted, wanted) != _KINDS.get(found, found):
            raise ValueError(f"{name} is called {wanted}, but its content is that of a file {found}")
        return (name if wanted else name + found), content
    target = name if wanted else f"{name}.png"
    buffer = io.BytesIO()
    if hasattr(image, "savefig"):
        image.savefig(buffer, format=suffix(target)[1:])
        return target, buffer.getvalue()
    if wanted == ".svg":
        raise ValueError(f"{name} cannot be an SVG file: only a figure, or the bytes of such a file, can")
    picture = image if hasattr(image, "save") and hasattr(image, "convert") else _picture(name, image)
    kind = _KINDS[suffix(target)]
    if kind == "JPEG" and picture.mode not in ("L", "RGB", "CMYK"):
        picture = picture.convert("RGB")  # JPEG has neither transparency nor palettes
    picture.save(buffer, format=kind)
    return target, buffer.getvalue()


def _picture(name: str, image: Any) -> Any:
    """Return an array as a picture of Pillow."""
    if not hasattr(image, "__array__") and not hasattr(image, "__array_interface__"):
        raise TypeError(
            f"the image {name} is of type {type(image).__name__}; pass a path, the bytes of a file, a figure of "
            "matplotlib, a picture of Pillow, or an array"
        )
    try:
        import numpy
        from PIL import Image
    except ModuleNotFoundError as error:
        library = {"PIL": "Pillow"}.get(error.name or "", error.name or "")
        raise MissingExtra("images", library) from error
    array = numpy.asarray(image)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or array.size == 0:
        raise ValueError(
            f"the image {name} has the shape {array.shape}; it must be height x width, or height x width x 1, 3 or 4"
        )
    return Image.fromarray(_pixels(name, array))


def _pixels(name: str, array: Any) -> Any:
    """Return the values of *array* as numbers from 0 to 255, of one byte each."""
    kind, top = array.dtype.kind, 255
    if kind == "b":
        return array.astype("uint8") * 255
    if kind not in "iuf":
        raise ValueError(f"the image {name} holds values of type {array.dtype}; it must hold integers, floats or bools")
    if kind == "f":
        top = 1
    if not (array.min() >= 0 and array.max() <= top):  # NaN is neither
        raise ValueError(f"the image {name} holds values outside of 0 to {top}; scale or clip them")
    return (array * 255).round().astype("uint8") if kind == "f" else array.astype("uint8")
