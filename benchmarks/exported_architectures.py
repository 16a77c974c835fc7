"""Train, export and compare a tiny model of every architecture that people fine-tune.

``python -m benchmarks.exported_architectures`` fine-tunes each for a step, reinforces it for two
(``RisenCallback``), exports it in fp32 and int8, and compares graph and model at every position of
rows that are longer than each length at which the arithmetic changes, in a batch, alone and token
by token, and by what both generate. ``--write`` keeps the results, each when it is there, and
renders them into docs/reference/compatibility.md; with NAMES it keeps those of the others. No model
may end in a graph that is another model, or in anything but one line.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from tqdm.auto import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.shared import ROOT, machine, print_table, write_results
from risen_plugin.errors import ExportError, RisenError, one_line, typed_line
from tests.export.architectures import ARCHITECTURES, BY_NAME, Architecture, model_of, rows

RESULTS = ROOT / "benchmarks" / "exported_architectures.json"
PAGE = ROOT / "docs" / "reference" / "compatibility.md"
BEGIN = "<!-- exported architectures: written by python -m benchmarks.exported_architectures -->"
END = "<!-- end of exported architectures -->"
TOLERANCE = 1e-3
ANSWER = 24
"""Tokens that are generated after each row."""


def train(model: Any, tokenizer: Any, folder: str) -> str:
    """One step of fine-tuning and two of a phase, in place; what became of it in a line."""
    from benchmarks.architectures import run

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the Trainer prints its logs
            return str(run(model, tokenizer, folder)["outcome"])
    except RisenError as error:
        return f"not trained: {one_line(error)}"


def generated(model: Any, row: Sequence[int]) -> list[int]:
    """The model's likeliest tokens after a row, each from a pass over all tokens so far.

    ``generate`` is not asked: it takes the end-of-text token out, and for a ``sliding_window`` that
    the class does not read its cache forgets tokens that the class would see.
    """
    from tests.export.parity import logits_of

    answer: list[int] = []
    while len(answer) < ANSWER:
        answer.append(int(logits_of(model, [*row, *answer])[-1].argmax()))
    return answer


def compare(
    model: Any, tokenizer: Any, folder: Path, precisions: Sequence[str] = ("fp32", "int8")
) -> dict[str, Any]:
    """Export a model, and measure the graph of each precision against it."""
    from risen_export import Bundle, export
    from tests.export.parity import differences

    found: dict[str, Any] = {}
    for precision in precisions:
        out = folder / precision
        try:
            export(
                "tiny",
                out,
                (precision,),
                model=model,
                tokenizer=tokenizer,
                check=False,
                progress=False,
            )
        except ExportError as error:
            found[precision] = {"refused": one_line(error)}
            continue
        bundle = Bundle.open(out)
        answers = bundle.generate_ids(
            rows(), max_new_tokens=ANSWER, ignore_eos=True, follow_settings=False
        )
        equal = sum(
            ours == theirs
            for answer, row in zip(answers, rows(), strict=True)
            for ours, theirs in zip(answer, generated(model, row), strict=True)
        )
        manifest = json.loads((out / precision / "manifest.json").read_text(encoding="utf-8"))
        found[precision] = {
            "backend": str(manifest.get("backend") or "genai"),
            "differences": differences(out / precision, model, rows()),
            "tokens_equal": equal,
            "tokens": ANSWER * len(answers),
        }
    return found


def outcome(one: Architecture, tokenizer: Any) -> dict[str, Any]:
    """What became of one architecture."""
    started = time.perf_counter()
    model = model_of(one)
    found: dict[str, Any] = {
        "name": one.name,
        "class": type(model).__name__,
        "shows": one.shows,
        "error": None,
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            found["trained"] = train(model, tokenizer, folder + "/run")
            model = model.float().eval()
            found |= compare(model, tokenizer, Path(folder))
        except Exception as error:  # noqa: BLE001 that anything may be raised is looked for
            found["error"] = typed_line(error)
            found["traceback"] = "".join(traceback.format_exception(error))
    return {**found, "seconds": round(time.perf_counter() - started, 1)}


def is_wrong(found: Mapping[str, Any]) -> bool:
    """Whether a model ended in another one, or in anything but one line."""
    exact = found.get("fp32") or {}
    if found["error"] is not None or "refused" in exact:
        return found["error"] is not None
    is_far = not max(exact["differences"].values()) <= TOLERANCE
    return is_far or exact["tokens_equal"] != exact["tokens"]


def rendered(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of the documentation, from what was measured."""
    lines = [
        "| class | shown with | exporter | fp32: logits apart, tokens equal | int8: logits apart |",
        "| --- | --- | --- | --- | --- |",
    ]
    for found in sorted(results, key=lambda found: (found["class"], found["name"])):
        cells = [f"`{found['class']}`", found["shows"], *_cells(found)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(found: Mapping[str, Any]) -> list[str]:
    if found["error"]:
        return ["failed", found["error"], ""]
    exact, small = found["fp32"], found["int8"]
    if "refused" in exact:
        return ["none", f"refused: {_reason(exact['refused'])}", ""]
    apart = max(exact["differences"].values())
    eight = (
        f"refused: {_reason(small['refused'])}"
        if "refused" in small
        else f"{max(small['differences'].values()):.2g}"
    )
    same = f"{exact['tokens_equal']} of {exact['tokens']}"
    return [exact["backend"], f"{apart:.1g}, {same}", eight]


def _reason(line: str) -> str:
    """The reason in a refusal, without the name of the model and the list of others.

    Nor that ``optimum`` has no environment, which is said of the machine and not of the model.
    """
    reason = line.split(" cannot be exported", 1)[-1].split(": ", 1)[-1].split(". It ", 1)[0]
    return reason.split("; optimum: RISEN_OPTIMUM_PYTHON", 1)[0]


def write_page(results: Sequence[Mapping[str, Any]], page: Path = PAGE) -> None:
    """Put the table between its marks in the documentation."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN + "\n")
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{rendered(results)}\n{END}{after}", encoding="utf-8")


def with_kept(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was measured now, and what is kept of the others, in the order of the models."""
    kept = (
        json.loads(RESULTS.read_text(encoding="utf-8"))["results"]["all"]
        if RESULTS.exists()
        else []
    )
    by_name = {found["name"]: found for found in [*kept, *results]}
    return [by_name[one.name] for one in ARCHITECTURES if one.name in by_name]


@click.command()
@click.argument("names", nargs=-1)
@click.option("--show", is_flag=True, help="Print the traceback of what fails.")
@click.option("--write", is_flag=True, help="Keep the results and render the docs.")
@click.option("--render", is_flag=True, help="Render the docs alone.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write it here.")
def main(
    names: tuple[str, ...], show: bool, write: bool, render: bool, json_file: Path | None
) -> None:
    """Try the tiny models called NAMES, or all; exit with 1 if one is exported as another one."""
    import transformers

    from benchmarks.architectures import byte_tokenizer

    if render:
        write_page(json.loads(RESULTS.read_text(encoding="utf-8"))["results"]["all"])
        return
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("risen_plugin").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    where, tokenizer = machine(), byte_tokenizer()
    chosen = [BY_NAME[name] for name in names] or list(ARCHITECTURES)
    results: list[dict[str, Any]] = []

    def keep(file: Path, kept: Sequence[dict[str, Any]]) -> None:
        plain = [
            {key: found[key] for key in found if key not in ("traceback", "seconds")}
            for found in kept
        ]
        write_results(file, settings={"answer": ANSWER}, machine=where, results={"all": plain})

    for one in tqdm(chosen, unit="architecture"):
        found = outcome(one, tokenizer)
        results.append(found)
        if write:  # each at once, so that one that is cut off has not been for nothing
            keep(RESULTS, with_kept(results))
        if is_wrong(found):
            tqdm.write(f"WRONG: {one.name}: {found['error'] or found['fp32']}", file=sys.stderr)
            if show:
                tqdm.write(found.get("traceback", ""), file=sys.stderr)
    print_table(
        f"{len(results)} models",
        ["name", "trained", "exporter", "fp32", "int8"],
        [[f["name"], f.get("trained", ""), *_cells(f)] for f in results],
    )
    if json_file:
        keep(json_file, results)
    if write:
        write_page(with_kept(results))
    raise SystemExit(any(is_wrong(found) for found in results))


if __name__ == "__main__":
    main()
