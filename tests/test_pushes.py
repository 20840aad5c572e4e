"""The list of experiments that are pushed by themselves: whatever is in the file, and whoever writes beside whom."""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import aexp
from aexp import _outbox
from aexp._formats.pushes import dump_pushes, line, parse_pushes

revs = st.sampled_from([digit * 40 for digit in "abcdef"])
told = st.lists(
    st.tuples(
        st.sampled_from(["waiting", "pushed", "refused", "gone"]),
        st.integers(0, 2**31),
        st.sampled_from(["origin", "backup"]),
        revs,
        st.text(max_size=20),
    )
)


@given(content=st.binary(), lines=told)
def test_what_is_no_line_is_passed_over(content: bytes, lines: list[tuple[str, int, str, str, str]]) -> None:
    """Any bytes between the lines change nothing of what the lines say."""
    sound = b"".join(line(*each) for each in lines)
    torn = b"".join(content.replace(b"[", b"(") + b"\n" + line(*each) for each in lines)

    assert parse_pushes(torn, lambda: None).known == parse_pushes(sound, lambda: None).known


@given(content=st.binary())
def test_no_bytes_are_an_error(content: bytes) -> None:
    """A list that is none says nothing, or what can be read of it."""
    assert parse_pushes(content, lambda: None).known.keys() <= {*parse_pushes(content + b"\n", lambda: None).known}


@given(lines=told)
def test_the_latest_line_about_a_rev_counts_and_a_short_list_says_the_same(
    lines: list[tuple[str, int, str, str, str]],
) -> None:
    """Written anew, a list has a line for each rev that stands, and says the same of it."""
    lines.sort(key=lambda each: each[1])
    found = parse_pushes(b"".join(line(*each) for each in lines), lambda: None)
    last = {rev: (kind, time, remote, reason) for kind, time, remote, rev, reason in lines}
    expected = {rev: each for rev, each in last.items() if each[0] != "gone"}
    short = dump_pushes(found, found.known.keys())

    assert parse_pushes(short, lambda: None).known == found.known
    assert short.count(b"\n") == len(expected)
    for rev, (kind, time, remote, _) in expected.items():
        push = found.of(rev)
        assert push is not None
        assert (push.state, push.remote, push.since) == (kind, remote, datetime.fromtimestamp(time, UTC))


def test_what_waits_for_a_remote_in_trouble_says_so() -> None:
    """Until the remote answers again, each experiment that waits for it has the reason; others have none."""
    text = line("waiting", 1, "origin", "a" * 40) + line("waiting", 1, "backup", "b" * 40)
    troubled = parse_pushes(text + line("trouble", 2, "origin", "", "unreachable: no route"), lambda: None)

    assert [troubled.of(rev * 40) for rev in "abc"] == [
        aexp.Push(
            remote="origin", state="waiting", since=datetime.fromtimestamp(2, UTC), reason="unreachable: no route"
        ),
        aexp.Push(remote="backup", state="waiting", since=datetime.fromtimestamp(1, UTC)),
        None,
    ]
    well = parse_pushes(text + line("trouble", 2, "origin", "", "x") + line("well", 3, "origin"), lambda: None)
    assert well.of("a" * 40) == aexp.Push(remote="origin", state="waiting", since=datetime.fromtimestamp(1, UTC))


def test_nothing_is_lost_while_the_list_is_written_anew(tmp_path: Path) -> None:
    """What four threads add while it is made short again and again is all there in the end."""
    common = str(tmp_path)
    (tmp_path / "aexp").mkdir()
    over = threading.Event()

    def add(who: int) -> None:
        for number in range(1500):
            rev = f"{who:020x}{number:020x}"
            for kind in ("waiting", "pushed"):
                _outbox.tell(common, [(kind, rev, "")], "origin")

    def shorten() -> None:
        while not over.is_set():
            if os.path.exists(_outbox.path_of(common)):
                _outbox.shorten(common, standing)

    standing = [f"{who:020x}{number:020x}" for who in range(4) for number in range(1500)]
    threads = [threading.Thread(target=add, args=(who,)) for who in range(4)]
    shortener = threading.Thread(target=shorten)
    for thread in (*threads, shortener):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    shortener.join()
    _outbox.shorten(common, standing)
    found = _outbox.pushes_of(common)

    assert found is not None
    assert {rev for rev in standing if (push := found.of(rev)) is None or push.state != "pushed"} == set()
    assert found.lines < 2 * len(standing)


def test_a_list_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    """Where something else stands in its place, announcing does nothing, and reading finds nothing."""
    (tmp_path / "aexp" / "pushes").mkdir(parents=True)
    _outbox.announce(str(tmp_path), "origin", ["a" * 40])

    assert _outbox.pushes_of(str(tmp_path)) is None
