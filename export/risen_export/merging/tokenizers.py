"""Write a tokenizer so that every reader of the files cuts text as the tokenizer itself does.

Its readers are held to the source: the bundle's own (:class:`ChatTokenizer`) and transformers. The
form is one that transformers 4, onnxruntime-genai and transformers.js read alike.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from risen_export.runtime.chat import ChatTokenizer
from risen_plugin.contracts import Message, Prompt
from risen_plugin.errors import ExportError, RisenError, one_line
from risen_plugin.kit.files import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SETTINGS = "tokenizer_config.json"
_TEMPLATE = "chat_template.jinja"
# The class that every client takes as tokenizer.json says. Under other names transformers rebuilds
# a tokenizer (legacy SentencePiece, added tokens of text), and older clients lack newer names.
_PLAIN_CLASS = "PreTrainedTokenizerFast"
# What classes rebuild a tokenizer by.
_OF_CLASS = ("legacy", "from_slow", "add_bos_token", "add_eos_token", "auto_map")
# Notes of a tokenizer about its loading, which mean nothing to a reader of the files.
_LOADING_KEYS = ("is_local", "local_files_only", "name_or_path")
_TEXTS = (
    "Who ordered 12 red lamps on Monday?",
    " leading, two  three   four    spaces and trailing ",
    "line\n\n\tindented\r\nlast\n",
    "Grüße, naïve café — “quoted” … e\u0301 ﬁ ½ Å",
    "日本語と中文, 한국어, русский, العربية, हिन्दी",
    "🙂👩‍👩‍👧 🇫🇮 \u200b\ufeff\u00a0|",
    "def f(x):\n    return {\"a\": [1, 2.5e-3], 'b': x**2}  # <tag/>",
    "CamelCase snake_case 1234567890 0x1F $9.99 100% a@b.example",
    "I'm you're don't ... , . !",
    "[INST] hi [/INST] <s> </s> <|im_start|>user",
    "a",
    " ",
)
_QUESTION: Message = {"role": "user", "content": "Who ordered 12 lamps, née Ünal?\n\nSay it."}
_SYSTEM: Message = {"role": "system", "content": " Be brief. "}
_CHATS: tuple[list[Message], ...] = (
    [_QUESTION],
    [_SYSTEM, _QUESTION],
    [_QUESTION, {"role": "assistant", "content": "She did."}, _QUESTION],
)


@dataclass(frozen=True)
class TokenizerFiles:
    """The files of a tokenizer, each by its name below the folder.

    :param notes: sentences that a person should read, such as that there is no usable template.
    """

    files: dict[str, bytes]
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write them into ``folder``, over others of their names."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def faithful(tokenizer: PreTrainedTokenizerBase, whose: str) -> TokenizerFiles:
    """The files of a tokenizer, tried on varied texts and chats with their readers.

    :raises ExportError: if it has no fast form, or a reader would cut some text otherwise.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            tokenizer.save_pretrained(folder)
        except Exception as error:  # its backend raises plain Exceptions
            raise ExportError(
                f"the tokenizer of {whose} cannot be saved: {one_line(error)}"
            ) from error
        if not (folder / "tokenizer.json").is_file():
            raise ExportError(
                f"the tokenizer of {whose} ({type(tokenizer).__name__}) has no fast form, so there "
                "is no tokenizer.json for the bundle; load it with use_fast=True and save it again"
            )
        _write_settings(folder, tokenizer)
        texts = [*_TEXTS, *_with_special_tokens(tokenizer)]
        expected = [list(tokenizer(text)["input_ids"]) for text in texts]
        ours = ChatTokenizer(folder)
        for text, ids in zip(texts, expected, strict=True):
            if ours.encode(text) != ids:
                raise ExportError(
                    f"the tokenizer of {whose} ({type(tokenizer).__name__}) cuts {text!r} into "
                    f"{len(ids)} tokens and its own tokenizer.json into {len(ours.encode(text))}; "
                    "it does not keep what it does in that file, and clients would read it wrongly"
                )
            if ours.decode(ids) != tokenizer.decode(ids, skip_special_tokens=True):
                raise ExportError(
                    f"the tokenizer of {whose} ({type(tokenizer).__name__}) writes the tokens of "
                    f"{text!r} otherwise than its tokenizer.json; clients would show other answers"
                )
        _check_loaded(folder, texts, expected, whose)
        notes = _compare_chats(tokenizer, ours, whose)
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    return TokenizerFiles(files, notes)


def _with_special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    tokens = [str(token) for token in tokenizer.all_special_tokens]
    added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    return [f"a{token} b {token}c" for token in dict.fromkeys((*tokens[:8], *added[-8:]))]


def _write_settings(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Put ``tokenizer_config.json`` into the form that transformers 4 reads as 5 does.

    transformers.js reads the chat template from this file alone.
    """
    path = folder / _SETTINGS
    settings = json.loads(path.read_text(encoding="utf-8"))
    for key in _LOADING_KEYS:
        settings.pop(key, None)
    settings["tokenizer_class"] = _PLAIN_CLASS
    for key in _OF_CLASS:
        settings.pop(key, None)
    # transformers 4 takes a missing add_prefix_space for false, and changes the tokenizer.
    settings.pop("add_prefix_space", None)
    cutting = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["pre_tokenizer"]
    if "add_prefix_space" in (cutting or {}):
        settings["add_prefix_space"] = cutting["add_prefix_space"]
    # Defaults of its class, which the plain one has otherwise.
    settings["padding_side"] = tokenizer.padding_side
    settings["model_input_names"] = ["input_ids", "attention_mask"]
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, list):
        # 4 takes a mapping by this name, and the list by the other one, which 5 reads too.
        del settings["extra_special_tokens"]
        settings["additional_special_tokens"] = extra
    template = _default_template(tokenizer)
    if template is not None:
        settings["chat_template"] = template
        (folder / _TEMPLATE).write_text(template, encoding="utf-8")
    write_json(path, settings, ascii_only=False)


def _default_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    template: Any = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None


def _check_loaded(
    folder: Path, texts: Sequence[str], expected: Sequence[Sequence[int]], whose: str
) -> None:
    """Hold what transformers loads from the files equal to the source."""
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(folder)
        rows = [list(loaded(text)["input_ids"]) for text in texts]
    except Exception as error:  # its backend raises plain Exceptions
        raise ExportError(
            f"the tokenizer of {whose} cannot be loaded once it is saved: {one_line(error)}"
        ) from error
    for text, ids, row in zip(texts, expected, rows, strict=True):
        if row != list(ids):
            raise ExportError(
                f"the tokenizer of {whose} is another one once saved and loaded again: it cuts "
                f"{text!r} otherwise"
            )


def _compare_chats(
    tokenizer: PreTrainedTokenizerBase, ours: ChatTokenizer, whose: str
) -> tuple[str, ...]:
    """Hold the bundle's rendering of chats equal to transformers'; what cannot be used is noted."""
    template: Any = tokenizer.chat_template
    if template is None:
        return ()
    if _default_template(tokenizer) is None:
        names = ", ".join(f"'{name}'" for name in template)
        return (
            f"the tokenizer of {whose} has the chat templates {names} and none named 'default', so "
            "the bundle takes text, not messages; set tokenizer.chat_template to one of them",
        )
    refusals = []
    for chat in _CHATS:
        theirs, refusal = _rendered(tokenizer, chat)
        if theirs is None:
            refusals.append(refusal)
            continue
        try:
            text = ours.render(chat)
        except RisenError as error:
            raise ExportError(
                f"the chat template of {whose} cannot be used without transformers: "
                f"{one_line(error)}"
            ) from error
        # A template may write the time of day: rendered again, it has to be equal once.
        if text not in (theirs, _rendered(tokenizer, chat)[0]):
            raise ExportError(
                f"the chat template of {whose} renders otherwise without transformers; "
                "simplify it, or set another tokenizer.chat_template"
            )
    if len(refusals) == len(_CHATS):
        return (
            f"the chat template of {whose} refuses messages ({refusals[0]}), so its chats could "
            "not be tried",
        )
    return ()


def _rendered(
    tokenizer: PreTrainedTokenizerBase, chat: Sequence[Message]
) -> tuple[str | None, str]:
    """The text of a chat by transformers; None and why where the template refuses it."""
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in chat], tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # noqa: BLE001 - jinja's own, and whatever its expressions raise
        return None, one_line(error)
    return str(text), ""


def asked_as(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], Prompt]:
    """How a question is put to a model: as a chat where its template takes one, else as text.

    A template that wants a system message gets a short one.
    """
    befores: list[list[Message]] = [[], [{"role": "system", "content": "Be helpful."}]]
    for before in befores if _default_template(tokenizer) is not None else []:
        text, _ = _rendered(tokenizer, [*before, {"role": "user", "content": "Hi"}])
        if text is not None:
            return lambda question: [*before, {"role": "user", "content": question}]
    return lambda question: question


def encode_prompts(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]
) -> tuple[list[list[int]], str]:
    """Token ids of questions to a model: as chats where its template takes them, else as text.

    A template that wants a system message gets a short one.

    :returns: the rows, and the reason why no template was applied; "" if one was.
    """
    reason = "it has no chat template"
    if _default_template(tokenizer) is not None:
        for before in ([], [{"role": "system", "content": "Be helpful."}]):
            chats = [[*before, {"role": "user", "content": text}] for text in prompts]
            texts = [_rendered(tokenizer, chat) for chat in chats]
            refused = next((why for text, why in texts if text is None), None)
            if refused is None:
                return [_ids(tokenizer, str(text), special=False) for text, _ in texts], ""
            reason = f"its chat template refuses messages: {refused}"
    elif tokenizer.chat_template is not None:
        reason = "it has no default chat template"
    return [_ids(tokenizer, text, special=True) for text in prompts], reason


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of one prompt that a person gave.

    :raises ExportError: if the chat template refuses it.
    """
    if isinstance(prompt, str):
        return _ids(tokenizer, prompt, special=True)
    text, why = _rendered(tokenizer, prompt)
    if text is None:
        raise ExportError(f"the chat template refuses a prompt to verify with: {why}")
    return _ids(tokenizer, text, special=False)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool) -> list[int]:
    return list(tokenizer(text, add_special_tokens=special)["input_ids"])
