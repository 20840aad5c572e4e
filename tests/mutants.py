"""Defects that the tests must notice: each is made in a copy of the project, where the tests it names must then fail.

`nox -s mutants` runs them, `python tests/mutants.py NAME ...` some of them. A defect is a text of ours replaced by another;
when that text is not there exactly once, `tests/test_mutants.py` says so.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

ROOT: Final = Path(__file__).parent.parent
LIMIT: Final = 300
"""Seconds that the tests of a mutant may take: a test that hangs has noticed it, too."""


@frozen
class Mutant:
    """A defect: in *file*, each text of *changes* becomes the one beside it; one of *tests* must fail."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]

    def applied(self, source: str) -> str:
        """Return the *source* of the file with the defect; raise `LookupError` where it cannot be made."""
        for old, new in self.changes:
            if source.count(old) != 1:
                raise LookupError(f"{self.name}: {self.file} holds this {source.count(old)} times:\n{old}")
            source = source.replace(old, new)
        return source


ORDER: Final = ("tests/faults/test_order.py",)
INSTANT: Final = (f"{ORDER[0]}::test_a_power_cut_at_any_instant_takes_nothing_that_was_promised",)
SECOND: Final = (f"{ORDER[0]}::test_who_comes_second_to_the_lock_looks_again",)
FORMAT: Final = ("tests/test_journal_format.py",)
SECRETS: Final = ("tests/test_secrets.py",)
WORKERS: Final = ("tests/test_workers.py",)
MOVED: Final = (f"{ORDER[0]}::test_a_ref_that_moved_meanwhile_is_left_alone",)

MUTANTS: Final = (
    # ---- the disk ----
    Mutant("no-folder-sync", "aexp/_files.py", (("        os.fsync(descriptor)\n", "        pass\n"),), INSTANT),
    Mutant(
        "ref-before-objects",
        "aexp/_store.py",
        (
            (
                "            values.result()\n            pack.verify()\n",
                "            pack.verify()\n",
            ),
            (
                "            refused = _refs.move_refs(self.handle, moves, scratch)\n",
                "",
            ),
            (
                "            pack = _packs.write_pack(self.handle.common, wanted, lambda id: objects[id][1], os.path.basename(scratch))\n        try:\n",
                ("            values.result()\n"
                "            refused = _refs.move_refs(self.handle, moves, scratch)\n"
                "            pack = _packs.write_pack(self.handle.common, wanted, lambda id: objects[id][1], os.path.basename(scratch))\n"
                "        try:\n"),
            ),
        ),
        INSTANT,
    ),
    Mutant(
        "journal-retired-before-the-ref",
        "aexp/_saver.py",
        (
            (
                "            answers = await self._worker.run(Store.save, jobs, self._folder)\n",
                ("            for request in requests:\n"
                '                self._journal.record(Kind.SAVED, [request.account.number, "0" * 40, request.final])\n'
                "            await self._journal.flush()\n"
                "            answers = await self._worker.run(Store.save, jobs, self._folder)\n"),
            ),
        ),
        INSTANT,
    ),
    Mutant(
        "flush-without-sync",
        "aexp/_journal.py",
        (("                    await self._call(self._syncing, sync, self._file.fileno())\n", "                    pass\n"),),
        INSTANT,
    ),
    Mutant(
        "ref-without-sync",
        "aexp/_files.py",
        (("        remove(path)\n        write_new(path, content)\n", "        replace(path, content)\n"),),
        INSTANT,
    ),
    Mutant(
        "pack-without-keep",
        "aexp/_packs.py",
        (('        os.rename(temporary[2], f"{path}.keep")\n', "        remove(temporary[2])\n"),),
        INSTANT,
    ),
    Mutant(
        "pack-without-sync",
        "aexp/_packs.py",
        (('        write_all(descriptor, b"".join(gathered))\n        sync(descriptor)\n', '        write_all(descriptor, b"".join(gathered))\n'),),
        INSTANT,
    ),
    Mutant(
        "failed-sync-is-tried-again",
        "aexp/_journal.py",
        (
            (
                "                    self._failed, self._barriers = True, barriers + self._barriers\n                    self._hurry()\n",
                "                    self._barriers = barriers + self._barriers\n                    self._unwritten.set()\n",
            ),
        ),
        ("tests/faults/test_journal_faults.py::test_a_file_whose_sync_failed_is_not_trusted",),
    ),
    Mutant(
        "errno-ignored",
        "aexp/_files.py",
        (
            ("    if number in _NO_DESCRIPTOR:\n        return TooManyOpenFiles(place)\n", ""),
        ),
        ("tests/faults/test_journal_faults.py::test_points_wait_for_a_free_descriptor",),
    ),
    # ---- what is read back ----
    Mutant(
        "no-checksum",
        "aexp/_formats/journal.py",
        (('    if line[:8] != b"%08x" % zlib.crc32(body, start):\n        return None\n', ""),),
        FORMAT,
    ),
    Mutant(
        "holes-are-read-over",
        "aexp/_formats/journal.py",
        (("            if sequence > self.sequence + (kind != Kind.SEGMENT):", "            if sequence > self.sequence + 10**9:"),),
        FORMAT,
    ),
    Mutant(
        "nan-through-orjson",
        "aexp/_formats/series.py",
        (("    if isfinite(sum(values)):\n        return values", "    if values is not None:\n        return values"),),
        ("tests/test_series.py",),
    ),
    Mutant(
        "points-in-another-order",
        "aexp/_formats/batch.py",
        (("                data += (step, value)\n", "                data[:0] = (step, value)\n"),),
        ("tests/test_journal_format.py", "tests/test_logging.py"),
    ),
    Mutant(
        "counted-steps-overtake",
        "aexp/_formats/batch.py",
        (("                    entries += self._settled()\n                    entries.append", "                    entries.append"),),
        FORMAT,
    ),
    # ---- others ----
    Mutant(
        "looks-before-it-locks",
        "aexp/_refs.py",
        (
            ("    locked = f\"{path}.lock\"\n    for pause", "    locked = f\"{path}.lock\"\n    found = read_ref(handle, move.ref)\n    for pause"),
            ("        found = read_ref(handle, move.ref)\n        if found == move.new:", "        if found == move.new:"),
        ),
        SECOND,
    ),
    Mutant(
        "old-value-ignored-in-changes",
        "aexp/_refs.py",
        ((r'    orders = "".join(f"{verb} {ref}\0{rev}\0" for verb, ref, rev in lines)', r'    orders = "".join(f"{verb} {ref}\0{rev if verb == "create" else ""}\0" for verb, ref, rev in lines)'.replace('"create"', "'create'").replace('""}', "''}")),),
        MOVED,
    ),
    Mutant(
        "living-sessions-are-recovered",
        "aexp/_files.py",
        (("            if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN):\n                return None\n            raise\n", "            return os.open(path, os.O_RDONLY)\n"),),
        ("tests/faults/test_races.py::test_what_a_living_process_holds_cannot_be_resumed",),
    ),
    Mutant(
        "no-close-in-a-forked-child",
        "aexp/_repository.py",
        (("        os.register_at_fork(after_in_child=lambda: _let_go(ours))\n", "        del ours\n"),),
        ("tests/faults/test_races.py::test_a_forked_child_does_not_keep_its_parents_session",),
    ),
    Mutant(
        "a-forked-child-logs",
        "aexp/_journal.py",
        (("        ours._refusal, ours.limit, ours._loop = ForkedError(), 0, None\n", "        ours._loop = None\n"),),
        ("tests/test_journal.py::test_a_forked_child_is_told_and_harms_nobody",),
    ),
    # ---- cancellation ----
    Mutant(
        "the-shield-of-anyio-only",
        "aexp/_workers.py",
        (("            except asyncio.CancelledError as error:\n                cancelled = error\n    return cancelled\n", "            except asyncio.CancelledError:\n                raise\n    return cancelled\n"),),
        WORKERS,
    ),
    Mutant(
        "cancelled-calls-are-left-alone",
        "aexp/_workers.py",
        (("        if withdraw():\n            raise\n        raise _with_failure(await wait_through(future) or error, future) from None\n", "        withdraw()\n        raise\n"),),
        WORKERS,
    ),
    # ---- trust ----
    Mutant(
        "names-of-secrets-are-not-looked-at",
        "aexp/_secrets.py",
        (("    kind = _kind_of(name)\n    if kind", '    kind = ""\n    if kind'),),
        SECRETS,
    ),
    Mutant(
        "exceptions-keep-secrets",
        "aexp/_outcome.py",
        (('censor.redacted(text.encode("utf-8", "backslashreplace").decode(), "error")', 'text.encode("utf-8", "backslashreplace").decode()'),),
        SECRETS,
    ),
    Mutant("errors-show-secrets", "aexp/errors.py", (("        return redacted(super().__str__())\n", "        return super().__str__()\n"),), SECRETS),
    Mutant(
        "links-are-followed",
        "aexp/_beneath.py",
        (("_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC", "_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC"),),
        ("tests/test_apply_hostile.py",),
    ),
    Mutant(
        "any-path-is-a-work-tree's",
        "aexp/_names.py",
        (('        if segment in ("", ".", ".."):\n            return "a part of it is empty', '        if segment == "":\n            return "a part of it is empty'),),
        ("tests/test_apply_hostile.py",),
    ),
)  # fmt: skip


def run(tests: Sequence[str], place: Path) -> tuple[int, str]:
    """Run *tests* in the copy at *place*, whose package is the one that is imported; return pytest's code and words."""
    variables = os.environ | {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests]
    try:
        done = subprocess.run(
            command, cwd=place, env=variables, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, "it hangs"
    return done.returncode, done.stdout[-3000:] + done.stderr[-1000:]


def copy_to(place: Path) -> None:
    """Copy what the tests need to *place*."""
    for name in ("aexp", "tests"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("aexp_command.py", "pyproject.toml"):
        shutil.copy(ROOT / name, place / name)


def main(names: Sequence[str]) -> int:
    """Make each mutant and say whether the tests noticed it; return how many lived, or could not be judged."""
    wanted = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    with tempfile.TemporaryDirectory(prefix="aexp-mutants-") as folder:
        place = Path(folder)
        copy_to(place)
        code, words = run(sorted({test for mutant in wanted for test in mutant.tests}), place)
        if code:
            print(f"the tests fail without any mutant:\n{words}")
            return len(wanted)
        lived = []
        for mutant in wanted:
            file, started = place / mutant.file, time.monotonic()
            sound = file.read_text()
            file.write_text(mutant.applied(sound))
            code, words = run(mutant.tests, place)
            file.write_text(sound)
            caught = next((line for line in words.splitlines() if line.startswith(("FAILED", "ERROR"))), "")[:110]
            print(
                f"{'killed' if code == 1 else 'LIVES '} {mutant.name:38} {time.monotonic() - started:5.1f} s  {caught}",
                flush=True,
            )
            if code != 1:
                print(words)
                lived.append(mutant.name)
    print(
        f"{len(wanted) - len(lived)} of {len(wanted)} mutants were noticed"
        + (f"; not {', '.join(lived)}" if lived else "")
    )
    return len(lived)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
