"""A sweep of 26 models of handwritten digits, trained at once on one event loop, each an experiment of its own.

    python examples/digits_sweep.py [REPOSITORY]

Training steps run in worker threads, as many as there are cores; the event loop starts them and logs what they return.
One model diverges and fails, one is cancelled when the others have ended, and both are recorded as what happened.
"""

import hashlib
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import anyio
import anyio.to_thread
import numpy
from _playground import git, repositories
from attrs import frozen
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

import aexp

EPOCHS = 60
CLASSES = numpy.arange(10)
DIVERGED = 10.0  # a guess costs ln(10) = 2.3; a loss far above it never comes back


@frozen
class Trial:
    """What one experiment tries: a linear model (`hidden` is 0), or a network with one layer of `hidden` units."""

    name: str
    lr: float
    hidden: int = 0
    epochs: int = EPOCHS


@frozen(eq=False)
class Digits:
    """The data, in two parts."""

    images: numpy.ndarray
    labels: numpy.ndarray
    valid_images: numpy.ndarray
    valid_labels: numpy.ndarray


LINEAR = [Trial(f"linear-lr{lr}", lr) for lr in (0.001, 0.01, 0.1, 1.0)]
NETWORKS = [
    Trial(f"mlp{hidden}-lr{lr}", lr, hidden) for hidden in (16, 32, 64, 128) for lr in (0.001, 0.003, 0.01, 0.03, 0.1)
]
DIVERGING = Trial("mlp32-diverges", 100, 32)
ENDLESS = Trial("mlp64-endless", 0.01, 64, epochs=1_000_000)


def load() -> Digits:
    """The digits of scikit-learn, scaled to 0..1; one in four is kept for validation."""
    images, labels = load_digits(return_X_y=True)
    train, valid, train_labels, valid_labels = train_test_split(images / 16, labels, random_state=0)
    return Digits(train, train_labels, valid, valid_labels)


def build(trial: Trial) -> MLPClassifier | SGDClassifier:
    """The untrained model of `trial`."""
    if trial.hidden:
        return MLPClassifier((trial.hidden,), solver="sgd", learning_rate_init=trial.lr, batch_size=32, random_state=0)
    return SGDClassifier(loss="log_loss", learning_rate="constant", eta0=trial.lr, random_state=0)


def train_epoch(model: MLPClassifier | SGDClassifier, digits: Digits) -> dict[str, float]:
    """Train for one epoch, in a worker thread, and measure."""
    model.partial_fit(digits.images, digits.labels, classes=CLASSES)
    probabilities = model.predict_proba(digits.valid_images)
    return {
        "loss": log_loss(digits.valid_labels, probabilities, labels=CLASSES),
        "accuracy": numpy.mean(probabilities.argmax(axis=1) == digits.valid_labels),
    }


async def train(repository: aexp.Repository, trial: Trial, digits: Digits, cores: anyio.CapacityLimiter) -> None:
    """Train the model of `trial` as an experiment (a second sweep replaces those of the first).

    Raises FloatingPointError when the model diverges.
    """
    params = {"lr": trial.lr, "model": {"hidden": trial.hidden}, "epochs": trial.epochs}
    async with repository.experiment(trial.name, params=params, tags=["digits"], force=True) as experiment:
        model = build(trial)
        for epoch in range(trial.epochs):
            metrics = await anyio.to_thread.run_sync(train_epoch, model, digits, limiter=cores)
            await experiment.log_metrics(metrics, step=epoch)
            if metrics["loss"] > DIVERGED:
                raise FloatingPointError(f"the loss is {metrics['loss']:.1f} after epoch {epoch}")
            if epoch == trial.epochs // 2:
                await experiment.make_checkpoint("half-way")


async def train_diverging(repository: aexp.Repository, digits: Digits, cores: anyio.CapacityLimiter) -> None:
    """Train a model that fails; the error arrives here as it was raised, after the experiment was saved as failed."""
    try:
        await train(repository, DIVERGING, digits, cores)
    except FloatingPointError as error:
        print(f"{DIVERGING.name} failed, as it should: {error}")


async def sweep(repository: aexp.Repository) -> None:
    """Train every model at once, and cancel the endless one when all others have ended."""
    digits, cores = load(), anyio.CapacityLimiter(os.cpu_count() or 1)
    async with anyio.create_task_group() as unending:
        unending.start_soon(train, repository, ENDLESS, digits, cores)
        async with anyio.create_task_group() as trials:
            trials.start_soon(train_diverging, repository, digits, cores)
            for trial in LINEAR + NETWORKS:
                trials.start_soon(train, repository, trial, digits, cores)
        unending.cancel_scope.cancel()


def state(path: Path) -> dict[str, str]:
    """Everything of the user's that a sweep must leave alone."""
    index = path / git(path, "rev-parse", "--git-path", "index")
    return {
        "HEAD": git(path, "rev-parse", "HEAD"),
        "branch": git(path, "branch", "--show-current"),
        "index": hashlib.sha256(index.read_bytes()).hexdigest()[:40],
        "work tree": git(path, "--no-optional-locks", "status", "--porcelain"),
    }


def print_records(records: Iterable[aexp.Record]) -> None:
    """A line for each record."""
    print(f"\n{'name':<18}{'status':<11}{'lr':>9}{'hidden':>8}{'loss':>10}{'accuracy':>10}{'checkpoints':>13}  error")
    for record in records:
        loss, accuracy = (record.metrics.get(name, float("nan")) for name in ("loss", "accuracy"))
        print(
            f"{record.name:<18}{record.status:<11}{record.params['lr']:>9g}{record.params['model']['hidden']:>8}"
            f"{loss:>10.4f}{accuracy:>10.4f}{len(record.checkpoints):>13}  {record.error.type if record.error else ''}"
        )


def print_state(before: dict[str, str], after: dict[str, str]) -> None:
    """What the sweep left alone."""
    print("\nthe repository of the user, before and after:")
    for name, value in before.items():
        print(f"  {name:<10}{'unchanged' if value == after[name] else 'CHANGED':<11}{after[name] or '(clean)'}")


async def main(path: Path) -> int:
    """Sweep in the repository at `path` and show what stands in it afterwards; 1 if the user's state has changed."""
    before, start = state(path), time.perf_counter()
    async with aexp.Repository(path) as repository:
        await sweep(repository)
        seconds = time.perf_counter() - start
        records = [record for record in await repository.experiments(baseline="HEAD") if "digits" in record.tags]
    after = state(path)
    records.sort(key=lambda record: record.metrics["accuracy"], reverse=True)
    best = next(record for record in records if record.status is aexp.Status.FINISHED)

    print_records(records)
    print(f"\n{len(records)} experiments in {seconds:.1f} s")
    print(f"best: {best.name}, accuracy {best.metrics['accuracy']:.4f}, commit {best.rev}")
    print("\n$ git for-each-ref refs/exps")
    print(git(path, "for-each-ref", "refs/exps"))
    print_state(before, after)
    return int(before != after)


if __name__ == "__main__":
    with threadpool_limits(limits=1), repositories(sys.argv[1:2]) as paths:  # one core for each model: no BLAS threads
        if len(sys.argv) == 1:
            (paths[0] / "train.py").write_text('print("a change that is not committed")\n')  # every experiment keeps it
        sys.exit(anyio.run(main, paths[0]))
