"""Names: what is accepted is safe in Git, in DVC and on every disk, and what is refused is refused with a reason."""

import random
import re
import subprocess
import unicodedata
import uuid
from pathlib import PurePosixPath
from urllib.parse import unquote

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from aexp import _names as names
from aexp.errors import InvalidName, UnsafePath

quick = settings(max_examples=200)

GOOD = [
    *["a", "lr-0.1", "calm-otter-4821", "x.y.z", "A_B", "exp=1,b+2%3", "it's-<ok>|&;$!()", 'quo"te', "a@b", "@a"],
    *["a{b}", "\u65e5\u672c", "caf\u00e9", "\U0001f600", "heads-up", "execute", "EXEC-1", "my-workspace", "console"],
    *["null", "deadbeefg", "abc", "0" * 41, "a" * 200, "x.locker", "branch-", "1", "r-1.lock.2"],
]

BAD = [
    *["", " ", "../x", "a..b", "..", ".", ".hidden", "x.", "x.lock", "x.LOCK", "x.Lock", "@{", "a@{1}", "@", "a\nb"],
    *["a\tb", "a\0b", "a\x7fb", "a\x85b", "a//b", "a/b", "/a", "-x", "--help", "HEAD", "head", "FETCH_HEAD"],
    *["ORIG_HEAD", "MERGE_HEAD", "CHERRY_PICK_HEAD", "0123456789abcdef" * 2 + "01234567", "ABCD", "1234", "exec"],
    *["stash", "apply", "celery", "temp", "workspace", "Workspace", "EXEC_BASELINE", "a" * 201, "\u65e5" * 67, "a b"],
    *["a\u00a0b", "a\u3000b", "a\u2028b", "a\u202eb", "a\u200bb", "a\u200db", "\ufeffa", "a\ud800b", "a~b", "a^b"],
    *["a:b", "a?b", "a*b", "a[b", "a\\b", "CON", "nul.txt", "com1", None, 7, b"a"],
]


@pytest.mark.parametrize("name", GOOD)
def test_a_good_experiment_name_is_kept(name: str) -> None:
    """A name that Git, DVC and every disk can hold is returned as it is."""
    assert names.check_experiment_name(name) == name


@pytest.mark.parametrize("name", BAD)
def test_a_bad_experiment_name_is_refused(name: object) -> None:
    """A name that Git, DVC or some disk cannot hold is refused with a reason, and the error carries the name."""
    with pytest.raises(InvalidName) as refused:
        names.check_experiment_name(name)
    assert refused.value.name == name
    assert refused.value.reason


def test_a_decomposed_experiment_name_is_composed() -> None:
    """The two spellings of an accented letter are one name."""
    assert names.check_experiment_name("cafe\u0301") == names.check_experiment_name("caf\u00e9") == "caf\u00e9"


def test_the_limit_of_a_name_counts_the_bytes_after_composition() -> None:
    """A name may have 200 bytes in the form in which it is kept, however it was spelled."""
    assert len(names.check_experiment_name("e\u0301" * 100).encode()) == 200


@quick
@given(st.text(max_size=12))
def test_an_accepted_experiment_name_is_normal_and_short(text: str) -> None:
    """What comes out of the check is NFC, short, visible, and passes the check again unchanged."""
    try:
        name = names.check_experiment_name(text)
    except InvalidName:
        return
    assert unicodedata.is_normalized("NFC", name)
    assert 1 <= len(name.encode()) <= 200
    assert not re.search(r"[\x00-\x20\x7f~^:?*\[\\/]|\.\.|@\{|^[-.]|\.$|\.lock$", name, re.IGNORECASE)
    assert names.check_experiment_name(name) == name


def test_git_accepts_every_accepted_name() -> None:
    """`git check-ref-format` accepts each name that passes, from a table and from random awkward characters."""
    awkward = random.Random(20).choices("ab.-@{}~^:?*[\\/ lock=,+%#'\"<>|&;$!()\u00e9\u200b\u65e5", k=4_000)
    samples = {"".join(awkward[start : start + 6]) for start in range(0, len(awkward), 6)}
    accepted = [*GOOD, *(name for name in sorted(samples) if _is_accepted(name))]
    assert len(accepted) > 50
    for name in accepted[:80]:
        command = ["git", "check-ref-format", f"refs/exps/aa/{'b' * 38}/{name}"]
        assert subprocess.run(command, check=False).returncode == 0, name


def _is_accepted(name: str) -> bool:
    try:
        return bool(names.check_experiment_name(name))
    except InvalidName:
        return False


_BAD = re.compile(r"[\x00-\x1f\x7f-\x9f]|(?:^|/)\.{0,2}(?=/|$)")
metric_names = st.text(
    st.one_of(
        st.sampled_from("ab.tsvTSV/~1%:\\ \u00e9\u0301\u200b\u202e\U0001f600"),
        st.characters(exclude_categories=("Cs", "Cc")),
    ),
    min_size=1,
    max_size=40,
).filter(lambda name: not _BAD.search(name))


@pytest.mark.parametrize("name", ["loss", "train/loss", "a/b/c", ".a", "a.", "...", "a b", "CON", "a" * 255, "e\u0301"])
def test_a_good_metric_name_is_kept(name: str) -> None:
    """A metric keeps the name under which it was logged, without normalisation."""
    assert names.check_metric_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "/", "a/", "/a", "a//b", ".", "..", "a/./b", "a/..", "../a", "a\nb", "\x9f", "\0", "\ud800", "a" * 256]
)
def test_a_bad_metric_name_is_refused(name: str) -> None:
    """A metric name with a control character or an empty, `.` or `..` part is refused."""
    with pytest.raises(InvalidName):
        names.check_metric_name(name)


@pytest.mark.parametrize("name", [None, 1, b"loss"])
def test_a_metric_name_that_is_no_text_is_a_type_error(name: object) -> None:
    """What is no str cannot be a metric name, and says so as a TypeError."""
    with pytest.raises(TypeError):
        names.check_metric_name(name)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("loss", "loss.tsv"),
        ("train/loss", "train/loss.tsv"),
        ("a.tsv", "a.tsv.tsv"),
        ("a.tsv/b", "a%2Etsv/b.tsv"),
        ("a.TSV/b", "a%2ETSV/b.tsv"),
        ("disk/usage (%)", "disk/usage (%25).tsv"),
        (".git/config", "%2Egit/config.tsv"),
        ("...", "%2E.%2E.tsv"),
        ("git~1/x", "git%7E1/x.tsv"),
        ("a~b", "a~b.tsv"),
        ("con", "%63on.tsv"),
        ("NUL.x/Com1", "%4EUL.x/%43om1.tsv"),
        ("a:b?", "a%3Ab%3F.tsv"),
        ("x /y.", "x%20/y%2E.tsv"),
        ("a\u200bb", "a%E2%80%8Bb.tsv"),
        ("caf\u00e9", "caf\u00e9.tsv"),
        ("cafe\u0301", "cafe%CC%81.tsv"),
        ("\u65e5\u672c", "\u65e5\u672c.tsv"),
    ],
)
def test_the_file_of_a_metric(name: str, path: str) -> None:
    """A metric's file shows its name, with what a file system might misread percent-encoded."""
    assert names.metric_file(name) == path


@quick
@given(metric_names, metric_names)
@example("a/b", "a.tsv/b")
@example("e\u0301", "\u00e9")
@example("%25", "%")
def test_no_two_metrics_share_a_file(left: str, right: str) -> None:
    """Different names have different files, also for a disk that takes two spellings of an accent for one."""
    assume(left != right)
    paths = {unicodedata.normalize("NFC", names.metric_file(name)) for name in (left, right)}
    assert len(paths) == 2


@quick
@given(metric_names)
def test_the_file_of_a_short_metric_name_can_be_decoded(name: str) -> None:
    """Unless it is cut, a metric's file decodes to the metric's name, which is why no two share one."""
    path = names.metric_file(name)
    assume(max(map(len, path.split("/"))) < 160)
    assert unquote(path.removesuffix(".tsv"), errors="strict") == name


@quick
@given(metric_names)
def test_the_file_of_a_metric_is_safe(name: str) -> None:
    """A metric's file never leaves its folder, and no part of it is special to Git, Windows or macOS."""
    path = names.metric_file(name)
    *folders, last = path.split("/")
    assert PurePosixPath(path).parts == (*folders, last)
    assert last.lower().endswith(".tsv")
    assert not any(folder.lower().endswith(".tsv") for folder in folders)
    for segment in (*folders, last):
        assert segment not in ("", ".", "..")
        assert not re.search(r'[\x00-\x1f\\:*?"<>|]|^\.|[ .]$|~[0-9]', segment)
        assert len(segment.encode()) <= 204
    assert names.check_file_path(path, folder="aexp") == path


def test_a_long_metric_name_is_cut_and_stays_apart() -> None:
    """Names that agree in their first 200 bytes have different files, none with a part over 204 bytes."""
    long = ["x" * 210 + "a", "x" * 210 + "b", "x" * 210 + "/a", "\u65e5" * 80, "%" * 100]
    paths = [names.metric_file(name) for name in long]
    assert len({path.casefold() for path in paths}) == len(long)
    assert all(len(part.encode()) <= 204 for path in paths for part in path.split("/"))
    assert re.fullmatch(r"x{120}%[0-9a-f]{40}\.tsv", paths[0])


def test_a_name_that_looks_like_a_cut_one_is_cut_itself() -> None:
    """A name made to have the file of a long name, whose hash looks like an encoded character, gets another one."""
    long = next(name for at in range(10_000) if _hash_of(name := "x" * 210 + str(at)).startswith("22"))
    forged = "x" * 120 + '"' + _hash_of(long)[2:]
    assert names.metric_file(forged) != names.metric_file(long)


def _hash_of(name: str) -> str:
    return names.metric_file(name).removesuffix(".tsv")[-40:]


@pytest.mark.parametrize("tag", ["a", "two words", "caf\u00e9", "#1", "x" * 100])
def test_a_good_tag_is_kept(tag: str) -> None:
    """A short text without a comma is a tag as it is."""
    assert names.check_tag(tag) == tag


@pytest.mark.parametrize("tag", ["", " a", "a ", "a,b", "a\nb", "a\x85b", "\ud800", "x" * 101, None, 1])
def test_a_bad_tag_is_refused(tag: object) -> None:
    """A tag that a list of tags could not show is refused."""
    with pytest.raises(InvalidName):
        names.check_tag(tag)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("notes.txt", "notes.txt"),
        ("a/b/c", "a/b/c"),
        ("./a", "a"),
        (PurePosixPath("a/b"), "a/b"),
        (".gitignore", ".gitignore"),
        (".github/x", ".github/x"),
        ("dvc.yaml", "dvc.yaml"),
        ("aexp/notes.txt", "aexp/notes.txt"),
        ("aexp/plots/images/a.png", "aexp/plots/images/a.png"),
        ("a~1", "a~1"),
        (".dvc/plots/x.json", ".dvc/plots/x.json"),
    ],
)
def test_a_safe_path_is_kept(path: str | PurePosixPath, kept: str) -> None:
    """A relative path inside the repository is returned with slashes between its parts."""
    assert names.check_file_path(path, folder="aexp") == kept


@pytest.mark.parametrize(
    "path",
    [
        *["", ".", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "a\\b", "a\nb", "a\0b", "a\x85b", "\ud800", "C:/x"],
        *[".git", ".git/hooks/x", ".GIT/x", "a/.Git/x", "git~1/x", "GIT~2", ".git./x", ".git /x", ".g\u200cit/x"],
        *[".git::$INDEX_ALLOCATION/x", ".gitmodules", "gi7eba~1", ".dvc/config", ".dvc/config.local", ".DVC/tmp/x"],
        *["sub/.dvc/config", "x" * 256, "aexp", "aexp/dvc.yaml", "aexp/params.yaml", "aexp/metrics.json"],
        *["AEXP/Params.yaml", "aexp/experiment.json", "aexp/experiment.json/x", "aexp/plots", "aexp/plots/metrics"],
        *["aexp/plots/metrics/a.tsv"],
    ],
)
def test_an_unsafe_path_is_refused(path: str) -> None:
    """A path that leaves the repository, configures Git or DVC, or is aexp's own is refused with a reason."""
    with pytest.raises(UnsafePath) as refused:
        names.check_file_path(path, folder="aexp")
    assert refused.value.path == path
    assert refused.value.reason


def test_the_folder_of_an_experiment_may_be_elsewhere() -> None:
    """The files that aexp writes are refused in whichever folder it writes them."""
    assert names.check_file_path("aexp/dvc.yaml", folder="out/exp") == "aexp/dvc.yaml"
    for path in ("out", "out/exp", "out/exp/dvc.yaml"):
        with pytest.raises(UnsafePath):
            names.check_file_path(path, folder="./out/exp/")


@quick
@given(st.integers(0, (1 << 48) - 1), st.binary(min_size=10, max_size=10))
def test_an_id_is_a_uuid_of_version_7(milliseconds: int, entropy: bytes) -> None:
    """An id holds its time in its first 12 digits and is a UUID of version 7 in the variant of RFC 9562."""
    made = names.new_id(milliseconds, entropy)
    parsed = uuid.UUID(hex=made)
    assert (parsed.hex, parsed.version, parsed.variant) == (made, 7, uuid.RFC_4122)
    assert int(made[:12], 16) == milliseconds


def test_every_random_bit_that_fits_is_in_the_id() -> None:
    """Each of the lower 74 bits of entropy changes the id, and ids sort by their time."""
    ids = {names.new_id(1, (1 << bit).to_bytes(10, "big")) for bit in range(74)}
    assert len(ids) == 74
    assert max(ids) < names.new_id(2, bytes(10))


@pytest.mark.parametrize(("milliseconds", "size"), [(-1, 10), (1 << 48, 10), (0, 9), (0, 16)])
def test_an_id_needs_a_time_and_ten_bytes(milliseconds: int, size: int) -> None:
    """A time that does not fit or another number of bytes is a ValueError."""
    with pytest.raises(ValueError, match=r"48 bits|10 random bytes"):
        names.new_id(milliseconds, bytes(size))


@quick
@given(st.binary(min_size=4, max_size=16))
def test_a_random_name_is_two_words_and_a_number(entropy: bytes) -> None:
    """A random name is a good name of two words and a number, the same for the same bytes."""
    name = names.random_name(entropy)
    assert re.fullmatch(r"[a-z]+-[a-z]+-[0-9]{1,4}", name)
    assert names.check_experiment_name(name) == name == names.random_name(entropy)


def test_random_names_use_every_word() -> None:
    """64 adjectives and 64 nouns make 40 million names."""
    drawn = [names.random_name(random.Random(seed).randbytes(8)).split("-") for seed in range(3_000)]
    assert [len({name[part] for name in drawn}) for part in (0, 1)] == [64, 64]
    with pytest.raises(ValueError, match="4 random bytes"):
        names.random_name(b"abc")
