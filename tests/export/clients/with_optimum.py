"""Answer with optimum as its users do; run by a Python that has optimum-onnx, not the tests' own.

Reads {"folder": ..., "prompts": [...], "new_tokens": N} and writes {"single": ids, "batch": ids}.
"""

import json
import sys

from optimum.onnxruntime import ORTModelForCausalLM
from transformers import AutoTokenizer

asked = json.load(sys.stdin)
tokenizer = AutoTokenizer.from_pretrained(asked["folder"], padding_side="left")
model = ORTModelForCausalLM.from_pretrained(asked["folder"])


def answer(prompts: list[str]) -> list[list[int]]:
    read = tokenizer(prompts, return_tensors="pt", padding=True)
    ids = model.generate(
        input_ids=read["input_ids"],
        attention_mask=read["attention_mask"],
        max_new_tokens=asked["new_tokens"],
        do_sample=False,
    )
    return ids[:, read["input_ids"].shape[1] :].tolist()


single = [answer([prompt])[0] for prompt in asked["prompts"]]
json.dump({"single": single, "batch": answer(asked["prompts"])}, sys.stdout)
