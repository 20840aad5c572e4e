"""What may be a remote, and what Git's words about one mean."""

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aexp
from aexp._layout import experiment_ref
from aexp._names import is_holdable
from aexp._remotes import (
    check_remote,
    explained,
    fault_of,
    parse_progress,
    parse_refs,
    parse_report,
    redacted,
)
from aexp._wording import REMEDIES

BASELINE = "0123456789abcdef0123456789abcdef01234567"
REV = "f" * 40

GOOD = [
    "origin",
    "https://example.org/team/repo.git",
    "http://127.0.0.1:8000/repo.git",
    "ssh://git@example.org:2222/repo.git",
    "git://example.org/repo.git",
    "file:///srv/repo.git",
    "git@example.org:team/repo.git",
    "example.org:repo.git",
    "[::1]:repo.git",
]
UNSAFE = [
    "",
    "-u./x",
    "--upload-pack=touch /tmp/pwned",
    "ext::sh -c 'touch /tmp/pwned'",
    "EXT::sh",
    "fd::17",
    "foo::bar",
    "foo://bar",
    "ext://bar",
    "ssh://-oProxyCommand=touch/x",
    "ssh://user@-oProxyCommand=touch/x",
    "https://example.org/\nx",
    "ori\0gin",
    "\x1b[2Jorigin",
    "origin\r",
]


@pytest.mark.parametrize("remote", GOOD)
def test_names_urls_and_hosts_may_be_remotes(remote: str) -> None:
    """A configured name, an https, http, ssh, git or file URL, and what ssh writes as `host:path` are given to Git as they are."""
    assert check_remote(remote, ["origin"], is_folder=False) == remote


@pytest.mark.parametrize("remote", UNSAFE)
def test_what_would_start_a_program_is_no_remote(remote: str) -> None:
    """A remote helper, an option, a host that is an option, and text that is no line are refused before Git sees them."""
    with pytest.raises(aexp.RemoteError) as caught:
        check_remote(remote, ["origin", "upstream"], is_folder=False)
    assert caught.value.kind == "unsafe"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("remote", ["nowhere", "./missing", "a b", "no/such/folder", ":x"])
def test_a_remote_that_is_not_there_is_unknown(remote: str) -> None:
    """What is no configured name, no URL and no folder is told as unknown."""
    with pytest.raises(aexp.RemoteError) as caught:
        check_remote(remote, ["origin"], is_folder=False)
    assert caught.value.kind == "unknown"


def test_a_folder_may_be_a_remote_whatever_it_is_called() -> None:
    """A folder that is there may be a remote, with a space or a tilde in its name, but not with a leading dash."""
    assert check_remote("my ~folder", [], is_folder=True) == "my ~folder"
    with pytest.raises(aexp.RemoteError):
        check_remote("-folder", [], is_folder=True)


@given(
    user=st.text(string.ascii_letters + string.digits, min_size=1),
    password=st.text(string.ascii_letters + string.digits + "!$%&*+,;=~._-", min_size=8),
    scheme=st.sampled_from(["https", "http", "ftp", "ssh"]),
)
def test_a_password_in_a_url_is_never_shown(user: str, password: str, scheme: str) -> None:
    """What stands between `://` and `@` in any text is taken out, whoever says it."""
    text = f"fatal: unable to access '{scheme}://{user}:{password}@host.example/x': no; {scheme}://{user}:{password}@b/"
    assert password not in redacted(text)
    assert f"{scheme}://***@host.example/x" in redacted(text)
    error = aexp.RemoteError(redacted(f"{scheme}://{user}:{password}@host.example"), fault_of(text), explained(text))
    assert password not in str(error)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://TOKEN@github.com/a/b", "https://***@github.com/a/b"),
        ("https://oauth2:TOKEN@gitlab.com/a/b", "https://***@gitlab.com/a/b"),
        ("ssh://git@github.com/a/b", "ssh://git@github.com/a/b"),
        ("ssh://git:TOKEN@github.com/a/b", "ssh://***@github.com/a/b"),
        ("git@github.com:a/b", "git@github.com:a/b"),
        ("https://host/a?private_token=TOKEN&x=1", "https://host/a?private_token=***&x=1"),
        ("https://host/a?access_token=TOKEN", "https://host/a?access_token=***"),
        ("remote: \x1b[31mred\x1b[0m \u202eevil", "remote:  [31mred [0m  evil"),
    ],
)
def test_tokens_and_terminal_codes_are_not_shown(text: str, shown: str) -> None:
    """A name alone may be a token over http, an account is none over ssh; and no remote drives the terminal."""
    assert redacted(text) == shown


WORDS = [
    ("fatal: 'nowhere' does not appear to be a git repository", "unknown"),
    ("remote: Repository not found.\nfatal: repository 'https://h/x/' not found", "unknown"),
    ("fatal: transport 'ext' not allowed", "unsafe"),
    ("git@h: Permission denied (publickey).\r\nfatal: Could not read from remote repository.", "authentication"),
    ("Host key verification failed.\nfatal: Could not read from remote repository.", "authentication"),
    ("fatal: could not read Username for 'https://h': terminal prompts disabled", "authentication"),
    ("remote: HTTP Basic: Access denied\nfatal: Authentication failed for 'https://h/x/'", "authentication"),
    ("fatal: unable to access 'https://h/x/': The requested URL returned error: 403", "authentication"),
    ("fatal: unable to access 'http://h/': Could not resolve host: h", "unreachable"),
    ("fatal: unable to connect to h:\nh[0: 127.0.0.1]: errno=Connection refused", "unreachable"),
    ("ssh: connect to host h port 22: Connection timed out\nfatal: Could not read from remote repo", "unreachable"),
    ("fatal: the remote end hung up unexpectedly\nfatal: early EOF\nfatal: index-pack failed", "unreachable"),
    ("fatal: unable to access 'http://h/': Failed to connect to h port 1", "unreachable"),
    (" ! [remote rejected] x -> x (pre-receive hook declined)\nerror: failed to push some refs", "refused"),
    (f"error: object {REV}: hasDotgit: contains '.git'\nfatal: fsck error in packed object", "hostile"),
    ("error: /srv/x did not send all necessary objects", "hostile"),
    ("fatal: pack is corrupted (SHA1 mismatch)\nfatal: index-pack failed", "hostile"),
    ("fatal: something nobody has heard of", "failed"),
    ("", "failed"),
]


@pytest.mark.parametrize(("words", "kind"), WORDS)
def test_words_of_git_name_the_fault(words: str, kind: str) -> None:
    """What Git, curl and ssh say is told apart as far as it can be."""
    assert fault_of(words) == kind


@given(st.text())
def test_any_words_can_be_explained(words: str) -> None:
    """Whatever a remote says becomes one printable line of at most 1,000 characters, and a kind of fault."""
    said = explained(words)
    assert said
    assert len(said) <= 1000
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e]", said)
    assert fault_of(words) in REMEDIES


def test_dvcs_own_refs_and_hostile_names_are_left_out() -> None:
    """Of what a remote lists, experiments with a name that a disk and a terminal can hold are kept, and nothing else."""
    kept = {experiment_ref(BASELINE, name) for name in ("lr-0.1", "2024", "HEAD", "größe")}
    others = {
        "refs/heads/main",
        "refs/exps/stash",
        "refs/exps/exec/EXEC_HEAD",
        "refs/exps/apply/ORIG_HEAD",
        "refs/exps/celery/stash",
        "refs/exps/my/foo",
        "refs/exps/12/3456/x",
        f"{experiment_ref(BASELINE, 'a')}/b",
        *[
            experiment_ref(BASELINE, name)
            for name in ("-x", "a\u202eb", "a\x1b[2Jb", "x" * 201, "a.lock", "a.LOCK", "..")
        ],
        experiment_ref(BASELINE, "a\udcffb"),
        experiment_ref(BASELINE, "gro\u0308sse"),
        f"../../hooks/{experiment_ref(BASELINE, 'x')}",
    }
    text = (
        "".join(f"{REV}\t{ref}\n" for ref in kept | others)
        + f"nonsense\n\n\t\n{REV} \t{experiment_ref(BASELINE, 'y')}\n"
    )
    found = parse_refs(text)
    assert set(found) == kept
    assert {each.baseline for each in found.values()} == {BASELINE}
    assert {each.rev for each in found.values()} == {REV}


@given(st.text())
def test_any_list_of_refs_can_be_read(text: str) -> None:
    """Whatever a remote lists is read without an error, and what is kept can be held."""
    assert all(is_holdable(each.name) for each in parse_refs(text).values())
    assert all(is_holdable(each.name) for each in parse_refs(f"{REV}\t{experiment_ref(BASELINE, text)}").values())


def test_a_report_of_git_push_is_read_by_ref() -> None:
    """What `git push --porcelain` prints tells what became of each ref, and why."""
    old = "a" * 40
    refs = [
        experiment_ref(BASELINE, name) for name in ("new", "same", "forced", "later", "other", "unseen", "hook", "cut")
    ]
    text = "\n".join(
        [
            "To https://host/x",
            f"*\t{REV}:{refs[0]}\t[new reference]",
            f"=\t{REV}:{refs[1]}\t[up to date]",
            f"+\t{REV}:{refs[2]}\t{old}...{REV} (forced update)",
            f" \t{REV}:{refs[3]}\t{old}..{REV}",
            f"!\t{REV}:{refs[4]}\t[rejected] (non-fast-forward)",
            f"!\t{REV}:{refs[5]}\t[rejected] (fetch first)",
            f"!\t{REV}:{refs[6]}\t[remote rejected] (hook declined)",
            f"!\t{REV}:{refs[7]}\t[remote failure] (remote failed to report status)",
            "Done",
        ]
    )
    report = parse_report(text)
    assert [report[ref].outcome for ref in refs[:7]] == [
        "new",
        "up to date",
        "forced",
        "updated",
        "diverged",
        "diverged",
        "refused",
    ]
    assert report[refs[2]].found == report[refs[3]].found == old
    assert report[refs[6]].reason == "hook declined"
    assert [ref for ref in refs if report[ref].lost] == [refs[7]]


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("Writing objects:  40% (4/10), 1.50 KiB | 1.2 MiB/s", ("Writing objects", 4, 10, 1536)),
        ("Receiving objects: 100% (7/7), done.", ("Receiving objects", 7, 7, None)),
        ("remote: Counting objects:  12% (1/8)", ("Counting objects", 1, 8, None)),
        ("Enumerating objects: 182, done.", ("Enumerating objects", 182, None, None)),
    ],
)
def test_progress_is_read_from_what_git_writes(line: str, progress: tuple[str, int, int | None, int | None]) -> None:
    """A progress line says the phase, how many are done, of how many, and how many bytes have moved."""
    phase, done, total, size = progress
    assert parse_progress(line) == aexp.TransferProgress(phase=phase, done=done, total=total, bytes=size)


@given(st.text())
def test_other_lines_are_no_progress(line: str) -> None:
    """Any line is either no progress or one that can be told."""
    assert parse_progress(f"fatal: {line}") is None
    parse_progress(line)
