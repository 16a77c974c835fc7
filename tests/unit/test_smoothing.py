"""A reward that scatters from step to step is shown as a mean with how sure it is."""

from __future__ import annotations

import random
import statistics

import pytest

from risen_plugin.kit.smoothing import WINDOW, in_words, running_mean


def test_a_mean_goes_over_the_latest_values_alone() -> None:
    values = [float(value) for value in range(20)]
    means = running_mean(values)
    assert [mean for mean, _ in means[:3]] == [0.0, 0.5, 1.0]
    assert means[-1][0] == pytest.approx(statistics.mean(values[-WINDOW:]))
    assert running_mean([]) == []


def test_one_value_says_nothing_of_how_sure_it_is() -> None:
    [(mean, error), (_, known)] = running_mean([0.5, 0.5])
    assert (mean, error, known) == (0.5, None, 0.0)
    assert in_words(mean, error) == "0.50"
    assert in_words(0.312, 0.058) == "0.31 \u00b10.06"


def test_the_standard_error_is_that_of_the_prompts_drawn() -> None:
    """Steps of four prompts, each easy or hard: 500 times, within a tenth of what it should be."""
    drawn = random.Random(0)
    ends = [
        running_mean([statistics.mean(drawn.choices((0.1, 0.9), k=4)) for _ in range(WINDOW)])[-1]
        for _ in range(500)
    ]
    scatter = statistics.stdev(mean for mean, _ in ends)
    told = statistics.mean(error for _, error in ends if error is not None)
    assert told == pytest.approx(scatter, rel=0.1)
