"""A pipeline of DVC swept over its parameters: handwritten digits, in four stages, two experiments at a time.

    python examples/pipeline_sweep.py [REPOSITORY]

Every experiment runs `dvc repro` in a private checkout of its own, with its own values in params.yaml; all share the
cache of DVC, so a stage whose inputs were seen before is not run again. The work tree of the repository stays as it is.
Needs `dvc` and scikit-learn.
"""

import os
import sys
from pathlib import Path

import anyio
from _playground import git, repositories

import aexp

AT_ONCE = 2
SWEEP = [(8, 10.0), (24, 0.1), (24, 10.0)]  # components, C
PARAMS = """\
prepare:
  seed: 0
  valid: 0.25  # the share that is kept for validation
featurize:
  components: 16
train:
  C: 1.0
  gamma: 0.05
"""
PIPELINE = """\
stages:
  prepare:
    cmd: python prepare.py ${prepare.seed} ${prepare.valid}
    deps: [prepare.py]
    params: [prepare]
    outs: [digits.npz]
  featurize:
    cmd: python featurize.py ${featurize.components}
    deps: [featurize.py, digits.npz]
    params: [featurize]
    outs: [features.npz]
  train:
    cmd: python train.py ${train.C} ${train.gamma}
    deps: [train.py, features.npz]
    params: [train]
    outs: [model.npz]
  evaluate:
    cmd: python evaluate.py ${train.gamma}
    deps: [evaluate.py, features.npz, model.npz]
    params: [train.gamma]
    metrics:
    - metrics.json:
        cache: false
    plots:
    - confusion.csv:
        cache: false
        template: confusion
        x: actual
        y: predicted
"""
PREPARE = """\
import sys
import numpy
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

images, labels = load_digits(return_X_y=True)
parts = train_test_split(images / 16, labels, test_size=float(sys.argv[2]), random_state=int(sys.argv[1]))
numpy.savez("digits.npz", **dict(zip(("x", "x_valid", "y", "y_valid"), parts)))
"""
FEATURIZE = """\
import sys
import numpy
from sklearn.decomposition import PCA

digits = dict(numpy.load("digits.npz"))
reduced = PCA(int(sys.argv[1]), random_state=0).fit(digits["x"])
for part in ("x", "x_valid"):
    digits[part] = reduced.transform(digits[part])
numpy.savez("features.npz", **digits)
"""
TRAIN = """\
import sys
import numpy
from sklearn.kernel_ridge import KernelRidge

features = numpy.load("features.npz")
wanted = numpy.eye(10)[features["y"]]
model = KernelRidge(alpha=1 / float(sys.argv[1]), kernel="rbf", gamma=float(sys.argv[2]))
numpy.savez("model.npz", weights=model.fit(features["x"], wanted).dual_coef_)
"""
EVALUATE = """\
import json, sys
import numpy
from sklearn.metrics import accuracy_score, f1_score
from sklearn.metrics.pairwise import rbf_kernel

features, weights = numpy.load("features.npz"), numpy.load("model.npz")["weights"]
scores = rbf_kernel(features["x_valid"], features["x"], gamma=float(sys.argv[1])) @ weights
guessed, actual = scores.argmax(axis=1), features["y_valid"]
with open("metrics.json", "w") as file:
    json.dump({"acc": accuracy_score(actual, guessed), "f1": f1_score(actual, guessed, average="macro")}, file)
with open("confusion.csv", "w") as file:
    file.write("actual,predicted\\n" + "".join(f"{a},{g}\\n" for a, g in zip(actual, guessed)))
"""
FILES = {
    "params.yaml": PARAMS,
    "dvc.yaml": PIPELINE,
    "prepare.py": PREPARE,
    "featurize.py": FEATURIZE,
    "train.py": TRAIN,
    "evaluate.py": EVALUATE,
    ".dvcignore": "",
}


async def add_pipeline(path: Path) -> None:
    """Put the pipeline into a commit, if the repository has none."""
    if (path / "dvc.yaml").exists():
        return
    await anyio.run_process(["dvc", "init", "--quiet"], cwd=path)
    for name, text in FILES.items():
        (path / name).write_text(text)
    git(path, "add", "--all")
    git(path, "commit", "--quiet", "--message=a pipeline of four stages")


async def run(repository: aexp.Repository, name: str, *overrides: str) -> None:
    """Run the pipeline with other values, as an experiment."""
    async with repository.experiment(name, overrides=overrides, force=True) as experiment:
        done = await experiment.run(["dvc", "repro"])
    said = done.stdout.decode()
    record = experiment.record
    assert record is not None
    print(
        f"{name:24} acc {record.metrics['acc']:.3f}   f1 {record.metrics['f1']:.3f}   "
        f"{said.count('Running stage')} stages run, {said.count('is cached')} from the cache"
    )


async def sweep(path: Path) -> None:
    """The pipeline as it is, then the values of the sweep, some at a time."""
    await add_pipeline(path)
    limiter = anyio.CapacityLimiter(AT_ONCE)

    async def trial(components: int, c: float) -> None:
        async with limiter:
            await run(repository, f"pca{components}-C{c}", f"featurize.components={components}", f"train.C={c}")

    async with aexp.Repository(path) as repository:
        await run(repository, "as-it-is")
        async with anyio.create_task_group() as tasks:
            for components, c in SWEEP:
                tasks.start_soon(trial, components, c)
        best = await repository.best("acc")
    print(f"the best is {best.name}; `dvc exp apply {best.name}` brings its files, and its model, into the work tree")


def main() -> None:
    """Sweep in the repository that is given, or in one that is made for it."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # where dvc and python are
    with repositories(sys.argv[1:]) as (path,):
        anyio.run(sweep, path)


if __name__ == "__main__":
    main()
