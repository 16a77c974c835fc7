"""The bundle's README.md: a model card in the hub's form, with measured results and snippets.

Written from the manifest alone. The tests run the snippets as they stand in the file. The list of
adapters stands between two marks, and is renewed there when one comes or goes; the rest of the file
may be edited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

import yaml

from risen_export.bundles.manifest import NOT_RUN, default_variant
from risen_plugin.kit.files import write_bytes

README = "README.md"
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
_COLUMNS = {
    "agreement": ("same likeliest token", "{:.2%}"),
    "kl_mean": ("KL, mean", "{:.2g}"),
    "kl_p99": ("KL, 99th percentile", "{:.2g}"),
    "perplexity": ("perplexity", "{:.4g}"),
    "perplexity_reference": ("of the model", "{:.4g}"),
    "adherence": ("strict adherence", "{:.3f}"),
}
_RUN_PARTS = ("merged_adapters", "rewards")  # in the manifest of what was trained further

_SNIPPETS = Template("""\
## Use

Each folder is complete in itself and may be copied alone. The snippets are for this folder as the
working directory, and take `$variant`.

**risen** (onnxruntime, numpy and tokenizers; no torch) checks every file's hash first:

```python
from risen_export import Bundle

$asked
bundle = Bundle.open(".", "$variant")
print(bundle.generate([$prompt], max_new_tokens=32)[0])
```

**onnxruntime-genai**:

```python
import onnxruntime_genai as og

model = og.Model("$variant")
tokenizer = og.Tokenizer(model)
stream = tokenizer.create_stream()
$genai_text
ids = tokenizer.encode(text)
params = og.GeneratorParams(model)
params.set_search_options(do_sample=False, max_length=len(ids) + 32)
generator = og.Generator(model, params)
generator.append_tokens(ids)
while not generator.is_done():
    generator.generate_next_token()
    print(stream.decode(generator.get_next_tokens()[0]), end="")
```

**Plain onnxruntime**:

```python
import numpy as np
import onnxruntime
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("$variant")
session = onnxruntime.InferenceSession("$variant/model.onnx", providers=["$provider"])
$asked
ids = $encoded["input_ids"]
types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
inputs = {value.name: value for value in session.get_inputs()}
names = [value.name for value in session.get_outputs()]
state = {
    name: np.zeros([1, *(n if isinstance(n, int) else 0 for n in one.shape[1:])], types[one.type])
    for name, one in inputs.items()
    if name.startswith("past")
}
step, length, answer = ids, len(ids), []
while len(answer) < 32:
    feeds = {
        "input_ids": np.array([step]),
        "attention_mask": np.ones((1, length), np.int64),
        "position_ids": np.arange(length - len(step), length)[None],
    }
    feeds = {name: value for name, value in feeds.items() if name in inputs} | state
    results = dict(zip(names, session.run(names, feeds)))
    token = int(results["logits"][0, -1].argmax())
    if token in $ends:
        break
    answer.append(token)
    state = {name: results["present." + name.split(".", 1)[1]] for name in state}
    step, length = [token], length + 1
print(tokenizer.decode(answer, skip_special_tokens=True))
```
""")
_FROM_HUGGING_FACE = Template("""
**transformers.js** (in Node; in a browser serve the folder and leave the two lines on `env` out):

```js
import { env, pipeline } from "@huggingface/transformers";

env.localModelPath = "./";
env.allowRemoteModels = false;
const ask = await pipeline("text-generation", "$variant", { device: "cpu" });
const prompt = $javascript;
const [answer] = await ask(prompt, { max_new_tokens: 32, do_sample: false });
console.log(answer.generated_text.at(-1).content ?? answer.generated_text);
```

**optimum** (optimum-onnx):

```python
from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("$variant")
model = ORTModelForCausalLM.from_pretrained("$variant")
$asked
inputs = $encoded_for_torch
made = model.generate(**inputs, max_new_tokens=32, do_sample=False)
print(tokenizer.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```
""")
_ADAPTERS = """
## Adapters

The graphs are those of the base, and take LoRA adapters while they run. `risen adapt . ADAPTER`
adds one. Ask for one with `bundle.generate(prompts, adapter="NAME")`, with
`RunOptions.add_active_adapter` in plain onnxruntime, and with `Adapters` and
`Generator.set_active_adapter` in onnxruntime-genai. Other clients get the base.

"""
_BEGIN, _END = "<!-- adapters -->", "<!-- /adapters -->"
QUESTION = "What is the capital of France?"
_MESSAGES = f'[{{"role": "user", "content": "{QUESTION}"}}]'
_APPLIED = "tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True"
# The words that differ between models that take messages and models that take text.
_OF_MESSAGES = {
    "asked": f"messages = {_MESSAGES}",
    "prompt": "messages",
    "genai_text": (
        f"messages = '{_MESSAGES}'\n"
        "text = tokenizer.apply_chat_template(messages, add_generation_prompt=True)"
    ),
    "encoded": f"{_APPLIED})",
    "encoded_for_torch": f'{_APPLIED}, return_tensors="pt")',
    "javascript": f'[{{ role: "user", content: "{QUESTION}" }}]',
}
_OF_TEXT = {
    "asked": f'text = "{QUESTION}"',
    "prompt": "text",
    "genai_text": f'text = "{QUESTION}"',
    "encoded": "tokenizer(text)",
    "encoded_for_torch": 'tokenizer(text, return_tensors="pt")',
    "javascript": f'"{QUESTION}"',
}


def write_card(out: Path, content: Mapping[str, Any], *, has_template: bool, ends: object) -> None:
    """Write ``OUT/README.md``.

    :param content: the manifest over all variants.
    :param has_template: whether the model has a chat template, so that it takes messages.
    :param ends: the token or tokens that end an answer; None for none.
    """
    head = yaml.safe_dump(front_matter(content), sort_keys=False, allow_unicode=True)
    parts = [
        f"---\n{head}---\n",
        f"# {_title(content)}\n",
        "A bundle of `risen export`: the merged model as graphs for ONNX Runtime, one folder for "
        "each precision. `manifest.json` has the hash of every file, versions, provenance and all "
        "that was measured.\n",
        "\n".join(_table(content)) + "\n",
        *_notes(content),
        _snippets(content, has_template=has_template, ends=ends),
        *([_ADAPTERS + _list_of_adapters(content)] if "adapters" in content else []),
    ]
    (out / README).write_text("\n".join(parts), encoding="utf-8")


def renew_adapters(out: Path, content: Mapping[str, Any]) -> None:
    """List the adapters of a published bundle anew in its README, where that has kept its marks.

    :param content: the manifest over all variants.
    """
    path = out / README
    if path.is_symlink() or not path.is_file():
        return
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    before, begins, rest = text.partition(_BEGIN)
    _, ends, after = rest.partition(_END + "\n")
    if begins and ends:
        text = f"{before}{_list_of_adapters(content)}{after}"
        write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def _list_of_adapters(content: Mapping[str, Any]) -> str:
    lines = [
        "| adapter | made from | rank | changes | size | moves logits by up to |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in content["adapters"].items():
        moved = [
            f"{check['logits_moved_max']:.2g} (`{variant}`)"
            for variant, check in one["check"].items()
            if isinstance(check, Mapping)
        ]
        cells = [
            f"`{name}`",
            re.sub(r"[^\w.@+ -]", "_", one["source"]),
            str(one["rank"]),
            ", ".join(one["targets"]),
            f"{one['bytes'] / 1e6:.2f} MB",
            ", ".join(moved) or "not run",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    shown = lines if content["adapters"] else ["There are none yet."]
    return "\n".join([_BEGIN, "", *shown, "", _END, ""])


def front_matter(content: Mapping[str, Any]) -> dict[str, Any]:
    """The hub's metadata: licence, language, base model and its relation, tags, results."""
    card = content.get("card") or {}
    base = base_model(content)
    is_trained = any(content.get(key) for key in _RUN_PARTS)
    head: dict[str, Any] = {
        key: card[key]
        for key in ("license", "license_name", "license_link", "language")
        if key in card
    }
    if base is not None:
        head["base_model"] = base
        is_itself = base == (content.get("model") or {}).get("name")
        head["base_model_relation"] = "quantized" if is_itself and not is_trained else "finetune"
    precisions = sorted({one["precision"] for one in content["variants"].values()})
    head |= {
        "library_name": "onnxruntime-genai",
        "pipeline_tag": "text-generation",
        "tags": ["onnx", "onnxruntime", "onnxruntime-genai", "risen", *precisions],
    }
    results = list(_results(content))
    if results:
        head["model-index"] = [{"name": _title(content), "results": results}]
    return head


def base_model(content: Mapping[str, Any]) -> str | None:
    """The hub id that the model was made from; None if none is known."""
    card = content.get("card") or {}
    trained = any(content.get(key) for key in _RUN_PARTS)
    own = (content.get("model") or {}).get("name")
    bases = card.get("base_model")
    above = bases[0] if isinstance(bases, list) and bases else bases
    run = (content.get("run_model") or {}).get("name")
    candidates = [run, own, above] if trained else [own, above]
    return next((one for one in candidates if isinstance(one, str) and _HUB_ID.match(one)), None)


def _title(content: Mapping[str, Any]) -> str:
    return str(content.get("source") or "model").rstrip("/").split("/")[-1] or "model"


def _results(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """What was measured of each variant, as the hub's ``model-index`` has it."""
    for name, one in content["variants"].items():
        measured = _measured(one)
        metrics = [
            {"type": key, "name": f"{title}, {name}", "value": measured[key]}
            for key, (title, _) in _COLUMNS.items()
            if isinstance(measured.get(key), int | float)
        ]
        if metrics:
            yield {
                "task": {"type": "text-generation"},
                "dataset": {"type": "risen-probe", "name": "probe of risen export (gate/)"},
                "metrics": metrics,
            }


def _measured(one: Mapping[str, Any]) -> Mapping[str, Any]:
    gate = one.get("gate") or {}
    return gate.get("measured") or gate


def _table(content: Mapping[str, Any]) -> Iterator[str]:
    variants = content["variants"]
    used = {
        key: column
        for key, column in _COLUMNS.items()
        if any(isinstance(_measured(one).get(key), int | float) for one in variants.values())
    }
    titles = ["folder", "size", *(title for title, _ in used.values()), "gate", "run on"]
    yield "## Measured\n"
    yield f"| {' | '.join(titles)} |"
    yield f"| {' | '.join('---' for _ in titles)} |"
    for name, one in variants.items():
        measured = _measured(one)
        values = [
            form.format(measured[key]) if isinstance(measured.get(key), int | float) else ""
            for key, (_, form) in used.items()
        ]
        cells = [f"`{name}`", f"{one['bytes'] / 1e6:.1f} MB", *values, _verdict(one), one["ran"]]
        yield f"| {' | '.join(cells)} |"
    if used:
        yield (
            "\nEach graph was measured against the merged model, on what lies in `gate/`; "
            "`risen verify .` repeats it."
        )


def _verdict(one: Mapping[str, Any]) -> str:
    gate = one.get("gate")
    if gate is None:
        return "not run" if one["ran"] == NOT_RUN else "not measured"
    return "passed" if gate["passed"] else "**failed, published by force**"


def _notes(content: Mapping[str, Any]) -> Iterator[str]:
    notes = [str(note) for note in content.get("notes") or ()]
    if notes:
        yield "## Notes\n"
        yield "\n".join(f"- {note}" for note in notes) + "\n"


def _snippets(content: Mapping[str, Any], *, has_template: bool, ends: object) -> str:
    variant = default_variant(content["variants"])
    on_cuda = content["variants"][variant]["target"] == "cuda"
    words = {
        "variant": variant,
        "provider": "CUDAExecutionProvider" if on_cuda else "CPUExecutionProvider",
        "ends": sorted(ends) if isinstance(ends, list) else [] if ends is None else [ends],
        **(_OF_MESSAGES if has_template else _OF_TEXT),
    }
    text = _SNIPPETS.substitute(words)
    return text if on_cuda else text + _FROM_HUGGING_FACE.substitute(words)
