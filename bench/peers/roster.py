"""Who is measured: each tracker, what is installed for it, and the adapter that speaks to it."""

from collections.abc import Mapping

from attrs import frozen

OURS = "aexp"


@frozen
class Peer:
    """A tracker, or a way to use one. `requires` is installed into an environment of its own, named `environment`."""

    label: str
    adapter: str
    environment: str
    requires: tuple[str, ...] = ()
    imports: str = ""

    @property
    def distribution(self) -> str | None:
        """Whose version is told; None for no package at all."""
        return self.requires[0] if self.requires else None


DVC, MLFLOW = ("dvc",), ("mlflow",)
PEERS: Mapping[str, Peer] = {
    OURS: Peer("aexp", "of_aexp:Aexp", "aexp", ("aexp",), "aexp"),
    "plain": Peer("plain loop of JSON lines", "of_plain:Plain", "plain"),
    "dvc": Peer("DVC (`dvc.api`)", "of_dvc:Dvc", "dvc", DVC, "dvc.api"),
    "dvclive": Peer("DVCLive", "of_dvclive:DvcLive", "dvclive", ("dvclive", *DVC), "dvclive"),
    "dvclive_apart": Peer("DVCLive, no DVC experiments", "of_dvclive:DvcLiveApart", "dvclive", ("dvclive", *DVC)),
    "mlflow": Peer("MLflow (SQLite)", "of_mlflow:Mlflow", "mlflow", MLFLOW, "mlflow"),
    "mlflow_batches": Peer("MLflow, 1,000 points a call", "of_mlflow:MlflowBatches", "mlflow", MLFLOW),
    "trackio": Peer("trackio", "of_trackio:Trackio", "trackio", ("trackio",), "trackio"),
    "wandb": Peer("W&B offline", "of_wandb:Wandb", "wandb", ("wandb",), "wandb"),
    "tensorboard": Peer(
        "tensorboardX", "of_tensorboard:TensorBoard", "tensorboard", ("tensorboardX", "tensorboard"), "tensorboardX"
    ),
}
SAVES_TO_GIT = {OURS, "dvc", "dvclive", "dvclive_apart"}
"""Whose earlier experiments aexp makes, where many are needed: DVC would take half an hour, and reads ours."""
