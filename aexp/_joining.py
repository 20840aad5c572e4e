"""Programs that joined an experiment: their sessions move into that of the experiment, and what they logged is its own.

Nothing is copied, however much there is: the experiment's journal gets one record that says where it stands.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from attrs import evolve, frozen

from . import _sessions
from ._files import make_folders, move_folder, translating
from ._formats.account import Account
from ._formats.journal import Extents, Kind
from ._formats.params import merge, to_json
from ._formats.series import Number, decode_value
from ._sessions import Ledger, Session
from ._store import Store
from ._ways import Join
from .errors import JournalCorrupt


@frozen(eq=False)
class Part:
    """What one program brought to the experiment that it joined."""

    session: str
    account: Account
    extents: Extents
    last: Mapping[str, Number]
    """The last value of each metric."""
    step: int
    files: frozenset[str]


def session_joins(join: Join) -> dict[str, Any]:
    """Return what `owner.lock` says of a session that follows *join*."""
    return {_sessions.JOINS: {"experiment": join.experiment, "session": join.session}}


def gather(store: Store, experiment: str, known: Collection[str]) -> tuple[list[Part], list[JournalCorrupt]]:
    """Take in what ended programs brought to *experiment*, which is ours; *known* are the sessions that it has.

    Return the parts, those first that began first, and what is wrong with the journals that were left where they are.
    """
    assert store.session is not None
    return _gathered(store, store.session, experiment, known)


def _gathered(
    store: Store, ours: Session, experiment: str, known: Collection[str]
) -> tuple[list[Part], list[JournalCorrupt]]:
    common = store.handle.common
    parts: list[Part] = []
    damaged: list[JournalCorrupt] = []
    for path, id, ledger in list(_taken_in(common, ours, experiment, known, damaged)):
        parts += _parts(path, id, ledger)
        store.drop_anchors(id)
    parts.sort(key=lambda part: part.account.created)
    return parts, damaged


def _taken_in(
    common: str, ours: Session, experiment: str, known: Collection[str], damaged: list[JournalCorrupt]
) -> Iterator[tuple[str, str, Ledger]]:
    """Move the sessions of ended programs into ours; yield folder, id and ledger of each there that is not *known*."""
    inside = os.path.join(ours.path, _sessions.JOINED)
    if os.path.isdir(inside):
        for id in sorted(set(os.listdir(inside)).difference(known)):  # we died before the journal told of it
            path = _sessions.joined_folder(ours.path, id)
            if _sessions.joins(path).get("experiment") == experiment:
                yield path, id, _sessions.read_ledger(path, id)
    for id in _sessions.names(common):
        if _sessions.joins(_sessions.folder(common, id)).get("experiment") != experiment:
            continue
        session = _sessions.claim(common, id)
        if session is None:  # it is at work
            continue
        try:
            ledger = _sessions.read_ledger(session.path, id)
            if ledger.ended():  # it gave up what it had logged
                continue
            path = _sessions.joined_folder(ours.path, id)
            with translating(path):
                make_folders(inside)
                move_folder(session.path, path)
            yield path, id, ledger
        except JournalCorrupt as error:
            damaged.append(error)
        finally:
            session.close()


def _parts(path: str, id: str, ledger: Ledger) -> Iterator[Part]:
    for account in ledger.open():
        extents = ledger.extents.get(account.number, Extents())
        last: dict[str, Number] = {}
        files: set[str] = set()
        step = account.step
        for kind, payload in _sessions.read_extents(path, id, extents, account.number, None):
            if kind != Kind.POINTS:
                files.add(payload[1])
                continue
            for name, (steps, values, *_) in payload[1].items():
                last[name] = decode_value(values[-1])
                step = max([step, *steps])
        yield Part(id, account, extents, last, step, frozenset(files))


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
    return evolve(
        account,
        params=merge(account.params, part.account.params),
        tags=tuple(dict.fromkeys((*account.tags, *part.account.tags))),
        message=account.message or part.account.message,
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
    if part.step > account.step:
        yield Kind.STEP, [number, part.step]
    yield Kind.JOINED, [number, part.session, part.account.number, [list(each) for each in part.extents]]


# ---- what a dead session left ----


def complete(store: Store, session: Session, ledger: Ledger) -> Ledger:
    """Take in what programs brought to the open experiments of a dead *session*; return its ledger with it."""
    said: list[tuple[str, object]] = []
    for left in ledger.open():
        account = left
        parts, damaged = _gathered(store, session, account.id, account.joined)
        for part in parts:
            said += records(account, part)
            account = added(account, part)
        if damaged:
            raise damaged[0]
    if not said:
        return ledger
    _sessions.append(session, ledger, said)
    return _sessions.read_ledger(session.path, session.id, salvage=True)


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
