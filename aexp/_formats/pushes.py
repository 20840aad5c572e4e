"""The list of experiments that are pushed by themselves: lines of JSON, of which the latest about a rev counts.

A line is `[kind, time, remote, rev, reason]`: `waiting`, `pushed` or `refused` for an experiment, `gone` for one that is
to be forgotten, and, with an empty rev, `trouble` for a remote that the last try could not speak to, or `well` for one
that answers again. What is no such line, torn by a full disk say, is passed over: it costs an automatic push at most.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from attrs import define, field

from .._exchanged import Push

KINDS: Final = frozenset({"waiting", "pushed", "refused", "gone", "trouble", "well"})
REASON: Final = 500
"""How many characters of a reason are kept."""


@define(eq=False)
class Pushes:
    """What the list says: how the automatic push of each rev stands, and which remotes give trouble, and why."""

    known: dict[str, Push] = field(factory=dict)
    trouble: dict[str, Push] = field(factory=dict)
    """By remote; the state is always `waiting`."""
    lines: int = 0

    def of(self, rev: str) -> Push | None:
        """Return how the push of *rev* stands; one that waits for a remote in trouble says what the trouble is."""
        found = self.known.get(rev)
        return self.trouble.get(found.remote, found) if found is not None and found.state == "waiting" else found

    def revs(self, remote: str, *states: str) -> list[str]:
        """Return the revs whose push to *remote* is in one of *states*, in the order in which they came in."""
        return [rev for rev, each in self.known.items() if each.state in states and each.remote == remote]


def line(kind: str, time: float, remote: str, rev: str = "", reason: str = "") -> bytes:
    """Return one line; *remote* and *reason* must be without credentials."""
    text = reason[:REASON].encode("utf-8", "replace").decode()
    return orjson.dumps([kind, time, remote.encode("utf-8", "replace").decode(), rev, text]) + b"\n"


def parse_pushes(content: bytes, breath: Callable[[], None]) -> Pushes:
    """Return what the list *content* says; *breath* is called now and then, so that others can work."""
    found, shared = Pushes(), dict[tuple[Any, ...], Push]()
    for each in content.split(b"\n"):
        breath()
        told = _parsed(each)
        if told is None:
            continue
        kind, time, remote, rev, reason = told
        found.lines += 1
        before = found.known.get(rev)
        if before is not None and time < before.since.timestamp():  # it was carried over when the list was written anew
            continue
        if kind in ("gone", "well"):
            (found.known if kind == "gone" else found.trouble).pop(rev or remote, None)
            continue
        key = (kind, time, remote, reason)
        push = shared.get(key)
        if push is None:  # experiments that are pushed together share what is said of them
            state: Any = "waiting" if kind == "trouble" else kind
            push = shared[key] = Push(
                remote=remote, state=state, since=datetime.fromtimestamp(time, UTC), reason=reason
            )
        if kind == "trouble":
            found.trouble[remote] = push
        else:
            found.known[rev] = push
    return found


def _parsed(text: bytes) -> tuple[Any, float, str, str, str] | None:
    try:
        kind, time, remote, rev, reason = orjson.loads(text)
        if kind in KINDS and all(type(each) is str for each in (remote, rev, reason)) and 0 <= time < 2**36:
            return kind, float(time), remote, rev, reason
    except (ValueError, TypeError):
        pass
    return None


def dump_pushes(pushes: Pushes, standing: Collection[str]) -> bytes:
    """Return the shortest list that says the same of the revs *standing*: what is in no ref any more is forgotten."""
    told = [("trouble", "", each) for each in pushes.trouble.values()]
    told += [(each.state, rev, each) for rev, each in pushes.known.items() if rev in standing]
    return b"".join(line(kind, each.since.timestamp(), each.remote, rev, each.reason) for kind, rev, each in told)


def counted(pushes: Pushes, standing: Collection[str]) -> Mapping[str, Mapping[str, int]]:
    """Return how many of the revs *standing* are in each state, by remote."""
    found: dict[str, dict[str, int]] = {}
    for rev, each in pushes.known.items():
        if rev in standing:
            states = found.setdefault(each.remote, {})
            states[each.state] = states.get(each.state, 0) + 1
    return found
