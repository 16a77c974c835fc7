"""One export as it goes: merge, build, ask, judge, keep; what was built and measured so far."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_export.backends.asked_rows import write_engine_graph
from risen_export.backends.choosing import Backend
from risen_export.bundles import leavings, manifest, publish
from risen_export.bundles.remarks import remarks
from risen_export.bundles.variants import PRECISIONS, PROVIDERS, Family, Variant
from risen_export.gate.apart import KeptApart
from risen_export.gate.limits import Failure, Limits, advice, judge
from risen_export.gate.measured import Measured
from risen_export.gate.probe import context_of
from risen_export.gate.settings import GateSettings
from risen_export.gate.verifying import gate_of, ran_here
from risen_export.memory import give_back_memory
from risen_export.merging import apart, source
from risen_export.quiet import quiet
from risen_export.runtime.bundle import ids_of
from risen_plugin.errors import ExportError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from risen_export.gate.adherence import Standard
    from risen_export.gate.asking_graph import Heard
    from risen_export.gate.instructions import Instructions
    from risen_export.gate.probe import Row
    from risen_export.gate.reference import Reference
    from risen_export.runtime.bundle import Bundle

EXACT = Variant("cpu", PRECISIONS["fp32"])
"""The graph that every export builds and judges first: where it is wrong, no other is right."""
LARGE = 50_000_000
"""Parameters beyond which reading is what an export spends its time on."""
_MARKS = 8  # tokens that tell whether the saved model is the merged one


class Job:
    """One export as it goes: what has been built and measured so far."""

    def __init__(
        self,
        scratch: Path,
        limits: Mapping[Family, Limits],
        bar: Any,
        backend: Backend,
        config: Mapping[str, Any],
        *,
        show_log: bool,
        force: bool,
    ) -> None:
        self._scratch = scratch
        self._begun = False
        self._saved = scratch / "merged"
        self._client = self._saved / "client"
        self._limits = limits
        self._bar = bar
        self._backend = backend
        self._whole = config
        self._show_log = show_log
        self._force = force
        self._reference: Reference | None = None
        self._standard: Standard | None = None
        self._apart: KeptApart | None = None
        self._inner: dict[str, dict[str, Any]] = {}
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._hashes: dict[str, Future[dict[str, str]]] = {}

    def merge(
        self,
        resolved: source.Source | None,
        model: PreTrainedModel | PeftModel | None,
        tokenizer: PreTrainedTokenizerBase | None,
        name: str,
        kept: apart.Adapters | None = None,
        *,
        check: bool,
    ) -> None:
        """Save the merged model; from then on it is read from the disk, and held once at most.

        :param kept: adapters that stay beside it, where adapters do.
        :param check: whether what was saved will be compared with the model.
        """
        from risen_export.gate import asking_model
        from risen_export.merging import merge, saving
        from risen_export.merging.origin import copy_licences, origin_of
        from risen_export.merging.weights import vocabulary_rows

        self._now("merge")
        if resolved is None:
            assert model is not None
            assert tokenizer is not None
            with quiet(show=self._show_log):
                separate = kept is not None
                merged = merge.from_memory(model, tokenizer, name=name, apart=separate)
                kept = apart.saved(model, self._scratch / "adapters") if separate else None
        else:
            merged = merge.load(resolved, show_log=self._show_log)
        # What is linked is held to the model by its logits before anything is published.
        saving.save(merged, self._saved, link=check, show_log=self._show_log)
        self._facts = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": source.public_name(name),
            **merged.provenance,
            "notes": list(merged.notes),
            "rewards": publish.rewards_of(None if resolved is None else resolved.run),
            "versions": manifest.versions(),
            **({} if resolved is None else origin_of(resolved)),
            "backend_reason": self._backend.reason,
        }
        if resolved is not None:
            copy_licences(resolved, self._scratch / leavings.NEW)
        self.notes = merged.notes
        self._tokenizer = merged.tokenizer
        if kept is not None:
            self._apart = KeptApart(apart.linear_sizes(merged.model), kept)
        self._is_large = merged.model.num_parameters() > LARGE
        vocabulary = vocabulary_rows(merged.model)
        self._marks = [[(7919 * i + 13) % vocabulary for i in range(_MARKS)]]
        self._fingerprint = asking_model.fingerprint(merged.model, self._marks)

    def note(self, notes: Sequence[str]) -> None:
        """Add sentences to those that the manifest and the caller get."""
        self.notes = (*self.notes, *notes)
        self._facts["notes"] = list(self.notes)

    def refer(
        self,
        asked: GateSettings,
        instructions: Instructions | None,
        *,
        keep: bool,
        others: bool,
    ) -> None:
        """Build the exact graph, have the model read its answers, and judge it.

        A large model reads a few rows, which is enough to know whether the exact graph is the
        model; that graph then speaks for the model on all rows.

        :param instructions: what the graphs are held to.
        :param keep: whether it was asked for, and stays in the bundle.
        :param others: whether other graphs are to be held to the model.
        """
        from risen_export.gate import asking_graph
        from risen_export.gate import reference as files
        from risen_export.runtime.bundle import Bundle

        folder = self._scratch / ("bundle" if keep else "exact") / EXACT.name
        self._build(EXACT, folder)
        self._now("ask the model")
        brief = self._is_large and not (others or asked.prompts or asked.golden)
        known = {
            "ends": ids_of(self._config("generation_config.json").get("eos_token_id")),
            "context": context_of(self._config("config.json")),
        }
        # The graph and the model are held one after the other, each by its own function alone.
        read, heard, spoken = self._heard(folder, asked, known, brief=brief)
        give_back_memory()
        told = self._told(folder, read, known)
        give_back_memory()
        measured = asking_graph.measure(heard, told)
        failures = judge(measured, self._limits["fp32"])
        if failures:
            self._refuse(EXACT, failures, "it is not the model")
        self._reference = spoken or told
        files.save(self._reference, self._scratch / "bundle" / files.FOLDER)
        if asked.golden or instructions is not None:
            measured = self._hold(
                Bundle.open(folder, check_hashes=False), measured, asked, instructions
            )
        if keep:
            self._describe(EXACT, folder, measured, failures)

    def _heard(
        self, folder: Path, asked: GateSettings, known: Mapping[str, Any], *, brief: bool
    ) -> tuple[Sequence[Row], Heard, Reference | None]:
        """Rows for the model to read, and what the exact graph says of them.

        Of a large model also what the graph says of all rows, as their reference.

        :param known: what every reference holds beside its rows.
        """
        from risen_export.gate import asking_graph
        from risen_export.gate.probe import ANSWER_TOKENS, BRIEF_TOKENS, default_probe, some_of
        from risen_export.merging.tokenizers import asked_as, encode_prompt
        from risen_export.runtime.bundle import Bundle

        exact = Bundle.open(folder, check_hashes=False)
        probe = default_probe(
            asked_as(self._tokenizer), asked.prompts, asked.golden, facts=asked.facts
        )
        rows = asking_graph.rows_of(
            exact,
            probe.brief() if brief else probe,
            lambda prompt: encode_prompt(self._tokenizer, prompt),
            self._config("config.json"),
            tokens=BRIEF_TOKENS if brief else ANSWER_TOKENS,
        )
        read = some_of(rows) if self._is_large else rows
        spoken = None if len(read) == len(rows) else asking_graph.refer(exact, rows, **known)
        return read, asking_graph.Heard.of(exact, read), spoken

    def _told(self, folder: Path, rows: Sequence[Row], known: Mapping[str, Any]) -> Reference:
        """What the merged model says of rows; adapters that are kept apart are held to it too."""
        from risen_export.gate import asking_model
        from risen_export.runtime.bundle import Bundle

        model = asking_model.load(self._saved, show_log=self._show_log)
        asking_model.check_fingerprint(model, self._marks, self._fingerprint)
        told = asking_model.ask(model, rows, self._scratch / "logits", **known)
        if self._apart is not None:
            self._apart.compare(
                Bundle.open(folder, check_hashes=False), model, show_log=self._show_log
            )
        return told

    def _hold(
        self,
        exact: Bundle,
        measured: Measured,
        asked: GateSettings,
        instructions: Instructions | None,
    ) -> Measured:
        """Let the exact graph set what the others are held to; its own measures, with adherence."""
        from risen_export.gate import adherence, asking_graph
        from risen_export.gate import reference as files

        assert self._reference is not None
        own = [one["prompt"] for one in asked.golden]
        for prompt in asking_graph.missed(exact, self._reference, own):
            self.note([f"the model itself answers {prompt!r:.60} wrongly, so it judges no graph"])
        if instructions is None:
            return measured
        self._bar.set_postfix_str(f"follow instructions {EXACT.name}")
        self._standard, notes = adherence.begin(exact, instructions)
        self.note(notes)
        if self._standard is None:
            return measured
        adherence.save(self._standard, self._scratch / "bundle" / files.FOLDER)
        passed = self._standard.passed
        return adherence.compared(measured, passed, passed)

    def add(self, variant: Variant) -> None:
        """Build, judge and keep a variant.

        :raises ExportError: if it fails and is not forced.
        """
        if variant.name in self._inner:
            return
        folder = self._scratch / "bundle" / variant.name
        self._build(variant, folder)
        measured, failures = self._judged(variant, folder)
        if failures:
            self._refuse(variant, failures, "it is too far from the model")
        self._describe(variant, folder, measured, failures)

    def add_smallest(self, candidates: Sequence[Variant]) -> dict[str, str]:
        """Keep the first candidate that passes; the smaller ones, and why each was not kept."""
        tried: dict[str, str] = {}
        for variant in candidates:
            reason = self._kept_or_why(variant)
            if reason is None:
                return tried
            tried[variant.name] = reason
        reasons = "; ".join(f"{name}: {reason}" for name, reason in tried.items())
        raise ExportError(f"no precision passes the gate ({reasons}); nothing was published")

    def _kept_or_why(self, variant: Variant) -> str | None:
        """Build, judge and keep a variant; the reason where it is not kept, and nothing is left."""
        folder = self._scratch / "bundle" / variant.name
        if variant.name in self._inner:
            return None
        if reason := self._backend.refuses(self._whole, variant.target, variant.precision.name):
            return reason
        if not variant.precision.on_cpu:
            return "no CPU runs it, so it cannot be measured here"
        try:
            if variant == EXACT:
                (self._scratch / "exact" / EXACT.name).rename(folder)
            else:
                self._build(variant, folder)
            measured, failures = self._judged(variant, folder)
        except ExportError as error:
            publish.drop(folder)
            return str(error)
        if failures:
            publish.drop(folder)
            return "; ".join(one.reason for one in failures)
        self._describe(variant, folder, measured, failures)
        return None

    def finish(self) -> dict[str, dict[str, Any]]:
        """Write the manifest over all variants; their own manifests by name."""
        self._now("publish")
        self._bar.total = self._bar.n  # auto needs not try them all
        self._bar.refresh()
        self.note(remarks(self._inner))
        kept: dict[str, Any] = {} if self._apart is None else {"adapters": {}}
        publish.span(self._scratch / "bundle", self._inner, self._facts, **kept)
        if self._apart is not None:
            self._apart.put(self._scratch / "bundle")
        return self._inner

    def _build(self, variant: Variant, folder: Path) -> None:
        self._now(f"build {variant.name}")
        self._backend.build(
            self._saved,
            folder,
            variant.target,
            variant.precision.name,
            scratch=self._scratch / "cache",
            show_log=self._show_log,
        )
        publish.complete(folder, self._client, on_cpu=variant.target == "cpu")
        for_engines = variant.target == "cpu" and self._backend.name == "genai"
        if for_engines:
            write_engine_graph(folder)
        if self._apart is not None:
            # After completing, whose copy of the graph for transformers.js stays as it is.
            self._apart.branch(folder)
            if for_engines:
                write_engine_graph(folder, manifest.ADAPTED_GRAPH)
        # Written once without the verdict, since opening a bundle asks for its manifest.
        publish.describe(
            folder,
            variant.precision.name,
            self._facts,
            target=variant.target,
            backend=self._backend.name,
            draft=True,
        )
        # Gigabytes are hashed while the graph is measured.
        self._hashes[variant.name] = self._pool.submit(manifest.large_hashes, folder)

    def _judged(self, variant: Variant, folder: Path) -> tuple[Measured | None, list[Failure]]:
        """What is measured of a variant, and the limits that it fails; None where it cannot run."""
        from risen_export.gate import asking_graph
        from risen_export.runtime.bundle import Bundle

        if self._reference is None or not variant.precision.on_cpu:
            return None, []
        self._now(f"measure {variant.name}")
        bundle = Bundle.open(folder, check_hashes=False, device="cpu")
        measured = asking_graph.measure(bundle, self._reference)
        limits = self._limits[variant.precision.family]
        failures = judge(measured, limits)
        if self._standard is not None and (self._force or not failures):
            self._bar.set_postfix_str(f"follow instructions {variant.name}")
            measured = self._standard.add_to(measured, bundle)
            failures = judge(measured, limits)
        return measured, failures

    def _refuse(self, variant: Variant, failures: Sequence[Failure], what: str) -> None:
        if self._force:
            return
        reasons = "; ".join(one.reason for one in failures)
        hint = advice(variant)
        raise ExportError(
            f"the {variant.name} graph was not published, {what}: {reasons}; "
            + (f"{hint} (" if hint else "(")
            + "--force publishes it all the same, marked)"
        )

    def _describe(
        self,
        variant: Variant,
        folder: Path,
        measured: Measured | None,
        failures: Sequence[Failure],
    ) -> None:
        gate, ran = None, manifest.NOT_RUN
        if measured is not None:
            limits = self._limits[variant.precision.family]
            gate = gate_of(measured, limits, [one.reason for one in failures])
            here = ran_here(PROVIDERS["cpu"])
            ran = here if variant.target == "cpu" else f"{ran}; measured with {here}"
        self._inner[variant.name] = publish.describe(
            folder,
            variant.precision.name,
            self._facts,
            target=variant.target,
            backend=self._backend.name,
            ran=ran,
            gate=gate,
            known=self._hashed(variant),
        )

    def _hashed(self, variant: Variant) -> dict[str, str]:
        """The hashes of the variant's large files, as far as they are known."""
        try:
            return self._hashes.pop(variant.name).result()
        except OSError:  # the folder got its final place before it was read
            return {}

    def _config(self, name: str) -> dict[str, Any]:
        """A file of the merged model's configuration."""
        content: dict[str, Any] = json.loads((self._client / name).read_text(encoding="utf-8"))
        return content

    def _now(self, what: str) -> None:
        """Begin a stage; the one before is done."""
        self._bar.update(self._begun)
        self._bar.set_postfix_str(what)
        self._begun = True
