"""Experiments to and from Git remotes: pushed, pulled through a quarantine, and listed, by the `git` program."""

import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from attrs import evolve

from . import _packs, _refs, _sessions
from ._exchanged import DataState, Outcome, RemoteExperiment, Transfer
from ._files import Breath, Stopped, translating, write_new
from ._formats.gitobjects import FOLDER, Kind, parse_commit, parse_tree
from ._freight import Freight
from ._git import Handle, open_handle, read_object, read_ref, resolve_commit
from ._layout import EXPERIMENTS, parse_experiment_ref
from ._lines import Line, listed
from ._machine import owner
from ._names import new_id
from ._records import experiment_refs, match
from ._remotes import parse_report, redacted
from .errors import Diverged, ExperimentNotFound, GitError, RemoteError

OWN_COMMITS: Final = 10_000
"""How many commits of an experiment are looked through for the one that stands on the other side."""

# What decides whether a tree can be written safely is an error whatever the user's configuration makes light of
# (git-fsck(1), MESSAGES); under fsckObjects, which means `index-pack --strict`, all other warnings are errors, too.
_GRAVE: Final = ("hasDot", "hasDotdot", "hasDotgit", "hasFullPathname", "duplicateEntries", "badTree")
_FETCH: Final = (
    *("-c", "fetch.fsckObjects=true", "-c", "fetch.unpackLimit=1"),
    *(word for message in _GRAVE for word in ("-c", f"fetch.fsck.{message}=error")),
    *("fetch", "--stdin", "--progress", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--no-prune"),
    *("--no-recurse-submodules", "--no-write-commit-graph", "--no-filter", "--refmap="),
)
_PUSH: Final = (
    *("push", "--porcelain", "--progress", "--no-follow-tags", "--no-atomic", "--no-signed"),
    *("--recurse-submodules=no", "--no-verify"),
)


def _chosen(line: Line, refs: Mapping[str, str], names: Sequence[str], remedy: str) -> dict[str, str]:
    """Return those of *refs* that *names* mean; without names, the experiments of HEAD."""
    if names:
        try:
            return dict(match(refs, name) for name in names)
        except ExperimentNotFound as error:
            raise error if type(error) is not ExperimentNotFound else ExperimentNotFound(error.name, remedy) from None
    baseline = resolve_commit(line.handle, "HEAD")[0]
    return {ref: refs[ref] for ref in sorted(refs) if (parse_experiment_ref(ref) or ("",))[0] == baseline}


def _name(ref: str) -> str:
    return ref.rpartition("/")[2]


# ---- push ----


def push(line: Line, names: Sequence[str], *, force: bool, freight: Freight | None = None) -> list[Transfer]:
    """Push experiments, all in one connection; return what became of each.

    The remote moves a ref only if it still holds what it said at the beginning of the connection. Raises `Diverged`
    or `RemoteError` after all others were pushed.
    """
    chosen = _chosen(line, experiment_refs(line.handle), names, "`await repository.experiments()` lists what is there")
    sound = {ref: rev for ref, rev in chosen.items() if rev}
    transfers = {ref: _damaged(ref) for ref in chosen.keys() - sound.keys()}
    # Data goes here, before any ref: a remote never shows an experiment without what it references.
    moved = freight is not None and freight.send(line, _with_data(line, sound))
    if sound:
        with _session(line) as session:
            transfers |= _sent(line, sound, os.path.join(session.path, "outgoing-refs"), force=force)
    found = [_told(transfers[ref], moved=moved) for ref in chosen]
    if any(each.outcome == "diverged" for each in found):
        found = _compared(line, found)
    return _judged(line, found, pulling=False)


def _with_data(line: Line, refs: Mapping[str, str]) -> list[str]:
    return [rev for rev in refs.values() if references_data(line, rev)]


def _told(transfer: Transfer, *, moved: bool) -> Transfer:
    return evolve(transfer, data="transferred") if moved and transfer.data == "not transferred" else transfer


@contextmanager
def _session(line: Line) -> Iterator[_sessions.Session]:
    """Hold a session for as long as the block lasts: what a killed process leaves in it is swept as that of any other."""
    id = new_id(time.time_ns() // 1_000_000, os.urandom(10))
    session = _sessions.create(line.handle.common, id, owner())
    try:
        yield session
    finally:
        _sessions.forget(line.handle.common, session)


def _sent(line: Line, refs: Mapping[str, str], outbox: str, *, force: bool) -> dict[str, Transfer]:
    """Push all that an outbox holds: exactly *refs*, so the pattern names each of them and nothing else.

    Git looks through all refs of both sides, by all rules for short names, for each refspec that is written out:
    half a minute of silence for 5,000 experiments, where a pattern takes a second.
    """
    _fill(line, refs, outbox)
    extra = {
        "GIT_DIR": outbox,
        "GIT_OBJECT_DIRECTORY": os.path.join(line.handle.common, "objects"),
        "GIT_CONFIG_COUNT": "1",  # not `-c`, to which a URL that holds a `=` is no key
        "GIT_CONFIG_KEY_0": f"remote.{line.remote}.mirror",
        "GIT_CONFIG_VALUE_0": "false",  # a mirror takes no refspecs
    }
    pattern = f"{'+' if force else ''}{EXPERIMENTS}*:{EXPERIMENTS}*"
    said = line.ask(*_PUSH, "--", line.remote, pattern, extra=extra)
    report = parse_report(said.out.decode("utf-8", "surrogateescape"))
    answered = refs.keys() <= report.keys() and not any(each.lost for each in report.values())
    if not answered or (said.code and not any(each.reason for each in report.values())):  # one of several push URLs
        raise line.failure(said)
    return {
        ref: _transfer(line, ref, rev, told.outcome, rev if told.outcome == "up to date" else told.found, told.reason)
        for ref, rev in refs.items()
        for told in (report[ref],)
    }


def _fill(line: Line, refs: Mapping[str, str], outbox: str) -> None:
    """Make a Git directory that holds *refs* alone, with the configuration of this one (gitrepository-layout(5)).

    It lies in this one, where conditions on its place (`includeIf`) hold as well.
    """
    common = line.handle.common
    config = os.path.join(common, "config").replace("\\", "\\\\").replace('"', '\\"')
    lines = "".join(f"{refs[ref]} {ref}\n" for ref in sorted(refs))
    with translating(outbox):
        os.makedirs(os.path.join(outbox, "refs"))
        contents = {
            "HEAD": "ref: refs/heads/none\n",
            "config": f'[core]\n\trepositoryformatversion = 0\n\tbare = true\n[include]\n\tpath = "{config}"\n',
            "packed-refs": f"# pack-refs with: peeled fully-peeled sorted \n{lines}",
        }
        for name, text in contents.items():
            write_new(os.path.join(outbox, name), text.encode("utf-8", "surrogateescape"))
        with suppress(FileNotFoundError):
            shutil.copy(os.path.join(common, "shallow"), outbox)


def _damaged(ref: str) -> Transfer:
    return Transfer(name=_name(ref), ref=ref, rev="", outcome="refused", reason="its ref here is damaged")


def _compared(line: Line, transfers: Sequence[Transfer]) -> list[Transfer]:
    """Say what the remote holds where it diverged."""
    there: dict[str, RemoteExperiment] = {}
    with suppress(RemoteError):  # it was there a moment ago; without it, less is said
        there = listed(line)
    return [
        evolve(each, found=there[each.ref].rev) if each.outcome == "diverged" and each.ref in there else each
        for each in transfers
    ]


def _judged(line: Line, transfers: list[Transfer], *, pulling: bool) -> list[Transfer]:
    """Return *transfers*, or raise what is wrong with some of them."""
    refused = [each for each in transfers if each.outcome == "refused"]
    diverged = [each.name for each in transfers if each.outcome == "diverged"]
    if refused:
        reasons = "; ".join(f"{each.name}: {each.reason}" for each in refused[:3])
        more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
        raise RemoteError(redacted(line.remote), "refused", f"refused {reasons}{more}", transfers)
    if diverged:
        raise Diverged(redacted(line.remote), diverged, transfers, pulling=pulling)
    return transfers


def _transfer(line: Line, ref: str, rev: str, outcome: Outcome, found: str | None, reason: str = "") -> Transfer:
    data: DataState = "not transferred" if references_data(line, rev) else "none"
    return Transfer(name=_name(ref), ref=ref, rev=rev, outcome=outcome, found=found, reason=reason, data=data)


# ---- pull ----


def pull(
    line: Line, names: Sequence[str], *, force: bool, limit: int, freight: Freight | None = None
) -> list[Transfer]:
    """Pull experiments, all in one connection; return what became of each.

    What is fetched lies in a quarantine until Git has checked every object and that none is missing; only then do the
    objects move into the repository, and after them the refs, by compare-and-set. An experiment that stands here is
    replaced only with *force*, and stays in the trash then. Raises `Diverged` or `RemoteError` after all others were
    pulled; `RemoteError` of the kind `hostile`, with nothing changed, when anything of what came is unsound.
    """
    remedy = "`await repository.remote_experiments(...)` lists what the remote has"
    there = {ref: each.rev for ref, each in listed(line).items()}
    chosen = _chosen(line, there, names, remedy)
    here = experiment_refs(line.handle)
    new = {ref: rev for ref, rev in chosen.items() if here.get(ref) != rev}
    outcomes = {ref: _transfer(line, ref, rev, "up to date", rev) for ref, rev in chosen.items() if ref not in new}
    moved = freight is not None and freight.fetch(line, _with_data(line, {ref: chosen[ref] for ref in outcomes}))
    outcomes = {ref: _told(each, moved=moved) for ref, each in outcomes.items()}
    if new:
        with _session(line) as session:
            outcomes |= _through_quarantine(line, new, session, force=force, limit=limit, freight=freight)
    return _judged(line, [outcomes[ref] for ref in chosen], pulling=True)


def _through_quarantine(
    line: Line,
    new: Mapping[str, str],
    session: _sessions.Session,
    *,
    force: bool,
    limit: int,
    freight: Freight | None,
) -> dict[str, Transfer]:
    """Fetch *new* into a quarantine, check it, and let it in; a killed process leaves a dead session to be swept."""
    quarantine = os.path.join(session.path, "incoming-objects")
    with translating(quarantine):
        os.makedirs(os.path.join(quarantine, "pack"))
        os.makedirs(os.path.join(quarantine, "info"))
    _fetch(line, new.values(), quarantine, limit)
    beside = open_handle(line.handle.common)
    beside.repo.odb.add_disk_alternate(quarantine)
    inside = evolve(line, handle=beside, memory={})
    for ref, rev in new.items():
        _check_tip(inside, ref, rev)
    outcomes = {ref: _decided(inside, ref, rev, force=force) for ref, rev in new.items()}
    moving = {ref: each for ref, each in outcomes.items() if each.outcome in ("new", "updated", "forced")}
    # Data goes here, before any ref: no experiment is seen without what it references.
    wanted = _with_data(inside, {ref: new[ref] for ref, each in outcomes.items() if each.outcome != "diverged"})
    moved = freight is not None and freight.fetch(inside, wanted)
    outcomes, moving = ({ref: _told(each, moved=moved) for ref, each in some.items()} for some in (outcomes, moving))
    if line.stopped():
        raise Stopped
    return outcomes | (_let_in(line, moving, quarantine, session) if moving else {})


def _fetch(line: Line, revs: Collection[str], quarantine: str, limit: int) -> None:
    """Fetch commits by id, so that what was listed is what comes, whatever happens to the refs meanwhile.

    Packs of more than *limit* bytes in all are cut off.
    """
    extra = {
        "GIT_OBJECT_DIRECTORY": quarantine,
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(os.path.join(line.handle.common, "objects")),
    }
    wanted = "".join(f"{rev}\n" for rev in sorted(set(revs))).encode()
    packs = os.path.join(quarantine, "pack")

    def flooded() -> bool:
        with suppress(FileNotFoundError), os.scandir(packs) as entries:  # a temporary pack has just got its name
            return sum(each.stat().st_size for each in entries) > limit
        return False

    said = line.ask(*_FETCH, "--", line.remote, input=wanted, extra=extra, flooded=flooded)
    if said.code:
        raise line.failure(said)


def _quoted(path: str) -> str:
    """Return *path* as one of a list that is separated by colons (git(1), GIT_ALTERNATE_OBJECT_DIRECTORIES)."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _check_tip(line: Line, ref: str, rev: str) -> None:
    try:
        kind: Kind | None = read_object(line.handle, rev)[0]
    except GitError:  # a tag, too
        kind = None
    if kind is not Kind.COMMIT:
        raise RemoteError(redacted(line.remote), "hostile", f"{ref} holds no commit that it sent")


def _decided(line: Line, ref: str, rev: str, *, force: bool) -> Transfer:
    """Say what is to become of a fetched experiment, beside what stands here."""
    found = read_ref(line.handle, ref)
    if found is None:
        return _transfer(line, ref, rev, "new", None)
    if found == rev or _is_part_of(line.handle, rev, found):  # ours has all that the remote has
        return _transfer(line, ref, rev, "up to date", found)
    if _is_part_of(line.handle, found, rev):
        return _transfer(line, ref, rev, "updated", found)
    return _transfer(line, ref, rev, "forced" if force else "diverged", found)


def _let_in(
    line: Line, moving: Mapping[str, Transfer], quarantine: str, session: _sessions.Session
) -> dict[str, Transfer]:
    """Move the objects into the repository, then the refs; from here on nothing stops it. Return what changed meanwhile."""
    packs = _packs.adopt_packs(line.handle.common, quarantine, session.id)
    try:
        fresh = open_handle(line.handle.common)
        moves = []
        for ref, each in moving.items():
            read_object(fresh, each.rev)
            if each.outcome == "forced" and each.found is not None:
                _refs.keep(fresh, each.name, each.found, session.path)
            moves.append(_refs.Move(ref, each.rev, each.found))
        _refs.write_values(fresh, moves, session.path)
        refused = _refs.move_refs(fresh, moves, session.path)
    finally:
        for pack in packs:
            pack.release()
    late: dict[str, Transfer] = {}
    for move, refusal in zip(moves, refused, strict=True):
        each = moving[move.ref]
        if refusal is not None and refusal.error is not None:
            late[move.ref] = evolve(each, outcome="refused", reason=str(refusal.error))
        elif refusal is not None:  # another process was faster
            late[move.ref] = evolve(each, outcome="diverged", found=refusal.found)
    return late


# ---- what a commit is part of, and what it references ----


def _is_part_of(handle: Handle, old: str, new: str) -> bool:
    """Say whether the commit *old* is *new* or below it, as far as both are here and not too many lie between."""
    waiting, seen, breath = [new], {new}, Breath()
    while waiting and len(seen) < OWN_COMMITS:
        breath()
        rev = waiting.pop(0)
        if rev == old:
            return True
        try:
            content = read_object(handle, rev)[1]
        except GitError:
            continue
        fresh = [parent for parent in parse_commit(content).parents if parent not in seen]
        seen.update(fresh)
        waiting += fresh
    return False


def references_data(line: Line, rev: str) -> bool:
    """Say whether the commit *rev* references data that DVC tracks: a `.dvc` file, or outputs in a `dvc.lock`."""
    breath = Breath()

    def look(tree: bytes) -> bool:
        known = line.memory.get(tree)
        if known is None:
            breath()
            entries = parse_tree(read_object(line.handle, tree)[1]).values()
            known = line.memory[tree] = any(
                look(entry.id) if entry.mode == FOLDER else tracks(entry.name, entry.id) for entry in entries
            )
        return known

    def tracks(name: bytes, id: bytes) -> bool:
        return name.endswith(b".dvc") or (name == b"dvc.lock" and b"outs:" in read_object(line.handle, id)[1])

    return look(bytes.fromhex(parse_commit(read_object(line.handle, rev)[1]).tree))
