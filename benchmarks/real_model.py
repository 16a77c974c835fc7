"""Claim: RISEN makes a real model follow instructions, and leaves it as it is at all else.

Trains MODEL in several ways at equal rollouts, on plain prompts of the package to which the
generator ``constraints`` adds, and measures each beside the model as it was: IFEval by our checks
and by lm-eval's and IFBench where its package is installed, of the bundle in fp32 and in int8, and
retention. None of the training prompts is one of IFEval's or IFBench's
(``risen_plugin/instructions/plain/PROVENANCE.md``). Every stage leaves
its numbers in OUT, and is not done again where they are.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from benchmarks import ifbench, ifeval
from benchmarks.shared import ROOT, machine, print_table, threads_option
from risen_plugin.kit.files import write_json

BASE = "base"
SETTINGS: Mapping[str, str] = {
    # Named, so that a run does not hang on how busy the machine was when it was chosen.
    "risen.rollout": '{"use": "onnx", "options": {"precision": "int8-fast"}}',
}
"""What RISEN's arm sets; all else are the defaults of ``risen adapt``."""
ON_A_GPU: Mapping[str, str] = {
    "risen.grpo.per_device_train_batch_size": "32",
    "risen.grpo.gradient_accumulation_steps": "2",
    "risen.grpo.use_transformers_continuous_batching": "true",
    "risen.rollout": "transformers",
}
"""What is set otherwise where there is a GPU."""
WITHOUT: Mapping[str, Mapping[str, str]] = {
    "no-curriculum": {"risen.curriculum": "null"},
    "no-mending": {"risen.mending": "null"},
    "no-engine": {"risen.rollout": "transformers"},
}
"""RISEN with something taken away, by arm."""
ARMS = {
    BASE: "the model as it was",
    "risen": "RISEN",
    **{name: f"RISEN, {name.replace('no-', 'without ')}" for name in WITHOUT},
    "trl": "stock GRPOTrainer, the same reward",
    "best-answers": "fine-tuning on its own best answers",
}
SHORT_ROWS = 6
_GSM8K = ROOT.parent / "shared" / "data" / "gsm8k_test.jsonl"
Numbers = dict[str, Any]


class Stages:
    """What was measured, one file for each stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def done(self, name: str, work: Callable[[], Numbers]) -> Numbers:
        """The numbers of a stage: those that lie there, or those of doing it now."""
        path = self.folder / f"{name}.json"
        if not path.is_file():
            began = time.monotonic()
            click.echo(f"{name} ...", err=True)
            made = work()
            made["stage_seconds"] = round(time.monotonic() - began, 1)
            made["machine"] = machine()
            write_json(path, made)
        read: Numbers = json.loads(path.read_text("utf-8"))
        return read


@click.command()
@click.option(
    "--model",
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder, such as SmolLM2-135M-Instruct's.",
)
@click.option("--out", default="out/real-model", type=click.Path(path_type=Path), show_default=True)
@click.option("--ifeval", "ifeval_file", type=click.Path(path_type=Path), default=ifeval.IFEVAL)
@click.option("--gsm8k", type=click.Path(path_type=Path), default=_GSM8K)
@click.option("--arms", default="base,risen,trl,best-answers", show_default=True)
@click.option("--seeds", default=2, show_default=True)
@click.option("--steps", default=25, show_default=True, help="GRPO steps of 32 rollouts.")
@click.option("--precisions", default="fp32,int8", show_default=True, help="Of the bundles.")
@click.option("--set", "pairs", multiple=True, help="Of RISEN's arms, as risen adapt takes it.")
@click.option("--tokens", default=ifeval.TOKENS, show_default=True, help="Of a measured answer.")
@click.option("--short", is_flag=True, help="Two steps and few rows: does it run?")
@threads_option
def main(  # noqa: PLR0917  click passes them by name
    model: Path,
    out: Path,
    ifeval_file: Path,
    gsm8k: Path,
    arms: str,
    seeds: int,
    steps: int,
    precisions: str,
    pairs: tuple[str, ...],
    tokens: int,
    short: bool,
    threads: int,
) -> None:
    """Train, export and measure a real model in several ways."""
    if not ifeval_file.is_file():
        raise click.ClickException(
            f"{ifeval_file} is not there; give IFEval's rows with --ifeval FILE: JSON Lines with "
            "prompt, instruction_id_list and kwargs"
        )
    chosen = arms.split(",")
    odd = [name for name in chosen if name not in ARMS]
    if odd:
        raise click.ClickException(f"no arm '{odd[0]}'; choose from: {', '.join(ARMS)}")
    rows = ifeval.read(ifeval_file)[: SHORT_ROWS if short else None]
    run = _Run(
        model,
        out,
        rows,
        gsm8k,
        2 if short else steps,
        16 if short else tokens,
        threads,
        pairs,
        precisions.split(","),
    )
    found = {
        arm: [run.arm(arm, seed) for seed in range(1, 1 + (1 if arm == BASE else seeds))]
        for arm in chosen
    }
    _show(found, len(rows))


class _Run:
    """The arms of one model."""

    def __init__(  # noqa: PLR0917
        self,
        model: Path,
        out: Path,
        rows: list[dict[str, Any]],
        gsm8k: Path,
        steps: int,
        tokens: int,
        threads: int,
        pairs: Sequence[str] = (),
        precisions: Sequence[str] = ("fp32", "int8"),
    ) -> None:
        self.pairs, self.precisions = pairs, precisions
        self.model, self.out, self.rows, self.gsm8k = model, out, rows, gsm8k
        self.steps, self.tokens, self.threads = steps, tokens, threads
        self.stages = Stages(out / "numbers")

    def arm(self, arm: str, seed: int) -> Numbers:
        """All numbers of one arm with one seed."""
        name = arm if arm == BASE else f"{arm}-{seed}"
        trained = self.out / name
        numbers: Numbers = {}
        if arm == BASE:
            trained = self.model
        else:
            numbers["train"] = self.stages.done(f"{name}.train", lambda: self._train(arm, seed))
        for precision in self.precisions:
            numbers[precision] = self.stages.done(
                f"{name}.{precision}", lambda p=precision: self._followed(trained, name, p)
            )
        numbers["kept"] = self.stages.done(f"{name}.retention", lambda: self._retention(trained))
        return numbers

    def _train(self, arm: str, seed: int) -> Numbers:
        from benchmarks import real_model_peers as peers

        folder = self.out / f"{arm}-{seed}"
        if arm == "trl":
            return peers.stock(self.model, folder, self.steps, seed, self.threads)
        if arm == "best-answers":
            return peers.best_answers(self.model, folder, self.steps, seed, self.threads)
        settings = {**SETTINGS, **(ON_A_GPU if _has_gpu() else {}), **WITHOUT.get(arm, {})}
        sets = [part for pair in settings.items() for part in ("--set", "=".join(pair))]
        sets += [part for pair in self.pairs for part in ("--set", pair)]
        shutil.rmtree(folder, ignore_errors=True)
        began = time.monotonic()
        ended = subprocess.run(
            [
                str(Path(sys.executable).with_name("risen")), "adapt", str(self.model),
                "--steps", str(self.steps), "--seed", str(seed), "--output", str(folder),
                "--keep-anyway", "--json", *sets,
            ],
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip
        return {"seconds": time.monotonic() - began, "result": json.loads(ended.stdout)}

    def _followed(self, trained: Path, name: str, precision: str) -> Numbers:
        """IFEval and the facts by the bundle, as it would be deployed."""
        from risen_export import export
        from risen_plugin.instructions.plain import facts

        bundle = self.out / "bundles" / f"{name}-{precision}"
        if not bundle.is_dir():
            export(trained, bundle, (precision,), check=precision != "fp32", force=True)
        known = facts()
        others = [] if ifbench.missing() else ifbench.rows()[: len(self.rows)]
        asked = [row["prompt"] for row in (*self.rows, *others)]
        texts = ifeval.answers(
            bundle,
            [*asked, *(fact.prompt for fact in known)],
            threads=self.threads,
            tokens=self.tokens,
        )
        shutil.rmtree(bundle)
        followed, about_facts = texts[: len(self.rows)], texts[len(asked) :]
        told = [fact.is_told_by(text) for fact, text in zip(known, about_facts, strict=True)]
        numbers = {
            "ifeval": ifeval.scores(self.rows, followed),
            "by_row": ifeval.strict_rows(self.rows, followed),
            "told": told,
            "answers": [*followed, *about_facts],
        }
        if others:
            made = texts[len(self.rows) : len(asked)]
            numbers |= {"ifbench": ifbench.scores(others, made), "ifbench_answers": made}
        return numbers

    def _retention(self, trained: Path) -> Numbers:
        """The drift from the model's own answers to questions that nothing was trained on."""
        from benchmarks import real_model_peers as peers
        from risen_plugin.instructions.plain import facts

        base = self.stages.done(f"{BASE}.fp32", lambda: self._followed(self.model, BASE, "fp32"))
        own = [
            (fact.prompt, text)
            for fact, text in zip(facts(), base["answers"][len(self.rows) :], strict=True)
        ]
        return peers.losses(self.model, trained, own, self.gsm8k, self.threads)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _show(found: Mapping[str, list[Numbers]], rows: int) -> None:
    by = "lm-eval" if "lm-eval" in found[next(iter(found))][0]["fp32"]["ifeval"] else "as-ifeval"
    base = found.get(BASE, [None])[0]
    print_table(
        f"IFEval, {rows} prompts, strict, by {by}; means over seeds",
        (
            "",
            "prompt",
            "loose",
            "instruction",
            "int8",
            "IFBench",
            "facts lost",
            "GSM8K",
            "own answers",
            "minutes",
        ),
        [
            (
                ARMS[arm],
                *(
                    f"{_mean(runs, 'fp32', 'ifeval', by, key):.3f}"
                    for key in ("prompt_strict", "prompt_loose", "instruction_strict")
                ),
                _int8(runs, by),
                _ifbench(runs),
                _lost(base, runs),
                f"{_mean(runs, 'kept', 'gsm8k_rise'):+.3f}",
                f"{_mean(runs, 'kept', 'own_rise'):.3f}",
                "" if arm == BASE else f"{_mean(runs, 'train', 'seconds') / 60:.0f}",
            )
            for arm, runs in found.items()
        ],
    )


def _mean(runs: list[Numbers], *keys: str) -> float:
    def value(numbers: Any) -> float:
        for key in keys:
            numbers = numbers[key]
        return float(numbers)

    return statistics.fmean(map(value, runs))


def _int8(runs: list[Numbers], by: str) -> str:
    if not all("int8" in run for run in runs):
        return ""
    return f"{_mean(runs, 'int8', 'ifeval', by, 'prompt_strict'):.3f}"


def _ifbench(runs: list[Numbers]) -> str:
    """Its prompts that are followed by its loose measure, which is the one that it is known by."""
    if not all("ifbench" in run["fp32"] for run in runs):
        return ""
    return f"{_mean(runs, 'fp32', 'ifbench', 'prompt_loose'):.3f}"


def _lost(base: Numbers | None, runs: list[Numbers]) -> str:
    """Facts that the model told before and does not tell now, of those that it told."""
    if base is None:
        return ""
    before = base["fp32"]["told"]
    lost = [
        sum(was and not now for was, now in zip(before, run["fp32"]["told"], strict=True))
        for run in runs
    ]
    return f"{statistics.fmean(lost):g} of {sum(before)}"


if __name__ == "__main__":
    main()
