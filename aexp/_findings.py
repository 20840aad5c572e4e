"""What upkeep did and what a look at a repository found: the values, and the judgement of what was seen."""

import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal

from attrs import field, frozen

from ._values import Interrupted

UPKEEP: Final = "await repository.maintain()"
Level = Literal["ok", "note", "warning", "error"]

DAY: Final = 86_400.0
KEPT_JOURNALS: Final = 15 * DAY
"""Seconds that a journal is kept after its experiments have ended: longer than `git gc` waits before it prunes."""
KEPT_TRASH: Final = 14 * DAY
"""Seconds that a removed experiment can be restored."""
MANY_PACKS: Final = 50
"""Packs from which on every look-up of an object gets dearer (performance reference, part 2), and `git gc` would pack."""
MANY_REFS: Final = 1000
"""Loose refs from which on listing them is dearer than reading one file."""
SHARE: Final = 1024
"""Bytes of `packed-refs`, some ten refs, for each of which there may be another loose one before it is written anew."""
OLD_LOCK: Final = 60.0
"""Seconds after which a lock of Git is probably no longer held by anybody."""
LITTLE_SPACE: Final = 2**30
NO_SPACE: Final = 64 * 2**20
REMOTE_DISKS: Final = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "vboxsf", "fuse.sshfs", "fuse.rclone")
"""File systems on which locks, or renames seen by others, hold less than on a disk of one's own."""
LINKLESS_DISKS: Final = ("vfat", "msdos", "exfat")
"""File systems that have no hard links, which the locks of refs are made of (decision 0005)."""


@frozen(kw_only=True)
class Maintenance:
    """What `maintain()` did. Sessions are called by their ids, refs by their full names, files from the Git directory."""

    retired: tuple[str, ...] = ()
    """Sessions of dead processes in which nothing was open, put away."""
    swept: tuple[str, ...] = ()
    """Leftovers of dead processes: locks of refs, half-written packs, `.keep` files, half-made sessions."""
    anchors: tuple[str, ...] = ()
    """Refs that kept the baselines and the captured code of experiments that have ended."""
    journals: tuple[str, ...] = ()
    """Sessions whose journals were put away more than 15 days ago, removed."""
    trash: tuple[str, ...] = ()
    """Refs of experiments that were removed more than 14 days ago: Git may collect them now."""
    interrupted: tuple[Interrupted, ...] = ()
    """Experiments that dead processes left open; `recover()` or `resume()` is for them, not this."""
    packs_before: int = 0
    packs_after: int = 0
    packed_refs: int = 0
    """Refs that had a file of their own and now share one."""
    freed: int = 0
    """Bytes of removed journals and joined packs."""
    failures: tuple[str, ...] = ()
    """What could not be done, and why; the rest was done."""


@frozen
class Finding:
    """One thing that `diagnose()` looked at: *level* says how bad it is, *remedy* what to do about it, if anything."""

    subject: str
    level: Level
    text: str
    remedy: str | None = None


def many_refs(packed: int) -> int:
    """Return how many refs may be loose beside a `packed-refs` of so many bytes.

    As Git writes it anew each time, a constant number would make the work grow with the square of the number of refs.
    """
    return max(MANY_REFS, packed // SHARE)


def trashed_before(refs: Mapping[str, str], seconds: float) -> dict[str, str]:
    """Return those of *refs*, all in the trash, that were put there before *seconds* since 1970."""
    return {ref: rev for ref, rev in refs.items() if (when := _trashed(ref)) is not None and when < seconds}


def _trashed(ref: str) -> float | None:
    match = re.match(r"refs/aexp/trash/([0-9]{13,15})[-/]", ref)
    return None if match is None else int(match[1]) / 1000


# ---- what was seen ----


@frozen(kw_only=True)
class Lock:
    """A lock file of Git: its path, its age in seconds, and who holds it, as far as that can be told."""

    path: str
    age: float
    holder: str | None = None
    """In words; None when it cannot be told."""
    dead: bool = False
    """Whether the holder is a session of ours that is over."""


@frozen(kw_only=True)
class Shape:
    """What kind of repository it is."""

    path: str
    bare: bool = False
    linked: bool = False
    shallow: bool = False
    sparse: bool = False
    partial: bool = False
    refusal: str | None = None
    """What the `git` program says when it will not work here."""


@frozen(kw_only=True)
class Disk:
    """What the repository lies on."""

    free: int
    kind: str
    """The type of the file system; "" when it cannot be told."""
    closed: tuple[str, ...] = ()
    """Folders that cannot be written."""


@frozen(kw_only=True)
class Seen:
    """All that was seen in a repository."""

    git: str
    shape: Shape
    disk: Disk
    dvc: bool
    locks: tuple[Lock, ...] = ()
    alive: tuple[str, ...] = ()
    """Who holds each living session, in words."""
    ended: tuple[str, ...] = ()
    """Dead sessions in which nothing is open."""
    interrupted: tuple[Interrupted, ...] = ()
    corrupt: tuple[str, ...] = ()
    """What is wrong with the journals of dead sessions."""
    orphans: int = 0
    """Packs half-written or kept by sessions that are gone."""
    records: int = 0
    damaged: Mapping[str, str] = field(factory=dict)
    """Why an experiment cannot be read, by its ref."""
    journals: int = 0
    journal_bytes: int = 0
    old_journals: int = 0
    trash: int = 0
    old_trash: int = 0
    packs: int = 0
    loose_refs: int = 0
    packed_refs: int = 0
    """The size of the file `packed-refs`."""


def judge(seen: Seen) -> list[Finding]:
    """Return what is to be said about what was *seen*, in the order in which somebody would ask."""
    return [
        *_git(seen),
        *_disk(seen.disk),
        *_locks(seen.locks),
        *_sessions(seen),
        *_records(seen),
        *_stores(seen),
        _dvc(seen),
    ]


def _git(seen: Seen) -> Iterator[Finding]:
    shape = seen.shape
    yield Finding("git", "ok", f"git {seen.git}")
    kinds = [word for word in ("bare", "linked", "shallow", "sparse", "partial") if getattr(shape, word)]
    yield Finding("repository", "ok", f"{shape.path} ({', '.join(kinds)})" if kinds else shape.path)
    if shape.bare:
        yield Finding("work tree", "note", "there is none, so experiments here capture no code")
    if shape.partial:
        remedy = "`git fetch --refetch --filter=blob:none` or a whole clone; `git maintenance run` packs it"
        yield Finding(
            "partial clone", "note", "files that were not fetched cannot be read, nothing is repacked", remedy
        )
    if shape.refusal is not None:
        remedy = f"git config --global --add safe.directory {shape.path}"
        foreign = "dubious ownership" in shape.refusal
        yield Finding("safe.directory", "error", shape.refusal, remedy if foreign else None)


def _disk(disk: Disk) -> Iterator[Finding]:
    space = f"{disk.free / 2**30:.1f} GiB free"
    if disk.free < LITTLE_SPACE:
        yield Finding("disk", "error" if disk.free < NO_SPACE else "warning", space, "free some space")
    else:
        yield Finding("disk", "ok", space)
    for folder in disk.closed:
        remedy = "check its owner, its permissions and the mount options; reading works as it is"
        yield Finding("permission", "error", f"{folder} cannot be written", remedy)
    if disk.kind in REMOTE_DISKS:
        text = f"{disk.kind} is a network file system: locks and synced files hold only as far as its server keeps them"
        yield Finding("file system", "warning", text, "keep the repository on a local disk, and push from there")
    elif disk.kind in LINKLESS_DISKS:
        text = f"{disk.kind} has no hard links, so no experiment can be saved here"
        yield Finding("file system", "error", text, "move the repository to another disk")
    else:
        yield Finding("file system", "ok", disk.kind or "of a kind that cannot be told")


def _locks(locks: tuple[Lock, ...]) -> Iterator[Finding]:
    if not locks:
        yield Finding("locks", "ok", "none is left over")
    for lock in locks:
        text = f"{lock.path}, {_age(lock.age)} old, held by {lock.holder or 'somebody who cannot be told'}"
        if lock.dead:
            yield Finding("lock", "warning", f"{text}, which is over", UPKEEP)
        elif lock.holder is None and lock.age > OLD_LOCK:
            yield Finding("lock", "warning", text, f"if no git is running there, remove {lock.path}")
        else:
            yield Finding("lock", "note", text)


def _age(seconds: float) -> str:
    for size, word in ((DAY, "day"), (3600.0, "hour"), (60.0, "minute")):
        if seconds >= size:
            return f"{seconds // size:.0f} {word}{'s' if seconds >= 2 * size else ''}"
    return f"{max(0.0, seconds):.0f} s"


def _sessions(seen: Seen) -> Iterator[Finding]:
    for holder in seen.alive:
        yield Finding("session", "ok", f"experiments may be open in {holder}")
    for each in seen.interrupted:
        remedy = (
            f"await repository.recover() saves it as it stands, await repository.resume({each.name!r}) goes on with it"
        )
        yield Finding("interrupted", "warning", f"{each.name}, begun {each.created:%Y-%m-%d %H:%M} UTC", remedy)
    for reason in seen.corrupt:
        yield Finding("journal", "error", reason, "await repository.recover(salvage=True)")
    if seen.ended or seen.orphans:
        text = f"{len(seen.ended)} sessions and {seen.orphans} packs of programs that ended without closing"
        yield Finding("leftovers", "note", text, UPKEEP)


def _records(seen: Seen) -> Iterator[Finding]:
    yield Finding("experiments", "ok", f"{seen.records} saved, {len(seen.damaged) or 'none'} damaged")
    for ref, reason in seen.damaged.items():
        remedy = f"fetch it again from where it was pushed to, or await repository.remove({ref!r})"
        yield Finding("damaged", "error", f"{ref}: {reason}", remedy)


def _stores(seen: Seen) -> Iterator[Finding]:
    text = f"{seen.journals} of ended sessions, {seen.journal_bytes / 2**20:.1f} MiB, kept for 15 days"
    yield _due("journals", text, seen.old_journals)
    yield _due("trash", f"{seen.trash} removed experiments, kept for 14 days", seen.old_trash)
    yield _many("packs", f"{seen.packs}", many=seen.packs > MANY_PACKS)
    yield _many(
        "refs", f"{seen.loose_refs} with a file of their own", many=seen.loose_refs > many_refs(seen.packed_refs)
    )


def _due(subject: str, text: str, count: int) -> Finding:
    if count:
        return Finding(subject, "note", f"{text}; for {count} that time is over", UPKEEP)
    return Finding(subject, "ok", text)


def _many(subject: str, text: str, *, many: bool) -> Finding:
    return Finding(subject, "note", text, UPKEEP) if many else Finding(subject, "ok", text)


def _dvc(seen: Seen) -> Finding:
    if seen.dvc:
        return Finding("DVC", "ok", "`dvc exp show -A` lists the experiments")
    if seen.shape.bare:
        return Finding("DVC", "ok", "reads the experiments of a bare repository from a clone of it")
    return Finding("DVC", "note", "there is no .dvc folder, so DVC does not look for experiments here", "dvc init")
