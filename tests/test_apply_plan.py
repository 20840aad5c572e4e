"""What an apply may write and what it records: paths, links, plans; decided without a disk."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aexp._applied import Blob, Data, Seen, Wish, clash, decide
from aexp._datacache import Out, outs_of
from aexp._formats.plan import Content, Plan, Step, decode_plan, encode_plan
from aexp._names import guard, leads_out, work_tree_fault

paths = st.binary(min_size=1, max_size=20).filter(lambda name: b"\0" not in name).map(os.fsdecode)
steps = st.builds(
    Step,
    paths,
    st.sampled_from(["file", "link", None]),
    st.none() | st.builds(Content, st.sampled_from(["file", "link"]), paths, st.integers(0, 2**63)),
)
plans = st.builds(
    Plan,
    st.text(),
    st.text(),
    st.text(),
    st.lists(steps),
    st.lists(paths),
    st.lists(st.tuples(paths, st.integers(0, 0o7777))),
)


@given(plans)
def test_a_plan_is_read_back_as_it_was_written(plan: Plan) -> None:
    """Whatever bytes the paths hold, the lines of a plan give the same plan."""
    back = decode_plan(encode_plan(plan))

    assert (back.name, back.rev, back.worktree, list(back.made)) == (plan.name, plan.rev, plan.worktree, plan.made)
    assert (list(back.steps), list(back.removed)) == (plan.steps, plan.removed)


@given(plans, st.data())
def test_a_plan_that_is_cut_off_is_not_taken_for_whole(plan: Plan, data: st.DataObject) -> None:
    """A plan of which the end is missing, wherever it was cut, raises `ValueError`."""
    whole = b"".join(encode_plan(plan))
    part = whole[: data.draw(st.integers(0, len(whole) - 2))]
    with pytest.raises((ValueError, TypeError)):
        decode_plan(part.splitlines())


@pytest.mark.parametrize(
    "path",
    [
        *("..", "a/..", "../a", "/a", "a//b", "a/", "", ".", "./a", ".git", "a/.git/b", ".GIT/x", ".git./x", ".git /x"),
        *("git~1", "a/GIT~1/b", ".git::$DATA", ".g\u200cit/x", "gitmod~1", "a\\b", "a\nb", "a\x7f", "a\x85", "\0"),
    ],
)
def test_a_path_that_no_work_tree_may_hold(path: str) -> None:
    """It goes up, is empty in a part, holds control characters or a backslash, or is Git's own on some file system."""
    assert work_tree_fault(path)


@pytest.mark.parametrize(
    "path",
    [
        "a",
        ".gitignore",
        ".github/x",
        "a.git",
        "git",
        "gi",
        "x~1",
        "a/b c/d",
        "\udcff\udce9",
        "e\u0301",
        ".dvc/config",
        "...",
        "a:b",
    ],
)
def test_a_path_that_a_work_tree_may_hold(path: str) -> None:
    """Any other path may be written, bytes that are no UTF-8 among them."""
    assert work_tree_fault(path) is None


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("a", "/b"),
        ("a", ".."),
        ("a", "../b"),
        ("d/a", "../../b"),
        ("d/a", "x/../../../b"),
        ("a", ".git"),
        ("d/a", "../.GIT/hooks"),
    ],
)
def test_a_link_that_leads_out(path: str, target: str) -> None:
    """A link to an absolute path, above the top, or into Git's folder needs to be asked for."""
    assert leads_out(path, target)


@pytest.mark.parametrize(
    ("path", "target"), [("a", "b"), ("d/a", "../b"), ("d/e/a", "../../b/c"), ("a", "x/../b"), ("d/a", "..")]
)
def test_a_link_that_stays_inside(path: str, target: str) -> None:
    """Any other link is written."""
    assert leads_out(path, target) is None


def test_what_is_guarded() -> None:
    """Attributes, submodules, DVC's settings and what Git is set to read here; nothing beside them."""
    settings = frozenset({".hooks", "team.gitconfig"})
    for path in (
        ".gitattributes",
        "a/.GITATTRIBUTES",
        ".gitmodules",
        ".dvc/config",
        "sub/.dvc/config.local",
        ".dvc/tmp/x",
    ):
        assert guard(path, settings)
    for path in (".hooks/pre-commit", ".Hooks/x", "team.gitconfig"):
        assert guard(path, settings)
    for path in ("gitattributes", "a/.gitmodules", ".dvc/plots/x.json", ".dvcignore", ".hooks2/x", "a/team.gitconfig"):
        assert guard(path, settings) is None


def test_what_is_lost_is_a_conflict() -> None:
    """Only what is nowhere else is in the way: not what HEAD holds, the last apply wrote, a cache has, or is equal."""
    old, new, other = (Blob(0o100644, bytes([number]) * 20) for number in range(3))
    seen = {
        "absent": Seen(),
        "head": Seen("file", id=old.id),
        "equal": Seen("file", id=new.id),
        "ours": Seen("file", id=other.id, ours=True),
        "mine": Seen("file", id=other.id),
        "mode": Seen("file", True, id=old.id),
        "link": Seen("link", id=old.id),
        "cached": Seen("file", md5="c"),
        "data": Seen("file", md5="d"),
    }
    wish = Wish(dict.fromkeys(seen, new), dict.fromkeys(seen, old), {"cached": "c"})
    wish.wanted.update({"cached": Data("x"), "data": Data("x")})

    decision = decide(wish, seen)

    assert decision.conflicts == ("data", "link", "mine", "mode")
    assert decision.unchanged == 1
    assert [each.path for each in decision.choices] == sorted(set(seen) - {"equal"})
    assert decide(wish, seen, filemode=False).conflicts == ("data", "link", "mine")


def test_two_files_that_cannot_both_stand() -> None:
    """A file where another needs a folder, and on some disks two names that differ in case only, in a folder's name, too."""
    assert clash(["a", "b/c"], ignore_case=False) is None
    assert clash(["a/b", "a"], ignore_case=False) == ("a", "a/b")
    assert clash(["A/b", "a"], ignore_case=False) is None
    assert clash(["A/b", "a"], ignore_case=True) == ("a", "A/b")
    assert clash(["A/b", "a/B"], ignore_case=True) == ("A/b", "a/B")


def test_outs_are_found_where_their_stage_works() -> None:
    """`wdir` moves the outs of a `.dvc` file and of a stage; what is no data of DVC 3 is passed over."""
    id = "0" * 32
    outs = [
        {"path": "x", "md5": id, "hash": "md5", "isexec": True},
        {"path": "old", "md5": id},
        {"path": "git", "md5": id, "hash": "md5", "cache": False},
        {"path": "bad", "md5": "../../x", "hash": "md5"},
        {"path": 7, "md5": id, "hash": "md5"},
        "no mapping",
    ]
    assert list(outs_of("a/b.dvc", {"outs": outs, "wdir": "../c"}, {})) == [Out("c/x", id, True)]
    lock = {"stages": {"s@0": {"outs": outs}, "t": {"outs": "no list"}, "u": None}}
    assert list(outs_of("a/dvc.lock", lock, {"stages": {"s": {"do": {"wdir": "w"}}}})) == [Out("a/w/x", id, True)]
    assert list(outs_of("dvc.lock", {"stages": []}, {"stages": 7})) == []
