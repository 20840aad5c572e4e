"""Long children of `git`: fed, heard, and ended whole."""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from aexp._children import Limits, Said, converse, outside
from aexp._git import Handle, environment, open_handle

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc to find children in")

LONG = Limits(30.0, 30.0)
GROUP = f"{sys.executable} -S -c 'import os; print(os.getpgid(0))'"


@pytest.fixture
def handle(repo_path: Path) -> Handle:
    """The fresh repository."""
    return open_handle(str(repo_path))


def script(handle: Handle, shell: str, **options: Any) -> Said:
    """Run *shell* as a command of git's, and so as a grandchild of ours."""
    given: dict[str, Any] = {"extra": {}, "limits": LONG, "stopped": lambda: False} | options
    return converse(handle, "-c", f"alias.tell=!{shell}", "tell", **given)


def living(group: int) -> list[str]:
    """The processes of this group that run; those that have ended and wait to be reaped do not count."""
    stats = [each.read_text() for each in Path("/proc").glob("[0-9]*/stat") if each.exists()]
    fields = [each.rpartition(")")[2].split() for each in stats]
    return [state for state, _, its_group, *_ in fields if int(its_group) == group and state not in "ZX"]


def test_a_child_is_heard(handle: Handle) -> None:
    """What a child prints comes back whole, and its standard error line by line, also what is written over."""
    lines: list[str] = []
    said = script(handle, r"cat; printf 'a 1\ra 2\rb\nlast' >&2; exit 3", input=b"x" * 300_000, heard=lines.append)
    assert (said.ending, said.code) == ("exit", 3)
    assert said.out == b"x" * 300_000
    assert lines == ["a 1", "a 2", "b", "last"]
    assert said.words == "a 1\ra 2\rb\nlast\n"


def test_a_child_need_not_read_its_input(handle: Handle) -> None:
    """A child that ends before it has read what it is fed is no failure of ours."""
    assert script(handle, "exit 0 && :", input=b"x" * 3_000_000).code == 0


@pytest.mark.parametrize("shell", ["sleep 60", "trap '' TERM; sleep 60; sleep 60", "sleep 60 & sleep 60 & wait"])
def test_a_child_is_stopped_with_all_that_it_started(handle: Handle, tmp_path: Path, shell: str) -> None:
    """Told to stop, a child ends within its grace, by force if it must, and so does every process that it started."""
    stop, told = threading.Event(), tmp_path / "group"
    threading.Timer(0.8, stop.set).start()
    begun = time.monotonic()
    said = script(handle, f"{GROUP} > {told}; {shell}", stopped=stop.is_set)
    assert said.ending == "stopped"
    assert time.monotonic() - begun < 5
    end = time.monotonic() + 5  # a process that is killed ends when the machine comes to it
    while living(int(told.read_text())) and time.monotonic() < end:
        time.sleep(0.01)
    assert living(int(told.read_text())) == []


def test_a_silent_child_is_ended(handle: Handle) -> None:
    """A child that says nothing for too long is ended: before its first word, or after it."""
    begun = time.monotonic()
    assert script(handle, "sleep 60", limits=Limits(0.3, 30.0)).ending == "silent"
    said = script(handle, "echo begun >&2; sleep 60", limits=Limits(30.0, 0.3))
    assert (said.ending, said.words.strip()) == ("silent", "begun")
    assert time.monotonic() - begun < 10


def test_a_child_that_goes_on_speaking_is_left_alone(handle: Handle) -> None:
    """The limit is for silence: a child that says a word now and then may take as long as it needs."""
    said = script(handle, "for i in 1 2 3 4 5 6; do echo $i >&2; sleep 0.2; done", limits=Limits(1.0, 0.8))
    assert (said.ending, said.code) == ("exit", 0)


def test_a_flood_is_cut_off(handle: Handle) -> None:
    """A child that prints without end is ended when it has printed more than is wanted of it."""
    said = script(handle, "yes", limits=Limits(30.0, 30.0, output=1_000_000))
    assert said.ending == "flood"
    assert len(said.out) < 2_000_000


def test_what_a_child_leaves_running_does_not_hold_us(handle: Handle) -> None:
    """A process that a child leaves in the background, as an ssh master, may keep its output open: we do not wait for it."""
    begun = time.monotonic()
    said = script(handle, "echo done; sleep 3 & exit 0 && :")
    assert (said.ending, said.out) == ("exit", b"done\n")
    assert time.monotonic() - begun < 2


def test_a_child_has_no_terminal_and_no_descriptor_of_ours(handle: Handle) -> None:
    """A child leads a session of its own, without a terminal to prompt on, and inherits no descriptor; ours are closed."""
    before = len(os.listdir("/proc/self/fd"))
    said = script(handle, f"{GROUP}; (exec </dev/tty) 2>/dev/null || echo no terminal")
    assert int(said.out.split()[0]) not in (os.getpgid(0), os.getsid(0))
    assert b"no terminal" in said.out
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("variables", "ssh", "command"),
    [
        ({}, None, "ssh -o BatchMode=yes -o ConnectTimeout=60"),
        ({"GIT_SSH_COMMAND": "ssh -i key"}, "ssh -v", "ssh -i key -o BatchMode=yes -o ConnectTimeout=60"),
        ({}, "/usr/bin/ssh -p 2", "/usr/bin/ssh -p 2 -o BatchMode=yes -o ConnectTimeout=60"),
        ({"GIT_SSH_COMMAND": "plink -batch"}, None, "plink -batch"),
        ({"GIT_SSH": "/opt/wrapper"}, None, None),
        ({}, "tortoiseplink", None),
    ],
)
def test_ssh_never_prompts(
    variables: dict[str, str], ssh: str | None, command: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSH runs in BatchMode with the user's options; a program that is not OpenSSH is given no option of OpenSSH's."""
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    assert environment(outside(variables, ssh, 60.0)).get("GIT_SSH_COMMAND") == command
    assert environment(outside(variables, ssh, 60.0))["SSH_ASKPASS_REQUIRE"] == "never"


def test_what_a_remote_needs_of_the_environment_stays() -> None:
    """Proxies, certificates and settings given by variables reach a git that speaks to a remote; what misleads it does not."""
    kept = {
        "GIT_SSL_CAINFO": "/ca.pem",
        "GIT_PROXY_COMMAND": "proxy",
        "GIT_HTTP_USER_AGENT": "x",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "http.extraHeader",
        "GIT_CONFIG_VALUE_0": "Authorization: x",
        "GIT_ASKPASS": "/ci/askpass",
    }
    lost = {"GIT_DIR": "/x", "GIT_INDEX_FILE": "/x", "GIT_CONFIG_PARAMETERS": "'a=b'", "GIT_TRACE": "1"}
    found = outside(kept | lost, None, 60.0)
    assert {key: found.get(key) for key in kept} == kept
    assert not lost.keys() & found.keys()
    assert outside({}, None, 60.0)["GIT_ASKPASS"] == ""
    assert outside({"GIT_ALLOW_PROTOCOL": "https:ext:ssh"}, None, 60.0)["GIT_ALLOW_PROTOCOL"] == "https:ssh"
