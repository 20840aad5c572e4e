"""What an experiment is given to look at: images, and plots of data points."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve

from . import _files
from ._description import Description
from ._formats.files import encoded
from ._formats.journal import Kind
from ._formats.sections import Plot, datapoints, plot_to_json, with_plot
from ._layout import CUSTOM, IMAGES
from ._lifecycle import Action, after
from ._names import check_file_path, check_message
from ._values import StrPath
from ._workers import errand
from .errors import InvalidParams


class Drawing(Description):
    """The part of an experiment that takes what people look at."""

    __slots__ = ()

    async def log_image(self, name: str, image: StrPath | bytes | object) -> None:
        """Put an *image* into the commit at `plots/images/NAME` in the experiment's folder, where DVC draws it.

        *image* is the path of an image file, the bytes of one (PNG, JPEG, GIF, SVG), a figure of matplotlib, a picture
        of Pillow, or an array as numpy and torch have them: height x width, or height x width x 1, 3 or 4 channels;
        integers from 0 to 255, floats from 0 to 1, or bools (these need Pillow, which the extra `images` brings).
        Without a suffix in *name*, the file's own is added, or `.png`. The same name again replaces it; names like
        `f"misclassified/{step}.png"` keep one for each step, which DVC's extension for VS Code shows with a slider.

        It is drawn in a thread: leave a figure alone until this returns. Raises `UnsafePath` for a *name* that is no
        place for a file, `TypeError` and `ValueError` for what is no image, `MissingExtra`, `FileNotFoundError`, and
        `InvalidParams` above `Settings.file_limit`. Cancelled, it did nothing.
        """
        after(self._state, Action.LOG)
        folder = self._here()[1].settings.folder
        check_file_path(f"{folder}/{IMAGES}/{name}", folder=folder)
        limit = self._here()[1].settings.file_limit
        found, text = await errand("aexp-image", lambda stop, tell: _image(name, image, limit))
        after(self._state, Action.LOG)
        self._take_file(check_file_path(f"{folder}/{IMAGES}/{found}", folder=folder), text)

    async def log_plot(
        self,
        name: str,
        datapoints: Sequence[Mapping[str, Any]] | object,
        *,
        x: str,
        y: str | Sequence[str],
        template: str | None = None,
        title: str | None = None,
        x_label: str | None = None,
        y_label: str | None = None,
    ) -> None:
        """Put a plot into the commit: *datapoints* at `plots/custom/NAME.json` in the experiment's folder.

        They are a sequence of mappings, or a data frame of pandas or polars; each has the keys *x* and *y* (one or
        several). How `dvc plots` draws them, by *template* (`linear`, `scatter`, `confusion`, ..., or one of the
        repository's own) with *title* and labels, is written to dvc.yaml. The same name again replaces it.

        Raises `UnsafePath` for a *name* that is no place for a file, and `InvalidParams` for what JSON cannot hold, a data
        point without one of the keys, and above `Settings.file_limit`. Cancelled, it did nothing.
        """
        after(self._state, Action.LOG)
        settings = self._here()[1].settings
        for text in (x, *([y] if isinstance(y, str) else y), template, title, x_label, y_label):
            if text is not None:
                check_message(text)
        place = check_file_path(f"{settings.folder}/{CUSTOM}/{name}.json", folder=settings.folder)
        plot = Plot(
            name=place.removeprefix(f"{settings.folder}/{CUSTOM}/").removesuffix(".json"),
            x=x,
            y=y if isinstance(y, str) else tuple(y),
            template=template,
            title=title,
            x_label=x_label,
            y_label=y_label,
        )
        text = await errand("aexp-plot", lambda stop, tell: _points(plot, datapoints, settings.file_limit))
        await self._in_turn(self._draw(place, plot, text))

    async def _draw(self, place: str, plot: Plot, text: str) -> None:
        after(self._state, Action.LOG)
        account, _ = self._here()
        self._take_file(place, text)
        self._journal.record(Kind.PLOT, [account.number, plot_to_json(plot)])
        self._account = evolve(account, plots=with_plot(account.plots, plot))


def _image(name: str, image: object, limit: int) -> tuple[str, str]:
    """Return (name with its suffix, what the journal holds) of *image*."""
    from ._formats.images import rendered, suffix

    if isinstance(image, str | os.PathLike):
        path = os.fspath(image)
        if os.path.getsize(path) > limit:
            raise _too_large(name, os.path.getsize(path), limit)
        name, image = name if suffix(name) else name + suffix(os.fsdecode(path)), _files.read(os.fsdecode(path))
    found, content = rendered(name, image)
    return found, _text(found, content, limit)


def _points(plot: Plot, rows: Any, limit: int) -> str:
    """Return what the journal holds of the data points *rows*."""
    if hasattr(rows, "to_dicts"):  # polars
        rows = rows.to_dicts()
    elif hasattr(rows, "to_dict") and hasattr(rows, "columns"):  # pandas
        rows = rows.to_dict(orient="records")
    return _text(plot.name, datapoints(plot, rows), limit)


def _text(name: str, content: bytes, limit: int) -> str:
    if len(content) > limit:
        raise _too_large(name, len(content), limit)
    return "".join(encoded(content))


def _too_large(name: str, size: int, limit: int) -> InvalidParams:
    return InvalidParams(
        f"{name} has {size} bytes; an experiment's own files have {limit} at most (Settings.file_limit)"
    )
