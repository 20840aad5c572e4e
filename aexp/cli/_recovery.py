"""`aexp interrupted` and `aexp recover`: what programs that died have left."""

from datetime import datetime
from typing import Annotated

import aexp

from . import _output, _shapes
from ._options import Json, Place, flag
from ._words import precise, visible


async def interrupted(*, json: Json = False, place: Place) -> None:
    """Print the experiments that were begun and neither saved nor discarded by a program that is over."""
    async with aexp.Repository(place) as repository:
        found = await repository.interrupted()
    if json:
        _output.write_json([_shapes.interrupted(each) for each in found])
        return
    now = datetime.now().astimezone()
    for each in found:
        _output.write(f"{precise(each.created, now)}  {each.status:<11}  {each.baseline[:7]}  {visible(each.name)}")
    _output.say("`aexp recover` saves them as they stand" if found else "no experiment was interrupted")


async def recover(
    *,
    salvage: Annotated[bool, flag("Also keep what can be read of a damaged journal.", "--salvage")] = False,
    json: Json = False,
    place: Place,
) -> None:
    """Save every interrupted experiment as it stands, and print what was saved; again, it changes nothing."""
    async with aexp.Repository(place) as repository:
        saved = await repository.recover(salvage=salvage)
    if json:
        _output.write_json([_shapes.record(each) for each in saved])
        return
    for each in saved:
        _output.write(f"{each.rev[:7]}  {each.status:<11}  {visible(each.name)}")
    if not saved:
        _output.say("no experiment was interrupted")
