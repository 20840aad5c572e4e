"""Parameters that Hydra composes, where the DVC configuration says so, are those of `dvc exp run`."""

from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.utils.hydra import compose_and_dump

import aexp

CONFIG = {
    "conf/config.yaml": "defaults:\n  - db: mysql\n  - _self_\ntrain:\n  lr: 0.1 # a comment\n  name: ${db.driver}-run\n",
    "conf/db/mysql.yaml": "driver: mysql\nport: 3306\n",
    "conf/db/pg.yaml": "driver: pg\nport: 5432\n",
}


@pytest.fixture
def hydra_path(repo_path: Path, git: Callable[..., str]) -> Path:
    """A repository in which DVC is told to compose params.yaml."""
    for name, text in CONFIG.items():
        (repo_path / name).parent.mkdir(parents=True, exist_ok=True)
        (repo_path / name).write_text(text)
    (repo_path / ".dvc").mkdir(exist_ok=True)
    (repo_path / ".dvc" / "config").write_text("[hydra]\n    enabled = True\n")
    git("add", "--all", cwd=repo_path)
    git("commit", "--quiet", "--message=conf", cwd=repo_path)
    return repo_path


@pytest.mark.parametrize("overrides", [["db=pg", "train.lr=0.5"], ["+new=[1,x]"], ["~train.lr"], ["db.port=1"]])
async def test_the_composed_file_is_the_one_dvc_writes(hydra_path: Path, tmp_path: Path, overrides: list[str]) -> None:
    """Groups are chosen, interpolations resolved and values overridden as `dvc exp run -S` does it, byte for byte."""
    expected = tmp_path / "params.yaml"
    compose_and_dump(expected, str(hydra_path / "conf"), None, "config", str(hydra_path), overrides)
    async with aexp.Repository(hydra_path) as repository:
        async with repository.experiment("one", overrides=overrides) as experiment:
            pass

        assert await repository.read("one", "params.yaml") == expected.read_bytes()
    assert experiment.record is not None
    assert experiment.record.params["train"]["name"] in ("mysql-run", "pg-run")


@pytest.mark.parametrize(
    ("override", "reason"),
    [("db=nope", "Could not find 'db/nope'"), ("nope=1", "Could not override 'nope'"), ("train.lr=1,2", "a sweep")],
)
async def test_what_hydra_refuses_says_why(hydra_path: Path, override: str, reason: str) -> None:
    """The error has Hydra's words, and no experiment begins."""
    async with aexp.Repository(hydra_path) as repository:
        with pytest.raises(aexp.InvalidParams, match=reason):
            await repository.experiment("one", overrides=[override]).init()

        assert await repository.interrupted() == []


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("plugins_path = plugins", "would run code"),
        ("config_module = conf", "would run code"),
        ("config_dir = ../elsewhere", "leads out of the repository"),
        ("config_dir = nope", "there is no such folder"),
    ],
)
async def test_nothing_of_a_repository_is_run(hydra_path: Path, config: str, reason: str) -> None:
    """Modules and plugins of the repository are never imported, and nothing outside of it is read."""
    (hydra_path / ".dvc" / "config").write_text(f"[hydra]\n    enabled = True\n    {config}\n")
    async with aexp.Repository(hydra_path) as repository:
        with pytest.raises(aexp.InvalidParams, match=reason):
            await repository.experiment("one", overrides=["train.lr=1"]).init()


async def test_without_hydra_a_group_is_refused(repository: aexp.Repository) -> None:
    """Where the DVC configuration does not enable Hydra, there are no configuration groups."""
    with pytest.raises(aexp.InvalidParams, match="Hydra is not enabled"):
        await repository.experiment("one", overrides=["db/engine=pg"]).init()
