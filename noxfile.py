"""Every check and every tool of the project, by name: `nox -l` lists them, `nox` runs the checks."""

import nox

nox.options.sessions = ["house", "types", "examples", "tests", "compat", "remotes", "faults"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
TWO = ("-n", "2", "--dist", "worksteal")
ELSEWHERE = (
    "--ignore=tests/test_examples.py",
    "--ignore=tests/test_readme.py",
    "--ignore=tests/remotes",
    "--ignore=tests/faults",
)
"""What sessions of their own run."""


def run_tests(session: nox.Session) -> None:
    """Install the library and run its tests, or what stands behind `--` instead."""
    session.install("-e", ".[tests]")
    session.run("pytest", *(session.posargs or (*TWO, "-m", "not slow and not compat", *ELSEWHERE)))


@nox.session
def house(session: nox.Session) -> None:
    """Form and floors: formatting, lint, import contracts, budgets."""
    session.install("-e", ".[house,tests]")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")
    session.run("pytest", "-q", "tests/test_house.py")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types inside, complete types at the door."""
    session.install("-e", ".[types,tests]")
    session.run("mypy", "aexp", "aexp_command.py", "tests")
    session.run("pyright", "--ignoreexternal", "--verifytypes", "aexp")


@nox.session
def examples(session: nox.Session) -> None:
    """The README and the examples do what they say; one of these runs pipelines of DVC."""
    session.install("-e", ".[bench,examples,tests]")
    session.run("pytest", "-q", "tests/test_readme.py", "tests/test_examples.py")


@nox.session
def tests(session: nox.Session) -> None:
    """What the library promises, but for what takes long."""
    run_tests(session)


@nox.session
def compat(session: nox.Session) -> None:
    """What the real DVC and DVCLive make of our experiments, and we of theirs."""
    session.install("-e", ".[tests,compat]")
    session.run("pytest", *(session.posargs or (*TWO, "-m", "compat", *ELSEWHERE)))


@nox.session
def remotes(session: nox.Session) -> None:
    """Push and pull over every kind of Git server, with hostile ones, and over lines that are cut."""
    session.install("-e", ".[tests,compat]")
    session.run("sh", "tests/remotes/packages.sh", external=True)
    session.run("pytest", *(session.posargs or (*TWO, "tests/remotes")))


@nox.session
def faults(session: nox.Session) -> None:
    """Killed programs, full disks, broken disks, cancellation and races, wherever they can come."""
    session.install("-e", ".[tests,compat]")
    session.run("pytest", *(session.posargs or (*TWO, "-m", "not slow", "tests/faults")))


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Defects made in a copy, one by one: the tests that are named for each must notice; `-- NAME` makes one."""
    session.install("-e", ".[tests]")
    session.run("python", "tests/mutants.py", *session.posargs)


@nox.session(default=False)
def long(session: nox.Session) -> None:
    """What takes long: a kill, a power cut and a refusal at every single step, thousands of random trees, ten gigabytes."""
    session.install("-e", ".[tests]")
    session.run("pytest", *(session.posargs or (*TWO, "-m", "slow and not compat", *ELSEWHERE[:-1])))


@nox.session(python=PYTHONS, default=False)
def pythons(session: nox.Session) -> None:
    """The same tests on every Python that is installed here."""
    run_tests(session)


@nox.session(default=False)
def demo(session: nox.Session) -> None:
    """26 models trained at once, each an experiment of its own, in a repository made for it."""
    session.install("-q", "-e", ".[examples]")
    session.run("python", "examples/digits_sweep.py", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """What a call costs, as a ratio to the least it could cost on this machine; fails when one got 1.3 x worse."""
    session.install("-e", ".[bench,cli]")
    session.run("python", "bench/ratios.py", *session.posargs)


@nox.session(name="bench-scale", default=False)
def bench_scale(session: nox.Session) -> None:
    """What a call costs as the repository grows to 100,000 experiments, and what 100 million points need; an hour."""
    session.install("-e", ".")
    session.run("python", "bench/scale.py", *session.posargs)


@nox.session(name="bench-peers", default=False)
def bench_peers(session: nox.Session) -> None:
    """The same work for aexp and its peers, each in an environment of its own; then the page and the plot of it."""
    session.install("attrs", "matplotlib", "pip")
    environments = session.cache_dir / "peers"
    session.run("python", "bench/peers/run.py", "--environments", str(environments), *session.posargs)
    session.run("python", "bench/peers/page.py")
    session.run("python", "bench/peers/plot.py")
