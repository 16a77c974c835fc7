"""Fine-tune the embedded base model with an ordinary Trainer, then reinforce it."""

from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)

from risen_plugin import RisenCallback, text_of, use
from risen_plugin.embedded import base_model, orders

base = base_model()  # a folder; a hub id does as well
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForCausalLM.from_pretrained(base)


def encoded(row):
    chat = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    asked = tokenizer(chat)["input_ids"]
    answered = tokenizer(row["completion"][0]["content"] + tokenizer.eos_token)["input_ids"]
    return {"input_ids": asked + answered, "labels": [-100] * len(asked) + answered}


def right_fields(completions, answer, **columns):  # a TRL reward function
    pairs = zip(completions, answer, strict=True)
    return [float(orders.is_right(text_of(text), wanted)) for text, wanted in pairs]


trainer = Trainer(
    model,
    TrainingArguments("out/first-run", max_steps=80, learning_rate=1e-3),
    train_dataset=Dataset.from_list([encoded(row) for row in orders.draw(1000, seed=1)]),
    eval_dataset=Dataset.from_list([encoded(row) for row in orders.draw(64, 2, wish_counts=(0,))]),
    data_collator=DataCollatorForSeq2Seq(tokenizer),
    processing_class=tokenizer,
)
RisenCallback(
    rewards=["constraints", right_fields],
    generator=use("jsonl", rows=orders.draw(2000, seed=3, wish_counts=(1, 2))),
    scheduler=use("after", steps=12),
    grpo={"learning_rate": 1e-3, "max_completion_length": 64},
).attach(trainer)
trainer.train()
trainer.save_model()
