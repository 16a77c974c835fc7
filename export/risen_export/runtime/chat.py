"""Turn prompts into token ids and back as the training library does, without loading torch.

Reads ``tokenizer.json`` with ``tokenizers``, and has ``templates`` render the chat template. The
tests hold the rendering equal to transformers' ``apply_chat_template``. The regular expressions in
that file are somebody else's, and there are some that need centuries: encoding has a limit of time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from risen_export.runtime.settings import read_template, read_tokenizer
from risen_export.runtime.templates import render
from risen_plugin.contracts import Message, Prompt
from risen_plugin.errors import DataError, ExportError, one_line
from risen_plugin.kit.time_limit import awaited

Messages = Sequence[Message]
SECONDS = 10.0
"""What encoding has for one text, beside the time for its length; it takes milliseconds."""
_CHARACTERS_PER_SECOND = 20_000  # a hundredth of what one core does


class ChatTokenizer:
    """The tokenizer and the chat template of a bundle folder.

    :raises ExportError: if the folder has no readable ``tokenizer.json``.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        path = self._path = folder / "tokenizer.json"
        if not path.is_file():
            raise ExportError(f"{folder} has no tokenizer.json; export the model again")
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except BaseException as error:
            if _is_fault(error):
                raise ExportError(f"{path} cannot be read: {one_line(error)}") from error
            raise
        # A tokenizer saved after training may still cut or pad its input.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._config = read_tokenizer(folder)
        self._jinja = folder / "chat_template.jinja"

    @cached_property
    def template(self) -> str | None:
        """The chat template's text; None if the model has none."""
        if self._jinja.is_file():
            return read_template(self._jinja)
        written = self._config.get("chat_template")
        return written if isinstance(written, str) else None

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """The texts of the tokens that a template may name: ``bos_token``, ``eos_token``, ..."""
        return {
            key: text
            for key, value in self._config.items()
            if key.endswith("_token") and (text := _token_text(value)) is not None
        }

    def token_id(self, text: str) -> int | None:
        """The id of one token's text; None if the vocabulary lacks it."""
        return self._tokenizer.token_to_id(text)

    def token_text(self, token: int) -> str:
        """The text of one token, special ones too; characters that it only begins are U+FFFD."""
        return self._tokenizer.decode([token], skip_special_tokens=False)

    def render(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """The text of a chat, ready for the answer.

        :param tools: functions that the model may call, as JSON schemas, for templates that tell
            it of them.
        :raises DataError: if there is no template, or the template refuses the messages.
        """
        if self.template is None:
            raise DataError(
                "the bundle's model has no chat template, so it takes text, not messages; "
                "use --raw, or set tokenizer.chat_template before exporting"
            )
        variables: dict[str, Any] = {
            **self.special_tokens,
            "messages": [dict(message) for message in messages],
            "tools": [dict(tool) for tool in tools] if tools else None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        return render(self.template, variables)

    def encode(
        self, prompt: Prompt, *, tools: Sequence[Mapping[str, Any]] | None = None
    ) -> list[int]:
        """Token ids of a text as it is, or of chat messages with the template applied.

        :param tools: as of :meth:`render`.
        :raises DataError: if the template refuses the messages, or the text cannot be encoded in
            time.
        """
        if isinstance(prompt, str):
            return self._encode(prompt, add_special_tokens=True)
        return self._encode(self.render(prompt, tools=tools), add_special_tokens=False)

    def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        def encode() -> list[int]:
            # ``encode`` would keep all other threads waiting, the one that counts the time too.
            tokens = self._tokenizer.encode_batch([text], add_special_tokens=add_special_tokens)
            return list(tokens[0].ids)

        most = SECONDS + len(text) / _CHARACTERS_PER_SECOND
        try:
            return awaited(encode, most)
        except TimeoutError as error:
            raise DataError(
                f"{self._path} was stopped after {most:.3g} s of encoding one text; "
                "a tokenizer that takes so long is broken, or made to harm"
            ) from error
        except BaseException as error:
            if _is_fault(error):
                raise DataError(
                    f"{self._path} cannot encode the text: {one_line(error)}"
                ) from error
            raise

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)


def _token_text(value: object) -> str | None:
    """The text of a special token, which is written as it is or in a mapping."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _is_fault(error: BaseException) -> bool:
    """Whether it is an error of the tokenizer's; its panics are no ``Exception``."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
