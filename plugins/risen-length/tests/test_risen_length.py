"""What a plugin should test: that it is offered, that it keeps the contract, that it is right."""

from importlib import metadata

import pytest
import risen_length
from risen_length import LengthBand

from risen_plugin.plugins import Plugins
from risen_plugin.testing import REWARD_CHECKS, check_light_import, parametrize_with_audit

pytest_plugins = ["risen_plugin.testing"]

BAND = LengthBand(low=2, high=4, slack=2)


@pytest.mark.parametrize("check", REWARD_CHECKS)
def test_the_contract_of_a_reward_is_kept(check):
    check(BAND)


@parametrize_with_audit([BAND])
def test_the_reward_passes_its_audit(reward, check):
    check(reward)


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("", 0.0),
        ("\u200b \u2060 \ufeff", 0.0),
        ("one", 0.5),
        ("one two", 1.0),
        ("one two three four", 1.0),
        ("one two three four five", 0.5),
        ("one two three four five six", 0.0),
        ("one two three four five six seven", 0.0),
    ],
)
def test_an_answer_is_scored_by_its_words(answer, score):
    assert BAND(completions=[answer]) == [score]


def test_an_answer_may_be_chat_messages():
    assert BAND(completions=[[{"role": "assistant", "content": "one two"}]]) == [1.0]


@pytest.mark.parametrize(
    "options", [{"low": 4, "high": 2}, {"low": -1, "high": 2}, {"low": 1, "high": 2, "slack": 0}]
)
def test_a_band_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match=r"low|slack"):
        LengthBand(**options)


def test_it_is_offered_by_name(plugins):
    assert plugins.register(risen_length, "length")
    assert plugins.build("reward", "length-band", {"low": 2, "high": 4}) == LengthBand(2, 4)


def test_it_is_offered_once_installed():
    try:
        version = metadata.version("risen-length")
    except metadata.PackageNotFoundError:
        pytest.skip("risen-length is not installed")
    assert Plugins.load().find("reward", "length-band").origin == f"risen-length {version}"


def test_loading_it_is_quick():
    check_light_import("risen_length")
