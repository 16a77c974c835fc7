"""What counts as a verdict: little, since a guess would train."""

import pytest
from risen_judge.verdicts import Verdict, VerdictError, short, verdict_of


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ('{"met": true, "reason": "it does"}', True),
        ('{"reason": "it does not", "met": false}', False),
        ('{"met": true}', True),
        ('\n```json\n{"met": true}\n```\n', True),
        ('```\n{"met": false}\n```', False),
        ('<think>Is it {"met": true}?</think>\n{"met": false}', False),
        ("yes", True),
        ("No.", False),
        (" **Yes** ", True),
    ],
)
def test_clear_verdicts_are_read(text, met):
    assert verdict_of(text).met is met


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "maybe",
        "yes, but no",
        "Yes it does",
        "no yes",
        '{"met": true',
        '{"met": "true"}',
        '{"met": 1}',
        '{"met": null}',
        '{"Met": true}',
        '{"met": false, "met": true}',
        '{"met": true, "score": 0.3}',
        '{"met": true, "reason": 7}',
        '[{"met": true}]',
        'It says {"met": true}',
        '{"met": true} {"met": true}',
        "true",
        "1",
        "<think>yes",
        "[" * 100_000,
        '{"met": ' + "9" * 5000 + "}",
    ],
)
def test_everything_else_is_none(text):
    with pytest.raises(VerdictError):
        verdict_of(text)


def test_a_reason_is_one_line_that_can_be_written():
    assert verdict_of('{"met": true, "reason": "a\\n b \\ud800"}') == Verdict(True, "a b ?")
    assert len(verdict_of(f'{{"met": true, "reason": "{"x" * 9999}"}}').reason) == 500


def test_what_was_said_is_quoted_in_short():
    assert short("a\nb") == "'a b'"
    assert len(short("x" * 999)) < 100
