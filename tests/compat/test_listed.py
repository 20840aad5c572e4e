"""DVC lists experiments that aexp made as it lists its own (checks 1 to 5, 9, 13, 16 to 17, 44 to 49, 81)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import aexp


async def test_dvc_lists_name_and_commit(repo_path: Path, dvc: Callable[..., Any], cli: Callable[..., Any]) -> None:
    """`dvc exp list` shows name and rev as for its own, from the process and from the call alike."""
    async with aexp.Repository(repo_path) as repository, repository.experiment("one") as one:
        pass
    assert one.record is not None
    assert dvc("exp", "list", cwd=repo_path).out == f"main:\n\t{one.record.rev[:7]} [one]\n"
    assert cli("dvc", "exp", "list", cwd=repo_path).out == f"main:\n\t{one.record.rev[:7]} [one]\n"
    assert dvc("exp", "list", "--name-only", cwd=repo_path).out == "one\n"
    assert dvc("exp", "list", "--sha-only", cwd=repo_path).out == f"{one.record.rev}\n"
