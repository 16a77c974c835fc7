"""What a bundle's configurations may say: the fields that are read here, their kinds and bounds.

Fields of other clients may hold anything. A value beyond its bounds would be a mistake of a builder
or of whoever changed the file, and would end as a wrong answer or as a lack of memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from risen_export.bundles import strict
from risen_plugin.errors import ExportError

_MOST_BYTES = 64 * 1024 * 1024  # of one file; a tokenizer_config.json with many tokens has 1 MB
_LONGEST_TEMPLATE = 4 * 1024 * 1024  # characters; the longest known have 30,000
_length = strict.integer(1, 2**31 - 1)
_count = strict.integer(0, 2**31 - 1)
_token = strict.integer(0, 2**31 - 1)
_tokens = strict.listing(_token)
_optional_count = strict.either(strict.nothing, _count)
_ids = strict.either(strict.nothing, _tokens, _token)
_words = strict.either(strict.nothing, strict.listing(strict.listing(_token, 1000)))
_penalty = strict.either(strict.nothing, strict.number(1e-6, 1e6))
_GENAI = strict.record(
    {"model": strict.record({"context_length": _length, "vocab_size": strict.integer(1, 10**8)})}
)
_GENERATION = strict.record(
    {},
    {
        "eos_token_id": _ids,
        "max_length": _optional_count,
        "max_new_tokens": _optional_count,
        "min_length": _optional_count,
        "min_new_tokens": _optional_count,
        "repetition_penalty": _penalty,
        "encoder_repetition_penalty": _penalty,
        "no_repeat_ngram_size": _optional_count,
        "encoder_no_repeat_ngram_size": _optional_count,
        "bad_words_ids": _words,
        "suppress_tokens": _ids,
        "begin_suppress_tokens": _ids,
        "forced_bos_token_id": _ids,
        "forced_eos_token_id": _ids,
    },
)
_template = strict.text(_LONGEST_TEMPLATE)
_TOKENIZER = strict.record(
    {},
    {
        "chat_template": strict.either(
            strict.nothing,
            strict.listing(strict.record({"name": strict.text(), "template": _template}), 1000),
            strict.mapping(_template, most=1000),
            _template,
        )
    },
)


def read_genai(folder: Path) -> dict[str, Any]:
    """``genai_config.json`` with ``context_length`` and ``vocab_size`` of its ``model``.

    :raises ExportError: in one line with the file's name, as the others here.
    """
    return strict.read_object(folder / "genai_config.json", _MOST_BYTES, _GENAI)


def read_generation(folder: Path) -> dict[str, Any]:
    """``generation_config.json``: what ends an answer, and the settings that change one."""
    return strict.read_object(folder / "generation_config.json", _MOST_BYTES, _GENERATION)


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json``, the model's configuration; {} if there is none."""
    path = folder / "config.json"
    return strict.read_object(path, _MOST_BYTES) if path.is_file() else {}


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """``tokenizer_config.json`` with its template and special tokens; {} if there is none."""
    path = folder / "tokenizer_config.json"
    return strict.read_object(path, _MOST_BYTES, _TOKENIZER) if path.is_file() else {}


def read_template(path: Path) -> str:
    """The text of ``chat_template.jinja``."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(_LONGEST_TEMPLATE + 1)
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ExportError(f"{path} is no text in UTF-8") from error
    if len(text) > _LONGEST_TEMPLATE:
        raise ExportError(f"{path} has more than {_LONGEST_TEMPLATE} characters")
    return text
