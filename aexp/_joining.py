"""Programs that joined an experiment: their sessions move into that of the experiment, and what they logged is its own.

Nothing is copied, however much there is: the experiment's journal gets one record that says where it stands.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from attrs import evolve, frozen

from . import _sessions
from ._files import make_folders, move_folder, translating
from ._formats.account import Account, kept
from ._formats.artifacts import artifact_to_json
from ._formats.journal import Extents, Kind
from ._formats.params import merge, to_json
from ._formats.sections import plot_to_json, with_plot
from ._formats.series import Number, decode_value, encode_values
from ._sessions import Ledger, Session
from ._store import Store
from ._ways import Join
from .errors import JournalCorrupt


@frozen(eq=False, repr=False)
class Part:
    """What one program brought to the experiment that it joined."""

    session: str
    account: Account
    extents: Extents
    last: Mapping[str, Number]
    """The last value of each metric."""
    step: int
    points: int
    files: frozenset[str]


def is_open(store: Store, join: Join) -> bool:
    """Say whether the session stands whose experiment is to be joined; one of a dead process is still to be saved."""
    return os.path.isdir(_sessions.folder(store.handle.common, join.session))


def gather(store: Store, experiment: str, known: Collection[str]) -> tuple[list[Part], list[JournalCorrupt]]:
    """Take in what ended programs brought to *experiment*, which is ours; *known* are the sessions that it has.

    Return the parts, those first that began first, and what is wrong with the journals that were left where they are.
    """
    assert store.session is not None
    found = _joiners(store.handle.common, store.session).get(experiment, [])
    return _gathered(store, store.session, found, known)


def _joiners(common: str, ours: Session) -> dict[str, list[str]]:
    """Return the sessions that join an experiment, by its id: those that stand by themselves, and those moved into ours."""
    found: dict[str, list[str]] = {}
    inside = os.path.join(ours.path, _sessions.JOINED)
    moved = os.listdir(inside) if os.path.isdir(inside) else []
    places = {id: _sessions.joined_folder(ours.path, id) for id in moved}
    places |= {id: _sessions.folder(common, id) for id in _sessions.names(common)}
    for id, path in sorted(places.items()):
        experiment = _sessions.joins(path).get("experiment")
        if experiment is not None:
            found.setdefault(experiment, []).append(id)
    return found


def _gathered(
    store: Store, ours: Session, ids: Collection[str], known: Collection[str], *, salvage: bool = False
) -> tuple[list[Part], list[JournalCorrupt]]:
    parts: list[Part] = []
    damaged: list[JournalCorrupt] = []
    for id in ids:
        if id in known:
            continue
        try:
            taken = _taken_in(store.handle.common, ours, id, salvage=salvage)
            if taken is not None:
                parts += _parts(_sessions.joined_folder(ours.path, id), id, taken)
                store.drop_anchors(id)
        except JournalCorrupt as error:
            damaged.append(error)
    parts.sort(key=lambda part: part.account.created)
    return parts, damaged


def _taken_in(common: str, ours: Session, id: str, *, salvage: bool) -> Ledger | None:
    """Move the session *id* into ours, and return its ledger; None when it is at work, or gave up what it had logged."""
    path = _sessions.joined_folder(ours.path, id)
    if os.path.isdir(path):  # we died before the journal told of it
        return _sessions.read_ledger(path, id, salvage=salvage)
    session = _sessions.claim(common, id)
    if session is None:
        return None
    try:
        ledger = _sessions.read_ledger(session.path, id, salvage=salvage)
        if ledger.ended():
            return None
        with translating(path):
            make_folders(os.path.dirname(path))
            move_folder(session.path, path)
        return ledger
    finally:
        session.close()


def _parts(path: str, id: str, ledger: Ledger) -> Iterator[Part]:
    for account in ledger.open():
        extents = ledger.extents.get(account.number, Extents())
        last: dict[str, Number] = {}
        files: set[str] = set()
        step, points = account.step, 0
        for kind, payload in _sessions.read_extents(path, id, extents, account.number, None):
            if kind != Kind.POINTS:
                files.add(payload[1])
                continue
            for name, (steps, values, *_) in payload[1].items():
                last[name] = decode_value(values[-1])
                step, points = max([step, *steps]), points + len(steps)
        yield Part(id, account, extents, last, step, points, frozenset(files))


def highest(store: Store, account: Account, extents: Extents) -> int:
    """Return the step of *account*, which is ours: its counter, or the highest step of any point."""
    assert store.session is not None
    step = account.step
    for kind, payload in _sessions.read_extents(store.session.path, store.session.id, extents, account.number, None):
        if kind == Kind.POINTS:
            step = max([step, *(each for steps, *_ in payload[1].values() for each in steps)])
    return step


def added(account: Account, part: Part) -> Account:
    """Return *account* with what *part* says of parameters, tags and message."""
    plots = account.plots
    for plot in part.account.plots:
        plots = with_plot(plots, plot)
    for artifact in part.account.artifacts:
        account = kept(account, artifact, ignored=artifact.path in part.account.ignored)
    return evolve(
        account,
        params=merge(account.params, part.account.params),
        tags=tuple(dict.fromkeys((*account.tags, *part.account.tags))),
        message=account.message or part.account.message,
        plots=plots,
        joined=(*account.joined, part.session),
    )


def records(account: Account, part: Part) -> Iterator[tuple[Kind, list[Any]]]:
    """Yield what the journal of *account* must say for *part* to be in it; said twice, it means the same."""
    after, number = added(account, part), account.number
    if part.account.params:
        yield Kind.PARAMS, [number, to_json(part.account.params)]
    if after.tags != account.tags:
        yield Kind.TAGS, [number, after.tags]
    if after.message != account.message:
        yield Kind.MESSAGE, [number, after.message]
    for artifact in part.account.artifacts:
        yield Kind.ARTIFACT, [number, artifact_to_json(artifact), artifact.path in part.account.ignored]
    for plot in part.account.plots:
        yield Kind.PLOT, [number, plot_to_json(plot)]
    if part.step > account.step:
        yield Kind.STEP, [number, part.step]
    ranges = [list(each) for each in part.extents]
    last = dict(zip(part.last, encode_values(list(part.last.values())), strict=True))
    yield Kind.JOINED, [number, part.session, part.account.number, ranges, [last, part.step, part.points]]


# ---- what a dead session left ----


def complete(
    store: Store, session: Session, ledger: Ledger, *, salvage: bool = False
) -> tuple[Ledger, dict[str, JournalCorrupt]]:
    """Take in what programs brought to the open experiments of a dead *session*.

    Return its ledger with that, and by their ids the experiments of which a part is damaged and left where it is;
    *salvage* takes what is readable of such parts.
    """
    said: list[tuple[str, object]] = []
    bad: dict[str, JournalCorrupt] = {}
    joiners = _joiners(store.handle.common, session)
    for left in ledger.open() if joiners else ():
        account = left
        parts, damaged = _gathered(store, session, joiners.get(account.id, ()), account.joined, salvage=salvage)
        for part in parts:
            said += records(account, part)
            account = added(account, part)
        if damaged:
            bad[account.id] = damaged[0]
    if said:
        _sessions.append(session, ledger, said)
        ledger = _sessions.read_ledger(session.path, session.id, salvage=True)
    return ledger, bad


def held(common: str) -> dict[str, str]:
    """Return the experiments that programs at work have joined, each with the session of one; their own may be dead."""
    found = {}
    for id in _sessions.names(common):
        experiment = _sessions.joins(_sessions.folder(common, id)).get("experiment")
        if experiment is not None and _sessions.is_alive(common, id):
            found[experiment] = id
    return found


def belongs(common: str, id: str) -> bool:
    """Say whether the session *id* joined one that still stands: then it is a part of that, and not to be saved alone."""
    found = _sessions.joins(_sessions.folder(common, id)).get("session")
    return bool(found) and os.path.isdir(_sessions.folder(common, str(found)))
