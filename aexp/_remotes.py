"""What may be a remote, and what Git says about one: refs, reports, progress and errors, read from its words."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import frozen

from ._exchanged import Outcome, RemoteExperiment, TransferProgress
from ._layout import INTERNAL, parse_experiment_ref
from ._names import is_holdable
from ._secrets import without_users
from ._wording import RemoteFault
from .errors import RemoteError

SCHEMES: Final = frozenset({"https", "http", "ssh", "git", "file", "git+ssh", "ssh+git"})
"""Schemes of URLs that may be given; any other would start a program of that name (gitremote-helpers(7))."""

_URL: Final = r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)"
_SCP: Final = r"(?:[^@/:\s]+@)?(\[[^\]/]+\]|[^@/:\s]+):(?!:)[^\s].*"

_REPORT: Final = r"([ +*=!])\t([^\t]*):(refs/[^\t]*)\t(.*)"
_REASON: Final = r"\(([^()]*)\)\s*\Z"
_PROGRESS: Final = (
    r"(?:remote: )?([A-Z][a-z]+(?: [a-z]+)*):\s+(?:\d+% \((\d+)/(\d+)\)|(\d+))(?:, ([\d.]+) (bytes|KiB|MiB|GiB))?"
)
_UNITS: Final[Mapping[str, int]] = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

_DIVERGED: Final = frozenset({"non-fast-forward", "fetch first", "needs force", "stale info", "already exists"})

# What Git, curl and ssh say, under LC_ALL=C, in the order in which it is looked for: the first that is found names the
# fault. From transport.c, connect.c, remote-curl.c, http.c, index-pack.c, fetch-pack.c and OpenSSH's sshconnect.c.
_FAULTS: Final[tuple[tuple[RemoteFault, str], ...]] = (
    ("unsafe", r"transport '[^']*' not allowed|strange (?:hostname|pathname|port) '|unable to find remote helper"),
    ("unreachable", r"early EOF|unexpected disconnect|hung up unexpectedly|RPC failed|[Cc]onnection (?:reset|closed)"),
    ("unreachable", r"[Cc]onnection refused|[Cc]ould ?n[o']t (?:resolve|connect)|[Ff]ailed to connect|unable to (?:look up|connect)"),
    ("unreachable", r"[Tt]imed out|[Nn]etwork is unreachable|No route to host|[Nn]ame or service not known"),
    ("authentication", r"Authentication failed|could not read (?:Username|Password)|Permission denied|invalid credentials"),
    ("authentication", r"Host key verification failed|access denied|returned error: 40[13]|Too many authentication"),
    ("refused", r"remote rejected|hook declined|service not enabled|unpacker error|remote unpack failed"),
    ("hostile", r"error: object [0-9a-f]{40}: |fsck error|did not send all necessary|pack is corrupted|SHA1 mismatch"),
    ("hostile", r"pack has (?:bad|junk|\d+)|inflate|bad (?:pack|object)|badly formed|COLLISION|index-pack (?:failed|died|output)"),
    ("unknown", r"not appear to be a git repository|[Rr]epository (?:'[^']*' )?(?:was )?not found|not a git repository"),
    ("unknown", r"No such (?:remote|device)|does not exist|no such file"),
    ("unreachable", r"hung up|Could not read from remote|unable to access"),
)  # fmt: skip


def check_remote(remote: str, configured: Iterable[str], *, is_folder: bool) -> str:
    """Return *remote* if Git may be given it: a configured name, a URL, `host:path`, or a folder; never an option.

    Raises `RemoteError` of the kind `unsafe`, for what would start a program, or `unknown`.
    """
    if not remote or any(unicodedata.category(character) in ("Cc", "Cs") for character in remote):
        raise RemoteError(redacted(remote), "unsafe", "a remote is a line of printable text")
    if remote.startswith("-"):
        raise RemoteError(redacted(remote), "unsafe", "it begins with a `-`, so Git would take it for an option")
    if remote in frozenset(configured):
        return remote
    url = re.match(_URL, remote)
    if re.match(r"[A-Za-z0-9+.-]+::", remote) or (url and url[1].lower() not in SCHEMES):
        helper = re.split(r"::?", remote, maxsplit=1)[0]
        raise RemoteError(
            redacted(remote), "unsafe", f"`{helper}:` would start a program; give an https, ssh or git URL"
        )
    if url:
        if url[2].rpartition("@")[2].startswith("-"):
            raise RemoteError(
                redacted(remote), "unsafe", "its host begins with a `-`, so ssh would take it for an option"
            )
        return remote
    if is_folder:
        return remote
    host = re.fullmatch(_SCP, remote)
    if host and not host[1].startswith("-"):
        return remote
    raise RemoteError(redacted(remote), "unknown", "no remote has this name, and no folder is there")


def redacted(text: str) -> str:
    """Return *text* without the credentials in its URLs, and without characters that a terminal would obey."""
    return "".join(
        each if each == "\n" or unicodedata.category(each) not in ("Cc", "Cf", "Cs") else " "
        for each in without_users(text)
    )


def fault_of(words: str) -> RemoteFault:
    """Return the kind of fault that *words* of a failed Git tell of, as far as they do."""
    return next((kind for kind, pattern in _FAULTS if re.search(pattern, words)), "failed")


def explained(words: str) -> str:
    """Return what counts of the *words* of a failed Git: its errors, else the last line; without credentials."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", redacted(words)) if line.strip()]
    errors = [line for line in lines if re.match(r"fatal:|error:|remote:|ssh:|[^ ]*Permission denied|Host key", line)]
    telling = [line for line in errors or lines[-1:] if not re.search(_PROGRESS, line)]
    return "; ".join(dict.fromkeys(telling))[:1000] or "Git says nothing"


def parse_refs(text: str) -> dict[str, RemoteExperiment]:
    """Return the experiments in what `git ls-remote` prints, by ref.

    DVC's own refs are left out, and so are names that no disk or terminal could hold: a remote may hold anything.
    """
    found: dict[str, RemoteExperiment] = {}
    for line in text.split("\n"):
        rev, _, ref = line.partition("\t")
        parsed = None if ref.startswith(INTERNAL) else parse_experiment_ref(ref)
        if parsed is not None and re.fullmatch(r"[0-9a-f]{40}", rev) and is_holdable(parsed[1]):
            found[ref] = RemoteExperiment(name=parsed[1], ref=ref, rev=rev, baseline=parsed[0])
    return found


@frozen
class Reported:
    """What `git push --porcelain` says of one ref."""

    outcome: Outcome
    found: str | None
    """The rev that stood there, as far as it is said."""
    reason: str
    lost: bool
    """Whether the remote did not say what became of it."""


def parse_report(text: str) -> dict[str, Reported]:
    """Return what `git push --porcelain` prints, by the ref on the remote (git-push(1), OUTPUT)."""
    found: dict[str, Reported] = {}
    for line in text.splitlines():
        report = re.fullmatch(_REPORT, line)
        if report is not None:
            told = _reported(report[1], report[4])
            if not (report[3] in found and found[report[3]].reason):  # with several push URLs, what is worst counts
                found[report[3]] = told
    return found


def _reported(flag: str, summary: str) -> Reported:
    if flag == "!":
        reason = (re.search(_REASON, summary) or ["", summary])[1]
        lost = "[remote failure]" in summary
        return Reported("diverged" if reason in _DIVERGED else "refused", None, redacted(reason), lost)
    words: Mapping[str, Outcome] = {"*": "new", "=": "up to date", "+": "forced", " ": "updated"}
    before = re.match(r"([0-9a-f]{40})\.\.", summary)
    return Reported(words[flag], before and before[1], "", False)


def parse_progress(segment: str) -> TransferProgress | None:
    """Return how far Git is, if *segment* of what it writes says so: `Writing objects:  40% (4/10), 1.20 KiB | ...`."""
    found = re.match(_PROGRESS, segment)
    if found is None:
        return None
    size = int(float(found[5]) * _UNITS[found[6]]) if found[5] else None
    done, total = (int(found[2]), int(found[3])) if found[2] else (int(found[4]), None)
    return TransferProgress(phase=found[1], done=done, total=total, bytes=size)
