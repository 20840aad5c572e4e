"""Secrets stay out of journals, commits, remotes and words: canaries are let in everywhere, and looked for everywhere."""

import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import aexp
from aexp._secrets import MARK, hides

Git = Callable[..., str]

GITHUB = "ghp_" + "Q7r2Kx9mVb4TnW8sYd3LcH6jPf5ZgA1eRu0o"
AMAZON = "AKIA" + "QZ7PX4M2VN8KTW3L"
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.c2lnbmF0dXJl"
RANDOM = "k3JxQ9ZpL2vWm8RtY5bNcD7s"
PEM = "-----BEGIN RSA PRIVATE KEY-----\n" + "Y2FuYXJ5IG9mIGEga2V5\n" * 3 + "-----END RSA PRIVATE KEY-----"
WORD = "canary-of-a-password"
URL_WORD = "canary-in-a-url"
ENVIRONMENT_WORD = "canary-of-the-environment"
CANARIES = (GITHUB, AMAZON, JWT, RANDOM, "Y2FuYXJ5IG9mIGEga2V5", WORD, URL_WORD, ENVIRONMENT_WORD)

PROGRAM = f"""
import asyncio, sys, warnings
import aexp

PARAMS = {{
    "db": {{"password": "{WORD}", "url": "postgresql://me:{URL_WORD}@db.example.org/x"}},
    "openai_api_key": "{RANDOM}",
    "command": ["curl", "-H", "Authorization: Bearer {JWT}"],
    "notes": "my key is {AMAZON}",
    "credentials": {{"deep": [{{"pem": '''{PEM}'''}}]}},
    "{GITHUB}": 1,
    "lr": 0.1,
}}

async def main(path):
    async with aexp.Repository(path) as repository:
        async with repository.experiment("good", params=PARAMS, tags=["{GITHUB}"], message="with {AMAZON}") as one:
            await one.set_params(token="{RANDOM}", more={{"secret": "{WORD}"}})
            await one.set_params(overrides=["+train.api_key={WORD}", "train.lr=0.2"])
            await one.set_message("password={WORD}")
            await one.set_tags("fine", "{JWT}")
            for name in ("{GITHUB}", "a/{AMAZON}"):
                try:
                    await one.log_metric(name, 1.0)
                except aexp.InvalidName as error:
                    print(error)
            await one.log_metric("loss", 0.5)
            await one.log_artifact("model.bin", desc="{GITHUB}", labels=["{AMAZON}"], meta={{"api_key": "{WORD}"}})
            await one.make_checkpoint("checkpoint {JWT}")
            try:
                await one.run(["sh", "-c", "echo $MY_API_TOKEN >&2; exit 3", "--password", "{WORD}"], isolated=False, output="inherit")
            except aexp.CommandFailed as error:
                print(error)
        await asyncio.gather(bad(repository), kept(repository))
        try:
            repository.experiment("{GITHUB}")
        except aexp.InvalidName as error:
            print(error)
        for remote in ("https://me:{URL_WORD}@localhost:1/x.git", "ext::sh -c {GITHUB}", "nowhere?token={WORD}"):
            try:
                await repository.push("good", remote=remote)
            except aexp.AexpError as error:
                print(error)
        await repository.push("good", "bad")
        print(await repository.experiments(), await repository.diagnose())

async def bad(repository):
    try:
        async with repository.experiment("bad", params={{"password": "{WORD}"}}) as two:
            raise ValueError("cannot use {WORD} at https://me:{URL_WORD}@host/ with {ENVIRONMENT_WORD} and api_key='{RANDOM}'")
    except ValueError:
        pass

async def kept(repository):
    try:
        async with repository.experiment("kept", params={{"password": "{WORD}"}}, on_error="keep"):
            raise ValueError("{GITHUB} {JWT}")
    except ValueError:
        pass

asyncio.run(main(sys.argv[1]))
"""


def everything(path: Path, git: Git) -> Iterator[tuple[str, bytes]]:
    """Every file of a repository, and every object in it, inflated."""
    common = path if (path / "objects").is_dir() else path / ".git"
    for file in common.rglob("*"):
        if file.is_file():
            yield str(file.relative_to(common)), file.read_bytes()
    done = subprocess.run(
        ["git", "cat-file", "--batch-all-objects", "--batch"], cwd=path, capture_output=True, check=True
    )
    yield "the objects", done.stdout


def assert_hidden(found: Iterator[tuple[str, bytes]]) -> None:
    """No canary stands in what was found."""
    for name, content in found:
        for canary in CANARIES:
            assert canary.encode() not in content, f"{canary} stands in {name}"


def test_no_canary_is_written_anywhere(repo_path: Path, remote: Path, git: Git) -> None:
    """What looks like a secret, and came in by any door, stands in no file, no object, no remote and no output."""
    (repo_path / "model.bin").write_bytes(b"a model")
    environment = os.environ | {"MY_API_TOKEN": ENVIRONMENT_WORD, "PYTHONWARNINGS": "default"}
    program = repo_path.parent / "program.py"
    program.write_text(PROGRAM)

    done = subprocess.run(
        [sys.executable, program, repo_path, "--password", WORD],
        cwd=repo_path,
        env=environment,
        capture_output=True,
        check=False,
        timeout=50,
    )

    words = done.stderr.decode()
    assert done.returncode == 0, words
    assert "SecretRedacted: params.db.password looks like a secret" in words
    said = b"\n".join(line for line in done.stderr.splitlines() if line.strip() != ENVIRONMENT_WORD.encode())
    assert_hidden(iter([("stdout", done.stdout)]))
    shown = re.sub(rb"\n  .*", b"", said)  # Python shows the line of the program that a warning is about
    assert_hidden(iter([("stderr", shown)]))
    assert_hidden(everything(repo_path, git))
    assert_hidden(everything(remote, git))


async def test_what_is_no_secret_is_kept_beside_it(repo_path: Path) -> None:
    """In the place of a secret stands `***`; all around it is as it was given, and numbers and tokenizers are no secrets."""
    params = {
        "password": WORD,
        "lr": 0.1,
        "max_tokens": 512,
        "tokenizer": "bert",
        "pad_token": "<pad>",
        "sort_key": "loss",
    }
    async with aexp.Repository(repo_path) as repository:
        with pytest.warns(aexp.SecretRedacted, match=r"params\.password") as caught:
            experiment = repository.experiment("one", params=params)
        async with experiment:
            pass
        record = await repository.get("one")

    assert len(caught) == 1
    assert record.params == {**record.params, **params, "password": MARK}


async def test_a_secret_may_be_allowed_by_name(repo_path: Path) -> None:
    """What `Settings.allow_secrets` names is kept as it is, without a word; patterns reach into mappings."""
    settings = aexp.Settings(allow_secrets=("params.data.*", "message", "error"))
    async with aexp.Repository(repo_path, settings=settings) as repository:
        with pytest.raises(ValueError, match="x"):
            async with repository.experiment("one", params={"data": {"api_key": WORD}}, message=AMAZON):
                raise ValueError(f"x {GITHUB}")
        record = await repository.get("one")

    assert record.params["data"] == {"api_key": WORD}
    assert record.message == AMAZON
    assert record.error is not None
    assert GITHUB in record.error.message


async def test_a_secret_can_be_refused(
    repository: aexp.Repository, refs_of: Callable[..., Any], repo_path: Path
) -> None:
    """With the warning made an error nothing is begun, and a call in the middle changes nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", aexp.SecretRedacted)
        with pytest.raises(aexp.SecretRedacted):
            repository.experiment("one", params={"password": WORD})
        async with repository.experiment("two", params={"lr": 0.1}) as experiment:
            with pytest.raises(aexp.SecretRedacted):
                await experiment.set_params(api_key=WORD, lr=0.2)
            assert experiment.params == {"lr": 0.1}

    assert [ref.rpartition("/")[2] for ref in refs_of(repo_path)] == ["two"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"a {GITHUB} b", f"a {MARK} b"),
        (f"x={AMAZON};", f"x={MARK};"),
        (f"cookie {JWT}.", f"cookie {MARK}."),
        (PEM + "\nafter", f"{MARK}\nafter"),
        ("-----BEGIN PRIVATE KEY-----\nhalf", MARK),
        ("https://me:pa@ss@host/x?sig=abc&y=1", f"https://{MARK}@host/x?sig={MARK}&y=1"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("{'api_key': 'short', 'lr': 1}", f"{{'api_key': '{MARK}', 'lr': 1}}"),
        ("DB_PASSWORD=x1 next", f"DB_PASSWORD={MARK} next"),
        ("login --password open-sesame -v", f"login --password {MARK} -v"),
        ("run --tokenizer bert --sort-key loss", "run --tokenizer bert --sort-key loss"),
        ("def connect(password: str, token: str):", "def connect(password: str, token: str):"),
        ("password = os.environ['X']", "password = os.environ['X']"),
        (f"drawn {RANDOM} here", f"drawn {MARK} here"),
        ("d41d8cd98f00b204e9800998ecf8427e", "d41d8cd98f00b204e9800998ecf8427e"),
        ("2026-01-01_ResNet50_CIFAR10_bs128_lr0001", "2026-01-01_ResNet50_CIFAR10_bs128_lr0001"),
        ("Bearer abcdefghijklmnop", f"Bearer {MARK}"),
        ("Basic block of a network", "Basic block of a network"),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret(text: str, shown: str) -> None:
    """`aexp.redacted` takes out what looks like a secret, and leaves what programs are full of."""
    assert aexp.redacted(text) == shown
    assert aexp.redacted(shown) == shown


@pytest.mark.parametrize(
    "name", ["API_KEY", "apiKey", "aws_secret_access_key", "hf_token", "dbPassword", "credentials", "PASSPHRASE"]
)
def test_names_say_it(name: str) -> None:
    """A name like these makes a secret of a text that looks like one."""
    assert hides(name, "a1b2c3d4e5f6")


@pytest.mark.parametrize(
    "name", ["tokenizer", "max_tokens", "keypoints", "monkey", "n_passes", "compass", "author", "secretary"]
)
def test_other_names_do_not(name: str) -> None:
    """Names that only contain such a word are free."""
    assert not hides(name, "a1b2c3d4e5f6")


@given(st.text())
def test_redacting_ends_and_is_stable(text: str) -> None:
    """Any text can be redacted, and what is left is left by a second time."""
    once = aexp.redacted(text)

    assert aexp.redacted(once) == once


def test_redacting_long_text_takes_no_time() -> None:
    """A long hostile text is read in a moment: a traceback must not hold up the end of an experiment."""
    parts = (
        "key=",
        "a:",
        "://",
        "-----BEGIN ",
        "--a ",
        "eyJ",
        "a-",
        "a.",
        "A1b2C3",
        "?key",
        "key'",
        "eyJaaaaaaaa.",
        "-eyJa",
        "\n",
    )
    for part in parts:
        text = "key " + part * (200_000 // len(part)) + " key"
        started = time.perf_counter()
        aexp.redacted(text)
        assert time.perf_counter() - started < 10


def test_the_command_shows_none(repo_path: Path, git: Git) -> None:
    """Neither the error of a command nor its `--traceback` shows a password."""
    remote = f"https://me:{URL_WORD}@localhost:1/x.git"
    for words in (("push", "--traceback", "nothing", "--remote", remote), ("pull", remote, "--traceback")):
        done = subprocess.run(
            [sys.executable, "-m", "aexp_command", *words], cwd=repo_path, capture_output=True, check=False, timeout=50
        )
        assert done.returncode
        assert_hidden(iter([("the command's words", done.stdout + done.stderr)]))
    for verb in ("doctor", "list"):
        done = subprocess.run(
            [sys.executable, "-m", "aexp_command", verb], cwd=repo_path, capture_output=True, check=False, timeout=50
        )
        assert_hidden(iter([("the command's words", done.stdout + done.stderr)]))
