"""An environment for each tracker, installed once, and processes in it that see no network."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from roster import OURS, Peer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NOWHERE = "http://127.0.0.1:9"
OFFLINE = {
    **{f"{scheme}_proxy": NOWHERE for scheme in ("http", "https", "all", "HTTP", "HTTPS", "ALL")},
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "DVC_STUDIO_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_ERROR_REPORTING": "false",
}
"""Whoever speaks to the network nevertheless fails at once. Telemetry, banners and dashboards are off."""
VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


@frozen
class Environments:
    """The folder that holds them; None: everything is in the environment that runs this."""

    folder: Path | None

    def python(self, peer: Peer) -> str:
        """The interpreter that has the packages of `peer`."""
        return sys.executable if self.folder is None else str(self.folder / peer.environment / "bin" / "python")

    def prepare(self, peer: Peer) -> None:
        """Make the environment and install into it, unless that was done; ours, too, when a file of it has changed."""
        if self.folder is None:
            return
        place = self.folder / peer.environment
        done = place / "installed.json"
        if not done.exists() or json.loads(done.read_text()) != list(peer.requires):
            subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(place)], check=True)
        elif peer.environment != OURS or all(
            file.stat().st_mtime < done.stat().st_mtime for file in (ROOT / "aexp").rglob("*.py")
        ):
            return
        requires = [str(ROOT) if name == OURS else name for name in peer.requires]
        if requires:
            print(f"installing {' '.join(peer.requires)}", flush=True)
            pip = [sys.executable, "-m", "pip", "--python", self.python(peer), "install", "--quiet"]
            again = ["--force-reinstall", "--no-deps"] if done.exists() else []
            subprocess.run([*pip, "--disable-pip-version-check", *again, *requires], check=True)
        done.write_text(json.dumps(list(peer.requires)))

    def versions(self, peer: Peer) -> dict[str, str]:
        """The version of each package that was asked for."""
        command = [self.python(peer), "-c", VERSIONS, *peer.requires]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    def run(self, peer: Peer, verb: str, subject: str, case: Mapping[str, int], folder: Path) -> Any:
        """Do one job in a fresh process whose current folder is `folder`; return what it measured."""
        answer = folder.parent / "answer.json"
        job = json.dumps({"adapter": peer.adapter, "imports": peer.imports, "case": case})
        home = folder.parent / "home"
        home.mkdir(exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "PYTHON"))}
        environment |= {**OFFLINE, "HOME": str(home), "TRACKIO_DIR": str(folder / "trackio")}
        command = [self.python(peer), str(HERE / "worker.py"), verb, subject, job, str(answer)]
        os.sync()
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(
                f"{peer.label}, {verb} {subject} {dict(case)} ended with {done.returncode}:\n{done.stderr}"
            )
        return json.loads(answer.read_text())
