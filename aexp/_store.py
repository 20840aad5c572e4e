"""Whole transactions on Git: start experiments from a captured state, save a group of them."""

import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field, frozen

from . import _commits, _git, _outbox, _packs, _refs, _sessions
from ._capture import Watch, baseline_of, snapshot
from ._commits import Built
from ._files import Breath
from ._formats.account import Account, artifacts_of
from ._formats.artifacts import artifact_files
from ._formats.experiment import Author, record
from ._formats.files import Files
from ._formats.gitobjects import FILE, Entry, Kind, edit_tree, encode_commit, find_entry, parse_tree, writer
from ._formats.params import dump_params
from ._job import Job, contents_of
from ._layout import METRICS, SKELETON, anchor_prefix, anchor_ref, experiment_ref
from ._pipelines import Pipelines
from ._values import Code, CodeMode, Record, Settings
from .errors import AexpError, GitError, NameTaken, NoBaseline

if TYPE_CHECKING:
    from ._formats.overrides import Override

TREES: Final = 4096
"""How many parsed trees are remembered; a baseline's root and a few folders are asked for at every save."""
TRIES: Final = 3
"""How often a group is written when `git gc` takes something away beneath it."""


@frozen(eq=False, repr=False)
class Start:
    """A wish to begin an experiment."""

    name: str
    baseline: str
    mode: CodeMode
    force: bool
    params: Mapping[str, Any]
    overrides: "Sequence[Override]" = ()
    free: bool = True
    """Whether nobody else may have the name; false where it was given by a run of DVC."""


@frozen(eq=False, repr=False)
class Started:
    """What an experiment starts from."""

    baseline: str
    code: Code
    params: str
    """The text of params.yaml."""
    edited: Mapping[str, str]
    """The texts of the parameter files that overrides have changed, by path."""


@define(eq=False, repr=False)
class Store:
    """A repository's writing side; it lives in one thread and never leaves it."""

    library: Pipelines
    author: Author
    settings: Settings
    session: _sessions.Session | None = None
    spots: dict[tuple[Any, ...], bool] = field(factory=dict)
    """What `_artifacts` has found out about paths."""
    _trees: "OrderedDict[bytes, dict[bytes, Entry]]" = field(factory=OrderedDict)
    _watch: Watch = field(factory=Watch)
    _captured: dict[tuple[str, CodeMode], Code] = field(factory=dict)
    _anchored: set[tuple[str, str]] = field(factory=set)
    _anchors: int = 0

    @property
    def handle(self) -> _git.Handle:
        """The repository."""
        return self.library.handle

    # ---- begin ----

    def open_session(self, id: str, about: Mapping[str, Any]) -> _sessions.Session:
        """Make this repository's session on disk; raise `ReadOnlyRepository` when nothing can be written."""
        self.session = _sessions.create(self.handle.common, id, about)
        return self.session

    def start(self, wishes: Sequence[Start]) -> list[Started | Exception]:
        """Resolve baselines, check names against refs, and capture the code, once for all *wishes* that share it."""
        answers: list[Started | Exception] = []
        commits: dict[str, tuple[str, str] | Exception] = {}
        seen: dict[tuple[str, CodeMode], Code | Exception] = {}
        breath = Breath()
        if self.handle.worktree is not None and not self._watch.unchanged(self.handle):
            self._captured.clear()
        for wish in wishes:
            breath()
            try:
                rev, tree = _once(commits, wish.baseline, lambda spec: baseline_of(self.handle, spec))
                if wish.free:
                    self._check_free(wish, rev)
                code = _once(seen, (rev, wish.mode), lambda key, tree=tree: self._code(key[0], tree, key[1]))  # type: ignore[misc]
                edited = self._edited(code.tree, wish.overrides)
                answers.append(Started(rev, code, dump_params(wish.params).decode(), edited))
            except Exception as error:
                answers.append(error)
        return answers

    def _check_free(self, wish: Start, rev: str) -> None:
        _git.check_no_branch(self.handle, wish.name)
        if (found := _git.read_ref(self.handle, experiment_ref(rev, wish.name))) is not None and not wish.force:
            raise NameTaken(wish.name, found)

    def _edited(self, tree: str, overrides: "Sequence[Override]") -> dict[str, str]:
        if not overrides:
            return {}
        from ._parameters import with_overrides

        return with_overrides(self.handle, tree, overrides, {})

    def _code(self, rev: str, tree: str, mode: CodeMode) -> Code:
        """Capture the work tree; what was captured of it before holds while no tracked file has changed."""
        if mode == "none" or self.handle.worktree is None:
            code = Code("none", tree, False)
        elif mode == "tracked" and (rev, mode) in self._captured:
            code = self._captured[rev, mode]
        else:
            code = self._captured[rev, mode] = self._take(rev, tree, mode)
        if (rev, code.tree) not in self._anchored:
            self._set_anchor(rev, code.tree, rev)
        return code

    def _take(self, rev: str, tree: str, mode: CodeMode) -> Code:
        assert self.session is not None
        taken = snapshot(self.handle, mode, self.settings, self.session.path)
        try:
            objects: dict[bytes, tuple[Kind, bytes]] = {}
            root = edit_tree(self._head_tree(), taken.edits, self.read_tree, writer(objects)).hex()
            code = Code(mode, root, root != tree, taken.skipped)
            if root != tree and (rev, root) not in self._anchored:
                anchor = self._anchor_commit(rev, root, objects)
                contents: dict[bytes, Callable[[], bytes]] = {id: (lambda c=c: c) for id, (_, c) in objects.items()}  # type: ignore[misc]
                wanted = [*((kind, id) for id, (kind, _) in objects.items()), *((Kind.BLOB, id) for id in taken.blobs)]
                contents.update(taken.blobs)
                pack = _packs.write_pack(self.handle.common, wanted, lambda id: contents[id](), self.session.id)
                try:
                    self._set_anchor(rev, root, anchor)
                finally:
                    pack.release()
            return code
        finally:
            taken.discard()

    def _head_tree(self) -> bytes | None:
        """Return the tree that changes of the work tree are changes of, whatever the baseline; None without a commit."""
        try:
            return bytes.fromhex(_git.resolve_commit(self.handle, "HEAD")[1])
        except NoBaseline:
            return None

    def _anchor_commit(self, rev: str, root: str, objects: dict[bytes, tuple[Kind, bytes]]) -> str:
        who = self.author.signatures(int(time.time()))
        content = encode_commit(bytes.fromhex(root), [bytes.fromhex(rev)], *who, "aexp: captured code\n")
        return writer(objects)(Kind.COMMIT, content).hex()

    def _set_anchor(self, rev: str, root: str, target: str) -> None:
        """Keep a baseline, and the code captured over it, from being collected while experiments are open."""
        assert self.session is not None
        self._anchors += 1  # never the same again: a disk may have refused after the ref was made
        ref = anchor_ref(self.session.id, self._anchors)
        refused = _refs.make_ref(self.handle, ref, target, self.session.path)
        if refused is not None:
            raise refused.error or GitError(f"make {ref}", "it exists")
        self._anchored.add((rev, root))

    # ---- save ----

    def holders(self, refs: Sequence[str]) -> list[str | None]:
        """Return what each of *refs* holds now."""
        return [_git.read_ref(self.handle, ref) for ref in refs]

    def save(self, jobs: Sequence[Job], scratch: str, *, again: bool = False) -> list[Record | Exception]:
        """Make the commits of *jobs*: one pack, one ref each, verified through a fresh handle; durable on return.

        An answer is the record, or why this one was not made: `NameTaken`, or damage. Doing it again with the same
        jobs (*again*: perhaps by another process, before it died) gives the same commits and changes nothing.
        """
        answers: list[Record | Exception] = [GitError("save", "not tried")] * len(jobs)
        waiting: dict[int, Built] = {}
        breath = Breath()
        for place, job in enumerate(jobs):
            breath()
            try:
                waiting[place] = self._build(job)
            except (AexpError, OSError, ValueError) as error:
                answers[place] = error
        for left in reversed(range(TRIES)):
            if again or left < TRIES - 1:  # it may have stood, and been given another name since
                for place in [each for each, built in waiting.items() if _commits.was_moved(self.handle, built)]:
                    answers[place] = waiting.pop(place).record
            failed: dict[int, Built] = {}
            outcome = self._write({place: (jobs[place], built) for place, built in waiting.items()}, scratch)
            for place, answer in outcome.items():
                if isinstance(answer, GitError) and left:
                    failed[place] = waiting[place]
                else:
                    answers[place] = answer
            waiting = failed
            if not waiting:
                break
        return answers

    def _build(self, job: Job) -> Built:
        """Make every object of a commit in memory: a pure function of the journal up to the intent."""
        intent, found = job.intent, contents_of(job)
        objects: dict[bytes, tuple[Kind, bytes]] = {}
        write = writer(objects)
        edits: dict[str, tuple[int, bytes] | None] = {}
        breath = Breath()
        for path, content in found.own.items():
            breath()
            edits[path] = (FILE, write(Kind.BLOB, content))
        for path, mode, data in found.files:
            breath()
            edits[path] = None if data is None else (mode, write(Kind.BLOB, data))
        around = partial(self._text, intent.tree, found.files)
        for path, kept in artifact_files(*artifacts_of(intent), around).items():
            if kept is None:  # the artifact itself: Git holds nothing in its place, whatever was taken from a checkout
                edits = {each: edit for each, edit in edits.items() if not each.startswith(f"{path}/")}
            edits[path] = None if kept is None else (FILE, write(Kind.BLOB, kept))
        if intent.skeleton and not self.library.knows_dvc(intent.tree):
            for path, text in SKELETON:
                edits.setdefault(path, (FILE, write(Kind.BLOB, text.encode())))
        root = edit_tree(bytes.fromhex(intent.tree), edits, self.read_tree, write, replace=(intent.folder,))
        parents = [bytes.fromhex(parent) for parent in intent.parents]
        commit = encode_commit(root, parents, intent.author, intent.committer, intent.message)
        rev = write(Kind.COMMIT, commit).hex()
        plain = found.files.are_within(intent.folder) and not artifacts_of(intent)[0]
        seen = intent.tree if plain else root.hex()  # as captured, else as it is now
        others = self.library.others(seen, intent.folder, objects)
        measured = edits[f"{intent.folder}/{METRICS}"]
        assert measured is not None
        return Built(
            rev, objects, measured[1], record(rev, intent.ref, intent.experiment, found.summary, intent.folder, others)
        )

    def _text(self, tree: str, files: Files, path: str) -> bytes:
        """Return the content of the file *path* that a commit gets from *files* or from *tree*; empty for none."""
        entry = find_entry(bytes.fromhex(tree), path, self.read_tree)
        return files.content(path) or (
            _git.read_object(self.handle, entry.id)[1] if entry and entry.mode == FILE else b""
        )

    def _write(self, group: Mapping[int, tuple[Job, Built]], scratch: str) -> dict[int, Record | Exception]:
        """Pack, refs, verification; in this order, so that no ref is ever seen before its objects."""
        if not group:
            return {}
        objects: dict[bytes, tuple[Kind, bytes]] = {}
        for _, built in group.values():
            objects.update(built.objects)
        wanted = [(kind, id) for id, (kind, _) in objects.items()]
        moves = [_commits.move_of(self.handle, job, built, scratch) for job, built in group.values()]
        with ThreadPoolExecutor(1, thread_name_prefix="aexp-refs") as beside:  # the disk works while the pack is made
            values = beside.submit(_refs.write_values, self.handle, moves, scratch)
            pack = _packs.write_pack(self.handle.common, wanted, lambda id: objects[id][1], os.path.basename(scratch))
        try:
            values.result()
            pack.verify()
            final = [built.rev for job, built in group.values() if job.intent.final]
            _outbox.announce(self.handle.common, self.settings.auto_push, final)
            refused = _refs.move_refs(self.handle, moves, scratch)
            fresh = _git.open_handle(self.handle.common)
            answers: dict[int, Record | Exception] = {}
            breath = Breath()
            for (place, (job, built)), refusal in zip(group.items(), refused, strict=True):
                breath()
                left = None if refusal is None else _commits.over_own(self.library, job, built, refusal, scratch)
                if left is None:
                    answers[place] = _commits.verified(fresh, job, built)
                else:
                    answers[place] = _commits.resolved(self.library, job, left)
            return answers
        finally:
            pack.release()

    # ---- end ----

    def discard(self, account: Account, scratch: str | None = None) -> None:
        """Take the ref of a discarded experiment's checkpoints away, into the trash; again, it changes nothing."""
        rev = account.checkpoints[-1]
        if scratch is None:
            assert self.session is not None
            scratch = self.session.path
        if _git.read_ref(self.handle, account.ref) == rev:
            _refs.keep(self.handle, account.ref, rev, scratch)
            _refs.delete_refs(self.handle, {account.ref: rev})

    def close(self) -> None:
        """End the session: retire it when all its experiments have ended, else leave it to be recovered."""
        session, self.session = self.session, None
        if session is None:
            return
        try:
            ledger = _sessions.read_ledger(session.path, session.id, salvage=True)
            if ledger.ended():
                _packs.sweep_packs(self.handle.common, session.id)
                self.drop_anchors(session.id)
                if ledger.accounts:
                    _sessions.retire(self.handle.common, session)
                else:
                    _sessions.forget(self.handle.common, session)
        finally:
            session.close()

    def forget_session(self) -> None:
        """Remove the session, in which nothing was begun."""
        session, self.session = self.session, None
        if session is not None:
            _sessions.forget(self.handle.common, session)

    def adopt_anchors(self, session: str) -> None:
        """Anchor here what the dead *session* has anchored."""
        for rev in set(_refs.list_refs(self.handle, anchor_prefix(session)).values()):
            self._set_anchor(rev, session, rev)

    def drop_anchors(self, session: str) -> None:
        """Delete the anchors of a session whose experiments have all ended."""
        _refs.delete_refs(self.handle, _refs.list_refs(self.handle, anchor_prefix(session)))

    def read_tree(self, id: bytes) -> dict[bytes, Entry]:
        """Return the entries of the tree *id*; those asked for last are remembered."""
        if (entries := self._trees.get(id)) is None:
            kind, content = _git.read_object(self.handle, id)
            if kind is not Kind.TREE:
                raise GitError(f"read the tree {id.hex()}", "it is no tree")
            entries = self._trees[id] = parse_tree(content)
            if len(self._trees) > TREES:
                self._trees.popitem(last=False)
        return entries


def open_store(path: str, settings: Settings, variables: Mapping[str, str]) -> Store:
    """Open the repository at *path* for writing; *variables* is the environment, where Git looks for an identity."""
    handle = _git.open_handle(path)
    _git.check_program()
    return Store(Pipelines(handle), _git.identity(handle, variables), settings)


def _once(answers: dict[Any, Any], key: Any, find: Callable[[Any], Any]) -> Any:
    """Find the answer for *key* once; raise the same error to everybody who asks for one that cannot be found."""
    if key not in answers:
        try:
            answers[key] = find(key)
        except Exception as error:
            answers[key] = error
    if isinstance(answers[key], Exception):
        raise answers[key]
    return answers[key]
