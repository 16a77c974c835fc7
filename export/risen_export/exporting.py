"""From a run, model or adapter to a published bundle: resolve, merge, compile, complete, verify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from risen_export.backends import genai as build
from risen_export.bundles import manifest, publish
from risen_export.gate.verify import FP32_TOLERANCE, Verdict, compare, reference
from risen_export.merging import source
from risen_export.quiet import quiet
from risen_export.runtime.bundle import Bundle
from risen_export.runtime.session import threads_of_environment
from risen_plugin.contracts import Prompt
from risen_plugin.errors import ExportError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Exported:
    """One precision of a published bundle.

    :param bytes: size of all its files but the manifest.
    :param bytes_by_kind: the same by kind; see :func:`risen_export.bytes_by_kind`.
    :param verdict: the comparison with the merged model; None if it was not made.
    """

    path: Path
    bytes: int
    bytes_by_kind: dict[str, int]
    verdict: Verdict | None


@dataclass(frozen=True)
class ExportResult:
    """A published bundle: ``path`` is OUT, ``precisions`` its folders in the order asked for.

    :param notes: sentences about what the bundle does otherwise than the model, or could not try.
    """

    path: Path
    precisions: dict[str, Exported]
    notes: tuple[str, ...] = ()


def export(
    run_or_model: str | Path,
    out: str | Path,
    precisions: Sequence[str] = ("fp32",),
    *,
    force: bool = False,
    check: bool = True,
    verify_prompts: Sequence[Prompt] | None = None,
    progress: bool = True,
    show_log: bool = False,
    model: PreTrainedModel | PeftModel | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    adapters: Sequence[str | Path] = (),
) -> ExportResult:
    """Merge, compile, check and publish a model as a bundle at ``out``::

        export("out/run", "out/bundle", ("fp32", "int8"))

    :param run_or_model: output folder of a run, model folder, hub id or PEFT adapter. Beside
        ``model`` and ``tokenizer`` it is only the name that the manifest records.
    :param precisions: of ``fp32`` and ``int8``.
    :param force: replace a bundle that is already at ``out``.
    :param check: compare each precision with the merged model; an fp32 graph whose logits differ
        by more than 1e-3 is not published.
    :param verify_prompts: texts or chat messages to compare on; eight built-in ones if None.
    :param show_log: let the libraries' own messages through.
    :param model: a model in memory (plain or PEFT), copied and left as it is.
    :param adapters: folders of PEFT adapters to fold in after those of ``run_or_model``, in the
        order in which they were trained on one another.
    :raises ExportError: if a file is missing, the model is unsupported or does not fit, or the
        bundle cannot be written.
    """
    wanted = build.check_precisions(tuple(precisions))
    build.require_runtime()
    threads_of_environment()  # refused here, before a library reads it in its own way
    target = Path(out)
    publish.check_target(target, force=force)
    resolved = None
    if model is None:
        resolved = source.resolve(run_or_model, adapters)
        source.check_config(resolved, wanted)
    elif adapters:
        raise ExportError("a model in memory brings its adapters itself; leave adapters=... out")
    elif tokenizer is None:
        raise ExportError("a model in memory needs its tokenizer: export(..., tokenizer=...)")
    stages = 1 + len(wanted) * (1 + check)
    with (
        publish.published(target, force=force) as scratch,
        tqdm(total=stages, desc="export", unit="stage", disable=not progress) as bar,
    ):
        from risen_export.merging import merge, saving

        bar.set_postfix_str("merge")
        if resolved is None:
            assert model is not None
            assert tokenizer is not None
            with quiet(show=show_log):
                merged = merge.from_memory(model, tokenizer, name=str(run_or_model))
        else:
            merged = merge.load(resolved, show_log=show_log)
        saving.save(merged, scratch / "merged", show_log=show_log)
        bar.update()
        facts = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": source.public_name(str(run_or_model)),
            **merged.provenance,
            "notes": list(merged.notes),
            "rewards": publish.rewards_of(None if resolved is None else resolved.run),
            "versions": manifest.versions(),
        }
        expected = reference(merged.model, merged.tokenizer, verify_prompts) if check else None
        inner: dict[str, dict[str, Any]] = {}
        for precision in wanted:
            bar.set_postfix_str(f"build {precision}")
            folder = scratch / "bundle" / precision
            build.build(
                scratch / "merged",
                folder,
                precision,
                cache=scratch / "cache",
                tied=bool(merged.model.config.tie_word_embeddings),
                show_log=show_log,
            )
            publish.complete(folder, scratch / "merged" / saving.CLIENT)
            # Written once without the verdict, since opening a bundle asks for its manifest.
            publish.describe(folder, precision, {**facts, "verify": None})
            bar.update()
            verdict = None
            if expected is not None:
                bar.set_postfix_str(f"verify {precision}")
                verdict = compare(Bundle.open(folder), expected)
                _require_equal(precision, verdict)
                bar.update()
            inner[precision] = publish.describe(folder, precision, {**facts, "verify": verdict})
        publish.span(scratch / "bundle", inner, facts)
    return ExportResult(
        target,
        {
            name: Exported(
                path=target / name,
                bytes=sum(entry["bytes"] for entry in one["files"].values()),
                bytes_by_kind=one["bytes_by_kind"],
                verdict=one["verify"],
            )
            for name, one in inner.items()
        },
        merged.notes,
    )


def _require_equal(precision: str, verdict: Verdict) -> None:
    """Refuse to publish an fp32 graph that differs from the model."""
    difference = verdict["max_logit_diff"]
    if precision == "fp32" and not difference <= FP32_TOLERANCE:
        raise ExportError(
            f"the fp32 graph is not the model: logits differ by {difference:.2g}, more than "
            f"{FP32_TOLERANCE:g}; nothing was published (--no-verify publishes it all the same)"
        )
