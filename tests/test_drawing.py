"""What an experiment is given to look at: images and plots of data points."""

import asyncio
import io
import json
import math
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.figure import Figure
from PIL import Image

import aexp
from aexp._formats.images import rendered, suffix
from aexp._formats.sections import Plot, datapoints, plot_from_json, plot_to_json, with_plot

Git = Callable[..., str]
POINTS = [{"fpr": 0.0, "tpr": 0.5}, {"fpr": 1.0, "tpr": 1.0}]


def png(size: tuple[int, int] = (4, 3), colour: str = "red") -> bytes:
    """Return a small picture as the content of a file."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, format="PNG")
    return buffer.getvalue()


def figure() -> Figure:
    """Return a figure of matplotlib, made without its global state."""
    drawn = Figure(figsize=(1, 1))
    drawn.add_subplot().plot([0, 1], [1, 0])
    return drawn


def opened(content: bytes) -> Any:
    """Return the picture in *content*."""
    return Image.open(io.BytesIO(content))


class Tensor:
    """An array as torch has them: numpy gets it by asking."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Return the values."""
        return self.values


def jpeg() -> bytes:
    """Return a small photograph."""
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, format="JPEG")
    return buffer.getvalue()


# ---- images ----

IMAGES: dict[str, tuple[str, Callable[[], Any], str, tuple[int, int] | None]] = {
    "bytes": ("a", png, "a.png", (4, 3)),
    "bytearray": ("a.png", lambda: bytearray(png()), "a.png", (4, 3)),
    "jpeg": ("a", jpeg, "a.jpg", (2, 2)),
    "jpeg by its long name": ("a.JPEG", jpeg, "a.JPEG", (2, 2)),
    "svg": ("a", lambda: b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg xmlns="x"/>', "a.svg", None),
    "figure": ("a", figure, "a.png", (100, 100)),
    "figure as svg": ("a.svg", figure, "a.svg", None),
    "picture": ("deep/er/a", lambda: Image.new("RGBA", (5, 6)), "deep/er/a.png", (5, 6)),
    "picture without transparency": ("a.jpg", lambda: Image.new("RGBA", (5, 6)), "a.jpg", (5, 6)),
    "palette as gif": ("a.gif", lambda: Image.new("P", (5, 6)), "a.gif", (5, 6)),
    "array": ("a", lambda: np.zeros((3, 7), np.uint8), "a.png", (7, 3)),
    "array of colours": ("a.v2", lambda: np.full((3, 7, 3), 255), "a.v2.png", (7, 3)),
    "array with transparency": ("a", lambda: np.zeros((3, 7, 4), np.float32), "a.png", (7, 3)),
    "array with one channel": ("a", lambda: np.ones((3, 7, 1), bool), "a.png", (7, 3)),
    "tensor": ("a", lambda: Tensor([[0.0, 1.0]]), "a.png", (2, 1)),
}


@pytest.mark.parametrize("case", IMAGES)
async def test_images_are_files_of_the_commit(case: str, repo_path: Path, git: Git) -> None:
    """Whatever holds an image becomes a file where DVC looks for images, and dvc.yaml says so."""
    name, image, expected, size = IMAGES[case]
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("it") as experiment:
            await experiment.log_image(name, image())
        content = await repository.read("it", f"aexp/plots/images/{expected}")
    if size is not None:
        assert opened(content).size == size
    assert yaml.safe_load(git("show", f"{experiment.ref}:aexp/dvc.yaml", cwd=repo_path))["plots"] == ["plots/images"]
    files = git("ls-tree", "-r", "--name-only", experiment.ref, "aexp/plots", cwd=repo_path).split()
    assert files == [f"aexp/plots/images/{expected}"]


async def test_an_image_from_a_file(repo_path: Path, tmp_path: Path) -> None:
    """A path names an image file, whose bytes are taken as they are, with its suffix."""
    content = png()
    (tmp_path / "photo.png").write_bytes(content)
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("it") as experiment:
            await experiment.log_image("one", tmp_path / "photo.png")
            await experiment.log_image("two.png", str(tmp_path / "photo.png"))
            with pytest.raises(FileNotFoundError):
                await experiment.log_image("three", tmp_path / "nothing.png")
        for name in ("one", "two"):
            assert await repository.read("it", f"aexp/plots/images/{name}.png") == content


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([3, 4]))))
def test_pixels_keep_their_values(array: Any) -> None:
    """Bytes of an array are the pixels of its PNG file; floats are 255 times as large."""
    for given_, expected in ((array, array), (array / 255, array), (array.astype(np.int64), array)):
        assert np.array_equal(np.asarray(opened(rendered("a", given_)[1])), expected)


REFUSED: dict[str, tuple[str, Any, type[Exception], str]] = {
    "text that is no file": ("a", "nowhere.png", FileNotFoundError, "nowhere"),
    "an object": ("a", object(), TypeError, "object; pass a path"),
    "None": ("a", None, TypeError, "NoneType"),
    "a list": ("a", [[1, 2]], TypeError, "list"),
    "bytes of something": ("a", b"\x00\x01", ValueError, "no PNG, JPEG, GIF or SVG"),
    "a PNG called JPEG": ("a.jpg", png(), ValueError, "called .jpg"),
    "a picture as SVG": ("a.svg", Image.new("L", (1, 1)), ValueError, "cannot be an SVG"),
    "one dimension": ("a", np.zeros(5), ValueError, r"shape \(5,\)"),
    "two channels": ("a", np.zeros((2, 2, 2)), ValueError, "shape"),
    "no pixels": ("a", np.zeros((0, 2)), ValueError, "shape"),
    "too bright": ("a", np.full((2, 2), 1.5), ValueError, "outside of 0 to 1"),
    "too dark": ("a", np.full((2, 2), -1), ValueError, "outside of 0 to 255"),
    "NaN": ("a", np.full((2, 2), math.nan), ValueError, "outside of 0 to 1"),
    "texts": ("a", np.array([["x"]]), ValueError, "values of type"),
    "complex numbers": ("a", np.zeros((2, 2), complex), ValueError, "values of type"),
    "a name that goes up": ("../../a", png(), aexp.UnsafePath, "goes up"),
    "an absolute name": ("/etc/a", png(), aexp.UnsafePath, "empty"),
    "no name": ("", png(), aexp.UnsafePath, "empty"),
    "Git's name": (".git/a", png(), aexp.UnsafePath, "Git"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_no_image_is_refused_at_the_call(case: str, repo_path: Path) -> None:
    """A refusal says what is wrong, and the experiment goes on without the image."""
    name, image, error, says = REFUSED[case]
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("it") as experiment:
            with pytest.raises(error, match=says):
                await experiment.log_image(name, image)
            await experiment.log_metric("loss", 1)
        assert "plots/images" not in (await repository.read("it", "aexp/dvc.yaml")).decode()


async def test_the_limit_of_files_holds_for_images_and_plots(repo_path: Path, tmp_path: Path) -> None:
    """What is larger than `Settings.file_limit` is refused, a file by its size, before it is read."""
    content = png((64, 64))
    (tmp_path / "large.png").write_bytes(content)
    async with aexp.Repository(repo_path, settings=aexp.Settings(file_limit=64)) as repository:
        experiment = await repository.experiment("it").init()
        for image in (content, tmp_path / "large.png"):
            with pytest.raises(aexp.InvalidParams, match="64 at most"):
                await experiment.log_image("a", image)
        with pytest.raises(aexp.InvalidParams, match="64 at most"):
            await experiment.log_plot("a", POINTS * 2, x="fpr", y="tpr")
        await experiment.discard()


def test_suffixes() -> None:
    """A suffix counts when DVC draws such files."""
    assert [suffix(name) for name in ("a.png", "A.JPEG", "a.v2", "a", ".svg", "a.tiff", "x/y.gif")] == [
        *(".png", ".jpeg", "", "", ".svg", "", ".gif")
    ]


# ---- plots ----


async def test_plots_are_files_and_how_they_are_drawn(repo_path: Path, git: Git) -> None:
    """Data points are a JSON file; template, axes and title stand in dvc.yaml and in experiment.json, once a name."""
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("it") as experiment:
            await experiment.log_metric("loss", 1.0)
            await experiment.log_plot("roc", POINTS[:1], x="tpr", y="fpr")
            await experiment.log_plot("deep/two", [{"a": 1, "b": 2, "c": 3}], x="a", y=["b", "c"])
            await experiment.log_image("i", png())
            await experiment.log_plot(
                *("roc", POINTS), x="fpr", y="tpr", template="simple", title="ROC", x_label="false", y_label="true"
            )
        assert json.loads(await repository.read("it", "aexp/plots/custom/roc.json")) == POINTS
    roc = {"x": "fpr", "y": "tpr", "template": "simple", "title": "ROC", "x_label": "false", "y_label": "true"}
    two = {"x": "a", "y": ["b", "c"]}
    assert yaml.safe_load(git("show", f"{experiment.ref}:aexp/dvc.yaml", cwd=repo_path))["plots"] == [
        {"plots/metrics": {"x": "step"}},
        "plots/images",
        {"plots/custom/roc.json": roc},
        {"plots/custom/deep/two.json": two},
    ]
    account = json.loads(git("show", f"{experiment.ref}:aexp/experiment.json", cwd=repo_path))
    assert account["plots"] == [{"name": "roc", **roc}, {"name": "deep/two", **two}]


FRAMES: dict[str, Any] = {
    "tuples": tuple(POINTS),
    "pandas": pd.DataFrame(POINTS),
    "polars": pl.DataFrame(POINTS),
    "numpy's scalars": [{key: np.float64(value) for key, value in row.items()} for row in POINTS],
    "decimals": [{key: Decimal(str(value)) for key, value in row.items()} for row in POINTS],
}


@pytest.mark.parametrize("case", FRAMES)
async def test_data_points_come_in_many_forms(case: str, repo_path: Path) -> None:
    """Data frames and numbers of other libraries are the same data points."""
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("it") as experiment:
            await experiment.log_plot("roc", FRAMES[case], x="fpr", y="tpr")
        assert json.loads(await repository.read("it", "aexp/plots/custom/roc.json")) == POINTS


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"x": 1}], "data point 0 of the plot it has no y"),
        ([{"x": 1, "y": 2}, {}], "data point 1 of the plot it has no x, y"),
        ([1], "data point 0 of the plot it is no mapping"),
        ("text", "a sequence of mappings, not str"),
        (5, "a sequence of mappings, not int"),
        ({"x": [1]}, "a sequence of mappings, not dict"),
        ([{"x": 1, "y": object()}], "y is of type object"),
    ],
)
async def test_what_is_no_plot_is_refused(rows: Any, says: str, repo_path: Path) -> None:
    """A data point that lacks what is drawn is named, and nothing of the plot is kept."""
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("exp") as experiment:
            with pytest.raises(aexp.InvalidParams, match=says):
                await experiment.log_plot("it", rows, x="x", y="y")
            with pytest.raises(aexp.UnsafePath):
                await experiment.log_plot("../../it", [], x="x", y="y")
        assert b"custom" not in await repository.read("exp", "aexp/dvc.yaml")


FLOATS = st.floats(allow_nan=True) | st.integers(-(2**53), 2**53) | st.booleans() | st.text("abcé\u2028", max_size=5)


@given(st.lists(st.fixed_dictionaries({"x": FLOATS, "y": FLOATS}), max_size=5))
def test_data_points_are_json_that_everybody_reads(rows: list[dict[str, Any]]) -> None:
    """The file is strict JSON; what is not finite is the text that stands in metrics.json for it."""

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    read = json.loads(datapoints(Plot(name="it", x="x", y="y"), rows), parse_constant=refuse)
    expected = [
        {key: str(v) if isinstance(v, float) and not math.isfinite(v) else v for key, v in row.items()} for row in rows
    ]
    assert read == expected


TEXTS = st.text(max_size=5)
PLOTS = st.builds(
    Plot, name=TEXTS, x=TEXTS, y=TEXTS | st.lists(TEXTS, max_size=3).map(tuple), template=st.none() | TEXTS
)


@given(st.lists(PLOTS, max_size=6))
def test_plots_as_json(plots: list[Plot]) -> None:
    """A plot survives JSON; of several with one name the last counts, in the place of the first."""
    assert [plot_from_json(json.loads(json.dumps(plot_to_json(each)))) for each in plots] == plots
    kept: tuple[Plot, ...] = ()
    for each in plots:
        kept = with_plot(kept, each)
    assert [each.name for each in kept] == list(dict.fromkeys(each.name for each in plots))
    assert {each.name: each for each in kept} == {each.name: each for each in plots}


# ---- their way through everything ----


async def test_they_survive_their_program(repo_path: Path) -> None:
    """A resumed experiment has the images and plots that were logged before, and takes more."""

    async def die(repository: aexp.Repository) -> None:
        async with repository.experiment("it", on_error="keep") as experiment:
            await experiment.log_plot("roc", POINTS, x="fpr", y="tpr")
            await experiment.log_image("i", png())
            raise KeyError("died")

    async with aexp.Repository(repo_path) as repository:
        with pytest.raises(KeyError):
            await die(repository)
    async with aexp.Repository(repo_path) as repository:
        async with await repository.resume("it") as experiment:
            await experiment.log_plot("more", POINTS, x="tpr", y="fpr")
        content = yaml.safe_load(await repository.read("it", "aexp/dvc.yaml"))
        assert content["plots"] == [
            "plots/images",
            {"plots/custom/roc.json": {"x": "fpr", "y": "tpr"}},
            {"plots/custom/more.json": {"x": "tpr", "y": "fpr"}},
        ]


async def test_a_program_that_joins_brings_them(repo_path: Path) -> None:
    """What a program draws that an experiment runs is drawn in that experiment."""
    program = (
        "import asyncio, aexp\n"
        "async def main():\n"
        "    async with aexp.init() as experiment:\n"
        "        await experiment.log_plot('roc', [{'a': 1, 'b': 2}], x='a', y='b')\n"
        "        await experiment.log_image('i', b'<svg></svg>')\n"
        "asyncio.run(main())\n"
    )
    (repo_path / "program.py").write_text(program)
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("it", code="all") as experiment:
            await experiment.run(["python", "program.py"])
        content = yaml.safe_load(await repository.read("it", "aexp/dvc.yaml"))
        assert content["plots"] == ["plots/images", {"plots/custom/roc.json": {"x": "a", "y": "b"}}]
        assert await repository.read("it", "aexp/plots/images/i.svg") == b"<svg></svg>"


async def test_the_loop_turns_while_an_image_is_drawn(repo_path: Path) -> None:
    """An image that takes long is drawn beside the event loop, and a file of 10 MB does not hold it either."""

    class Slow:
        def savefig(self, buffer: Any, format: str) -> None:
            time.sleep(0.3)
            buffer.write(b"drawn " + format.encode())

    async with aexp.Repository(repo_path) as repository, repository.experiment("it") as experiment:
        drawing = asyncio.create_task(experiment.log_image("slow", Slow()))
        turns = 0
        while not drawing.done():
            await asyncio.sleep(0.01)
            turns += 1
        await drawing
        await experiment.log_file("large.bin", bytes(10_000_000))
    assert turns > 5


async def test_cancelled_while_it_is_drawn(repo_path: Path) -> None:
    """A drawing that is cancelled is not in the commit, and no thread is left behind."""

    class Slow:
        ended = False

        def savefig(self, buffer: Any, format: str) -> None:
            time.sleep(0.2)
            self.ended = True

    slow = Slow()
    async with aexp.Repository(repo_path) as repository:
        async with repository.experiment("it") as experiment:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await experiment.log_image("slow", slow)
            assert slow.ended
        assert b"images" not in await repository.read("it", "aexp/dvc.yaml")


async def test_not_out_of_order(repo_path: Path) -> None:
    """Images and plots are logged to an active experiment only, even if it ends while one is drawn."""
    async with aexp.Repository(repo_path) as repository:
        experiment = repository.experiment("it")
        with pytest.raises(aexp.InvalidTransition):
            await experiment.log_image("a", png())
        await experiment.init()

        class Slow:
            def savefig(self, buffer: Any, format: str) -> None:
                time.sleep(0.2)
                buffer.write(b"x")

        drawing = asyncio.create_task(experiment.log_image("slow", Slow()))
        await asyncio.sleep(0.05)
        await experiment.complete()
        with pytest.raises(aexp.InvalidTransition):
            await drawing
        with pytest.raises(aexp.InvalidTransition):
            await experiment.log_plot("a", POINTS, x="fpr", y="tpr")
        await experiment.save()
