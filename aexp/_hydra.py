"""Parameters composed by Hydra, where the DVC configuration says so, from the configuration files of an experiment's tree."""

import os
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from ._datacache import configs, setting
from ._formats.gitobjects import FOLDER, SYMLINK, parse_tree
from ._formats.overrides import Override
from ._formats.params import SIZE
from ._git import Handle, object_size, read_object
from .errors import InvalidParams, MissingExtra

FILES: Final = 1_000
"""How many files a folder of configuration may have."""
_OPTIONS: Final = ("enabled", "config_dir", "config_module", "config_name", "plugins_path")
_ALONE: Final = threading.Lock()
"""Held while Hydra composes: what it works on is one object for the whole process."""


@frozen(eq=False, repr=False)
class Composition:
    """What `[hydra]` in the DVC configuration says: the folder in the tree, and the name of the topmost file there."""

    folder: str
    name: str


def composition(root: str, top: str, home: Mapping[str, str]) -> Composition | None:
    """Return how the DVC project at *root*, in the work tree at *top*, composes params.yaml; None when it does not.

    Raises `InvalidParams` for what would run code of the repository: `config_module` and `plugins_path`.
    """
    told: dict[str, str] = {}
    for _, parser in configs(root, home):
        given = {option: setting(parser, "hydra", option) for option in _OPTIONS}
        told.update((option, value) for option, value in given.items() if value)
    if told.get("enabled", "").lower() not in ("true", "1", "yes", "on"):
        return None
    for option in ("config_module", "plugins_path"):
        if option in told:
            raise InvalidParams(f"hydra.{option} of the DVC configuration would run code; use hydra.config_dir instead")
    folder = told.get("config_dir", "conf")
    place = os.path.normpath(os.path.join(os.path.relpath(root, top), folder))
    if place.startswith(("..", "/")):
        raise InvalidParams(f"hydra.config_dir of the DVC configuration leads out of the repository: {folder}")
    return Composition(place, told.get("config_name", "config"))


def composed(handle: Handle, tree: str, how: Composition, overrides: Sequence[Override], file: str) -> str:
    """Return the text of *file* that Hydra composes from *tree* with *overrides*, as `dvc exp run` writes it.

    Raises `InvalidParams` with Hydra's words, and `MissingExtra` when it is not installed.
    """
    try:
        import hydra
        from hydra.core.global_hydra import GlobalHydra
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
    except ModuleNotFoundError:
        raise MissingExtra("hydra", "hydra-core") from None
    asked = [each.text.removeprefix(f"{each.file}:") for each in overrides]
    with tempfile.TemporaryDirectory(prefix="aexp-hydra-") as place, _ALONE:
        _lay_out(handle, tree, how.folder, place)
        everybody = GlobalHydra.instance()
        before, everybody.hydra = everybody.hydra, None  # a program of Hydra's own goes on with its own
        try:
            with hydra.initialize_config_dir(place, version_base=None):
                found: Any = hydra.compose(how.name, overrides=asked)
            OmegaConf.resolve(found)
            return OmegaConf.to_yaml(found)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            reason = " ".join(str(error).replace(place, how.folder).split())
            raise InvalidParams(f"Hydra cannot compose it: {reason}", file=file) from error
        finally:
            everybody.hydra = before


def _lay_out(handle: Handle, tree: str, folder: str, place: str) -> None:
    """Write the files of *folder* in *tree* into the empty folder *place*; no link is made or followed."""
    id = bytes.fromhex(tree)
    for part in folder.split("/"):
        entry = parse_tree(read_object(handle, id)[1]).get(part.encode())
        if entry is None or entry.mode != FOLDER:
            raise InvalidParams(
                "there is no such folder, which hydra.config_dir of the DVC configuration names", file=folder
            )
        id = entry.id
    left = FILES
    waiting = [(id, place)]
    while waiting:
        id, target = waiting.pop()
        for name, entry in parse_tree(read_object(handle, id)[1]).items():
            path = os.path.join(os.fsencode(target), name)
            left -= 1
            if left < 0:
                raise InvalidParams(f"it has more than {FILES} files", file=folder)
            if entry.mode == FOLDER:
                os.mkdir(path)
                waiting.append((entry.id, os.fsdecode(path)))
            elif entry.mode != SYMLINK and name.endswith((b".yaml", b".yml")):
                if object_size(handle, entry.id) > SIZE:
                    raise InvalidParams(f"it has more than {SIZE:,} bytes", file=f"{folder}/{os.fsdecode(name)}")
                with open(path, "xb") as file:
                    file.write(read_object(handle, entry.id)[1])
