"""Attention that a padded prompt does not turn into NaN."""

from __future__ import annotations

import pytest
import torch

from risen_plugin.training.clean_room import clean_room, finite_attention

enabled = torch.backends.cuda.cudnn_sdp_enabled


@pytest.fixture(params=[True, False], ids=["on", "off"])
def before(request: pytest.FixtureRequest):
    was_on = enabled()
    torch.backends.cuda.enable_cudnn_sdp(request.param)
    yield request.param
    torch.backends.cuda.enable_cudnn_sdp(was_on)


def test_cudnns_kernel_is_left_out_inside_and_is_as_before_afterwards(before: bool):
    with finite_attention():
        assert not enabled()
    assert enabled() is before


def test_it_is_as_before_after_an_error(before: bool):
    with pytest.raises(ZeroDivisionError), finite_attention():
        _ = 1 / 0
    assert enabled() is before


def test_a_clean_room_has_it(before: bool):
    with clean_room(torch.nn.Linear(2, 2)):
        assert not enabled()
    assert enabled() is before
