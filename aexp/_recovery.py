"""What dead sessions left behind: found, saved as it stands, or moved to a living session."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from attrs import evolve, frozen

from . import _dvc, _joining, _packs, _refs, _sessions
from ._formats.account import Account, intent_to_json, without
from ._formats.experiment import intend, moment, summary, upon
from ._formats.journal import Extents, Kind
from ._formats.params import dump_params
from ._formats.series import Number, collect
from ._job import Job
from ._lifecycle import Status
from ._sessions import Ledger, Session
from ._store import Store
from ._values import Interrupted, Record
from .errors import AexpError, ExperimentNotFound, JournalCorrupt, NameTaken, NotOwner

SUFFIXES: Final = 1000
"""How many names are tried for a recovered experiment whose name another one has taken."""


LOOK: Final = 0.05
"""Seconds after which a session that somebody only looked at is free again."""


@frozen(eq=False, repr=False)
class Found:
    """An experiment to be resumed, with the session it is in: held by us, or our own."""

    session: Session
    ledger: Ledger
    account: Account


def interrupted(store: Store) -> list[Interrupted]:
    """Return the open experiments of dead sessions, and those our own session has kept.

    One that a program at work has joined is not over, though its own process is.
    """
    common = store.handle.common
    held = _joining.held(common)
    return [
        each
        for id in _sessions.names(common)
        if not _joining.belongs(common, id)
        for each in _left_open(id, _open_accounts(store, id), held)
    ]


def interrupted_in(common: str, id: str, ledger: Ledger) -> list[Interrupted]:
    """Return the experiments that are open in the dead session *id* and belong to no program at work."""
    return [] if _joining.belongs(common, id) else _left_open(id, ledger.open(), _joining.held(common))


def _left_open(session: str, accounts: Sequence[Account], held: Mapping[str, str]) -> list[Interrupted]:
    return [
        Interrupted(
            name=account.name,
            id=account.id,
            ref=account.ref,
            baseline=account.baseline,
            status=account.status,
            created=moment(account.created),
            session=session,
        )
        for account in accounts
        if account.id not in held
    ]


def _open_accounts(store: Store, id: str) -> list[Account]:
    own = store.session
    if own is not None and own.id == id:
        return [account for account in _ledger(own, salvage=True).open() if account.fate == Kind.KEPT]
    session = _sessions.claim(store.handle.common, id)
    if session is None:
        return []
    try:
        return _ledger(session, salvage=True).open()
    finally:
        session.close()


def _ledger(session: Session, *, salvage: bool = False) -> Ledger:
    return _sessions.read_ledger(session.path, session.id, salvage=salvage)


# ---- recover ----


def recover(store: Store, *, salvage: bool) -> list[Record]:
    """Save every open experiment of every dead session, and put the sessions away.

    One that is damaged does not stop the others: they are saved first, then `JournalCorrupt` is raised for it.
    """
    saved: list[Record] = []
    failures: list[Exception] = []
    for session in _dead_sessions(store):
        try:
            ledger = _ledger(session, salvage=salvage)
            saved += _recover_session(store, session, ledger, failures, salvage=salvage)
        except (AexpError, OSError) as error:
            failures.append(error)
        finally:
            session.close()
    _sessions.sweep(store.handle.common)
    if failures:
        raise failures[0]
    return saved


def _dead_sessions(store: Store) -> Iterator[Session]:
    """Take over each session whose owner is dead; ask again for one that is held: somebody may only be looking at it.

    Those that joined another come last: they are gone when that has taken them in.
    """
    own, common = None if store.session is None else store.session.id, store.handle.common
    ids = [id for id in _sessions.names(common) if id != own]
    ids.sort(key=lambda id: bool(_sessions.joins(_sessions.folder(common, id))))
    for left in (1, 0):
        held = []
        for id in ids:
            if _joining.belongs(common, id):
                continue
            session = _sessions.claim(common, id)
            if session is None:
                held.append(id)
            else:
                yield session
        ids = held
        if left and ids:
            time.sleep(LOOK)


def _recover_session(
    store: Store, session: Session, ledger: Ledger, failures: list[Exception], *, salvage: bool
) -> list[Record]:
    """Finish what was being saved, save what was open, and retire the session. Done again, it changes nothing."""
    _refs.sweep_locks(store.handle, session.path)
    saved, _ = _save(store, session, ledger, _pending(session, ledger))
    held = _held(store.handle.common)  # before what has ended is taken in: what ends in between waits for the next time
    ledger, bad = _joining.complete(store, session, _ledger(session, salvage=True), salvage=salvage)
    left = held.keys() | bad.keys()
    rest = [_ended(account) for account in ledger.open() if account.id not in left]
    names = {account.number: account for account in rest}
    for attempt in range(SUFFIXES):
        if not names:
            break
        jobs = _intend(store, session, ledger, list(names.values()))
        done, failed = _save(store, session, ledger, jobs)
        saved += done
        names = {
            number: evolve(names[number], name=f"{_original(rest, number)}-{attempt + 2}")
            for number, error in failed.items()
            if isinstance(error, NameTaken)
        }
        for error in failed.values():
            if not isinstance(error, NameTaken):
                raise error
    if not any(account.id in left for account in ledger.open()):
        finish_discards(store, session, ledger)
        put_away(store, session)
    failures += bad.values()
    return [record for record in saved if record.status is not Status.RUNNING]


def _held(common: str) -> dict[str, str]:
    """Return the experiments that programs at work have joined; asked twice, as one may only be looked at, or be dying."""
    held = _joining.held(common)
    if held:
        time.sleep(LOOK)
        held = _joining.held(common)
    return held


def finish_discards(store: Store, session: Session, ledger: Ledger) -> None:
    """Take away the refs of experiments that were given up, and whose checkpoints still stand there."""
    for account in ledger.accounts.values():
        if account.fate == Kind.DISCARDED and account.checkpoints:
            store.discard(account, session.path)


def _pending(session: Session, ledger: Ledger) -> list[Job]:
    numbers = {account.number for account in ledger.open()}
    return [
        Job(intent, sequence, session.path, session.id, ledger.extents.get(number, Extents()))
        for number, (sequence, intent) in ledger.intents.items()
        if number in numbers
    ]


def _ended(account: Account) -> Account:
    lost = [(path, "its process died before it was taken") for path in account.outs]
    account = without(account, lost, outs=())
    if account.status is not Status.RUNNING:
        return account
    return evolve(account, status=Status.INTERRUPTED)


def _original(accounts: Sequence[Account], number: int) -> str:
    return next(account.name for account in accounts if account.number == number)


def _intend(store: Store, session: Session, ledger: Ledger, accounts: Sequence[Account]) -> list[Job]:
    held = store.holders([account.ref for account in accounts])
    intents = [
        intend(
            account,
            store.author,
            now=time.time(),
            folder=store.settings.folder,
            params=dump_params(account.params).decode(),
            final=True,
            skeleton=_dvc.find_root(store.handle.worktree or "", store.handle.worktree) is None,
            expected=expected,
        )
        for account, expected in map(upon, accounts, held)
    ]
    sequences = _sessions.append(session, ledger, [(Kind.INTENT, intent_to_json(intent)) for intent in intents])
    return [
        Job(intent, sequence, session.path, session.id, ledger.extents.get(intent.number, Extents()))
        for intent, sequence in zip(intents, sequences, strict=True)
    ]


def _save(
    store: Store, session: Session, ledger: Ledger, jobs: Sequence[Job]
) -> tuple[list[Record], dict[int, Exception]]:
    if not jobs:
        return [], {}
    answers = store.save(jobs, session.path, again=True)
    saved, failed, told = [], dict[int, Exception](), []
    for job, answer in zip(jobs, answers, strict=True):
        if isinstance(answer, Record):
            saved.append(answer)
            told.append((Kind.SAVED, [job.intent.number, answer.rev, job.intent.final]))
        else:
            failed[job.intent.number] = answer
    if told:
        _sessions.append(session, ledger, told)
    return saved, failed


def put_away(store: Store, session: Session) -> None:
    """Remove what a dead session left in Git, and retire it."""
    _packs.sweep_packs(store.handle.common, session.id)
    store.drop_anchors(session.id)
    for folder in leftovers(session):
        shutil.rmtree(folder, ignore_errors=True)
    _sessions.retire(store.handle.common, session)


# ---- resume ----


def locate(store: Store, name_or_id: str) -> Found:
    """Find the experiment to resume: kept or discarded by our own session, open in a dead one, discarded in a done one.

    Raises `NotOwner` when a living session has it, and `ExperimentNotFound`.
    """
    found = _find(store, name_or_id)
    if isinstance(found, str):  # somebody may only be looking at it
        time.sleep(LOOK)
        found = _find(store, name_or_id)
    if isinstance(found, str):
        raise NotOwner(name_or_id, found)
    if found is None:
        raise ExperimentNotFound(name_or_id, "`await repository.interrupted()` lists what can be resumed")
    return found


def _find(store: Store, name_or_id: str) -> Found | str | None:
    """Return the experiment with its session, or who holds that, or None."""
    common, own = store.handle.common, store.session
    held_by: str | None = None
    held = _joining.held(common)
    for place in (_sessions.LIVE, _sessions.DONE):
        for id in reversed(_sessions.names(common, place)):
            ours = own is not None and own.id == id
            if place == _sessions.LIVE and _joining.belongs(common, id):
                continue
            session = own if ours else _sessions.claim(common, id, place)
            if session is None:
                held_by = held_by or _holder(store, id, name_or_id)
                continue
            ledger = _ledger(session)
            account = _wanted(ledger, name_or_id, ours=ours)
            if account is not None and account.id in held:
                if not ours:
                    session.close()
                return _sessions.holder(common, held[account.id])
            if account is not None:
                return _whole(store, Found(session, ledger, account))
            if not ours:
                session.close()
    return held_by


def _whole(store: Store, found: Found) -> Found:
    """Return *found* with what the programs brought that its dead session had started."""
    if found.session is store.session or not _sessions.is_live(store.handle.common, found.session):
        return found
    try:
        ledger, bad = _joining.complete(store, found.session, found.ledger)
        if found.account.id in bad:
            raise bad[found.account.id]
    except BaseException:
        found.session.close()
        raise
    return Found(found.session, ledger, ledger.accounts[found.account.number])


def _wanted(ledger: Ledger, name_or_id: str, *, ours: bool) -> Account | None:
    fates = (Kind.KEPT, Kind.DISCARDED) if ours else ("", Kind.KEPT, Kind.DISCARDED)
    accounts = [account for account in ledger.accounts.values() if account.complete and account.fate in fates]
    matches = [account for account in accounts if name_or_id in (account.id, account.name, account.ref)]
    return max(matches, key=lambda account: account.created, default=None)


def _holder(store: Store, id: str, name_or_id: str) -> str | None:
    """Say who holds the session *id* if the experiment is in it."""
    try:
        ledger = _sessions.read_ledger(_sessions.folder(store.handle.common, id), id, salvage=True)
    except (OSError, JournalCorrupt):
        return None
    found = _wanted(ledger, name_or_id, ours=False)
    return None if found is None else _sessions.holder(store.handle.common, id)


def contents(store: Store, found: Found) -> tuple[list[tuple[str, Any]], dict[str, Number], str]:
    """Return what was logged, the last value of each metric, and the text of params.yaml; anchor the code here, too."""
    number = found.account.number
    logged = list(
        _sessions.read_extents(
            found.session.path, found.session.id, found.ledger.extents.get(number, Extents()), number, None
        )
    )
    if found.session is not store.session:
        store.adopt_anchors(found.session.id)
    points: dict[str, Any] = {}
    collect((payload[1] for kind, payload in logged if kind == Kind.POINTS), points)
    return logged, summary(points), dump_params(found.account.params).decode()


def leave(store: Store, found: Found) -> None:
    """Tell the old session that its experiment has moved here, and put it away if that was the last.

    Raises only when the experiment is still in the old session; to put that away can wait for `maintain()`.
    """
    session, number = found.session, found.account.number
    if session is store.session or store.session is None:
        return
    try:
        _sessions.append(session, found.ledger, [(Kind.MOVED, [number, store.session.id])])
    except (AexpError, OSError):
        left = _ledger(session, salvage=True).accounts[number]  # when even that cannot be read, it may have moved
        if left.fate != Kind.MOVED:
            raise
    with suppress(AexpError, OSError):
        try:
            if _sessions.is_live(store.handle.common, session) and _ledger(session, salvage=True).ended():
                put_away(store, session)
        finally:
            session.close()


def release(_: Store, found: Found) -> None:
    """Let the session go again, when the resuming failed."""
    found.session.close()


def leftovers(session: _sessions.Session) -> list[str]:
    """Return the temporary folders in a dead session's folder."""
    temporary = ("capture-", "incoming-", "outgoing-")
    return [os.path.join(session.path, name) for name in os.listdir(session.path) if name.startswith(temporary)]
