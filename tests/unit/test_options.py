"""Options become the arguments of a factory, or one line says what is wrong with them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from risen_plugin.errors import ConfigError, PluginError
from risen_plugin.plugins.options import Option, build, describe

LABEL = "reward 'length-band' (risen-length 0.1)"


@dataclass(frozen=True)
class Band:
    """A band.

    :param low: fewest words
        of full score.
    :param slack: how far outside.
    """

    low: int
    high: int
    slack: float = 10
    tags: list[str] = field(default_factory=lambda: ["a"])


def refusal(factory: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build(factory, options, LABEL)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_parameters_of_a_factory_are_its_options():
    assert describe(Band) == [
        Option("low", "int", required=True, meaning="fewest words of full score."),
        Option("high", "int", required=True),
        Option("slack", "float", 10, meaning="how far outside."),
        Option("tags", "list[str]", ["a"]),
    ]


def test_what_cannot_be_given_by_name_is_no_option():
    def factory(positional, /, named, *rest, keyword=1, **others): ...

    assert [option.name for option in describe(factory)] == ["named", "keyword"]


def test_options_become_arguments():
    assert build(Band, {"low": 1, "high": 2}, LABEL) == Band(1, 2)


def test_an_unknown_option_suggests_the_near_miss_and_lists_the_choices():
    assert refusal(Band, lo=1, high=2) == (
        f"{LABEL} has no option 'lo'; did you mean 'low'? It takes: low, high, slack, tags"
    )


def test_an_unknown_option_without_a_near_miss_lists_the_choices():
    assert refusal(Band, zzz=1) == (
        f"{LABEL} has no option 'zzz'. It takes: low, high, slack, tags"
    )


def test_a_factory_without_options_says_so():
    assert refusal(lambda: None, low=1) == f"{LABEL} has no option 'low'. It takes no options"


def test_missing_options_are_named_together():
    assert refusal(Band) == (
        f"{LABEL} needs the options 'low' and 'high'. It takes: low, high, slack, tags"
    )


def test_a_factory_with_kwargs_takes_any_option():
    assert build(lambda low, **rest: (low, rest), {"low": 1, "x": 2}, LABEL) == (1, {"x": 2})


def test_a_factory_without_a_signature_takes_any_option():
    assert build(dict, {"x": 2}, LABEL) == {"x": 2}


def test_a_wrong_plain_type_is_named_with_the_value():
    assert refusal(Band, low="20", high=80) == f"{LABEL} takes int for 'low', not str '20'"


def test_yaml_that_reads_a_number_as_text_is_explained():
    message = refusal(Band, low=1, high=2, slack="1e-5")
    assert message == f"{LABEL} takes float for 'slack', not str '1e-5' (in YAML write 1.0e-05)"


@pytest.mark.parametrize(
    ("hint", "value", "becomes"),
    [
        (int, 1, 1),
        (float, 1, 1),
        (float, 1.5, 1.5),
        (bool, True, True),
        (str, "x", "x"),
        ("int | None", None, None),
        (int | str, "x", "x"),
        (Literal["a", "b"], "b", "b"),
        (Annotated[int, "words"], 3, 3),
        (list[int], [1, 2], [1, 2]),
        (Sequence[str], ["a"], ["a"]),
        (Sequence[str], ("a",), ("a",)),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[str, ...] | None, ["a"], ("a",)),
        (set[str], ["a", "a"], {"a"}),
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (Path, "a/b", Path("a/b")),
        (str | Path, "a/b", "a/b"),
        (Any, object, object),
        ("NobodyKnowsThisType", 1, 1),
        (Band, "not checked", "not checked"),
    ],
)
def test_a_fitting_value_is_passed_on(hint, value, becomes):
    def factory(option):
        return option

    factory.__annotations__ = {"option": hint}
    result = build(factory, {"option": value}, LABEL)
    assert (result, type(result)) == (becomes, type(becomes))


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (int, True),
        (int, 1.0),
        (int, None),
        (float, "x"),
        (bool, 1),
        (str, 1),
        (int | None, "x"),
        (Literal["a", "b"], "c"),
        (Literal[1], True),
        (list[int], ["a"]),
        (list[str], "text"),
        (Sequence[str], "text"),
        (tuple[int, str], [1]),
        (Mapping[str, int], [1]),
        (Path, 3),
    ],
)
def test_a_value_of_another_type_is_refused(hint, value):
    def factory(option):
        return option

    factory.__annotations__ = {"option": hint}
    assert "for 'option', not" in refusal(factory, option=value)


def test_text_annotations_of_partial_functions_are_read():
    assert "takes int for 'low'" in refusal(functools.partial(Band, high=2), low="x")


@pytest.mark.parametrize("error", [ValueError, TypeError, FileNotFoundError, ImportError])
def test_what_a_factory_refuses_is_said_in_its_own_words(error):
    def factory():
        raise error("high is below\n  low")

    assert refusal(factory) == f"{LABEL}: high is below low"


def test_a_factory_that_breaks_is_a_plugin_error_with_its_cause():
    def factory():
        raise KeyError("x")

    with pytest.raises(PluginError, match="raised KeyError while it was made: 'x'") as caught:
        build(factory, {}, LABEL)
    assert isinstance(caught.value.__cause__, KeyError)
