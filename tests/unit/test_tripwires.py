"""Each wire trips on its way of cheating, and not on the same answer where it was asked for."""

from __future__ import annotations

from typing import Any

import pytest

from risen_plugin.rewards.tripwires import WIRES, tripped, watch

NUMBER_PLACEHOLDERS = {"detectable_content:number_placeholders": {"num_placeholders": 2}}
KEYWORDS = {"keywords:existence": {"keywords": ["harbour", "salt"]}}
ENDING = {"startend:end_checker": {"end_phrase": "All instructions were followed."}}
REPEAT = {"combination:repeat_prompt": {"prompt_to_repeat": "x"}}
BULLETS = {"detectable_format:number_bullet_lists": {"num_bullets": 2}}
NOTE = "Write to the landlord."


def row(prompt: str, wanted: dict[str, Any] | None = None, query: str | None = None) -> Any:
    wanted = wanted or {}
    return {
        "prompt": prompt,
        "query": query,
        "instruction_id_list": list(wanted),
        "kwargs": list(wanted.values()),
    }


@pytest.mark.parametrize(
    ("wire", "asked", "answer"),
    [
        ("placeholders", row(NOTE), "Dear [landlord], [your name] here."),
        ("placeholders", row(NOTE), "Dear <insert name>, it leaks."),
        ("placeholders", row(NOTE, KEYWORDS), "I am [Your Name] of the harbour."),
        ("dummy_list", row(NOTE, BULLETS), "* item 1\n* item 2"),
        ("dummy_list", row(NOTE, BULLETS), "* item 1 * item 2"),
        ("dummy_list", row(NOTE, BULLETS), "- a\n- b\n- c"),
        ("dummy_list", row(NOTE), "1. Point one\n2. Point two"),
        ("dummy_list", row(NOTE), "a b c"),
        ("repetition", row(NOTE), "p p p p p"),
        ("repetition", row(NOTE), "It leaks leaks leaks leaks leaks."),
        ("repetition", row(NOTE), "so it is " * 12),
        ("repetition", row(NOTE), "The pump" + ": old pump" * 4 + " leaks in the cellar."),
        ("repetition", row(NOTE), "item: pump, order: 815, " * 4),
        ("echo", row(NOTE), "### Response\nIt leaks."),
        ("echo", row(NOTE), "<|im_start|>assistant It leaks."),
        ("echo", row(NOTE), "Constraints: none. It leaks."),
        (
            "echo",
            row(f"{NOTE}\n\nUse no commas in your whole response.", {"punctuation:no_comma": {}}),
            "use no commas in your whole response",
        ),
        (
            "echo",
            row(
                f"Give your answer in all capital letters. {NOTE}",
                {"change_case:english_capital": {}},
                NOTE,
            ),
            "GIVE YOUR ANSWER IN ALL CAPITAL LETTERS. IT LEAKS.",
        ),
        ("assurance", row(NOTE, KEYWORDS), "All instructions were followed."),
        ("assurance", row(NOTE), "I have followed all of your instructions. It leaks."),
        ("assurance", row(NOTE), "It leaks. Every constraint has been met!"),
        ("keyword_stuffing", row(NOTE, KEYWORDS), "harbour salt"),
        ("keyword_stuffing", row(NOTE, KEYWORDS), "Salt, salt and the harbour."),
        ("empty_shell", row(NOTE), ""),
        ("empty_shell", row(NOTE), " ... \n"),
        ("empty_shell", row(NOTE), "{}"),
        ("empty_shell", row(NOTE), '""'),
        ("empty_shell", row(NOTE), "<<title>>"),
        ("empty_shell", row(NOTE), "```json\n{}\n```"[7:-3]),
        ("empty_shell", row(NOTE), "P.S."),
    ],
)
def test_a_wire_trips_on_its_way_of_cheating(wire: str, asked: Any, answer: str) -> None:
    assert wire in tripped(asked, answer)
    assert wire in tripped(
        {**asked, "prompt": [{"role": "user", "content": asked["prompt"]}]},
        [{"role": "assistant", "content": answer}],
    )


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        pytest.param(row(NOTE), "Dear Ms Ito, the roof leaks. Kind regards, Tero", id="a letter"),
        pytest.param(
            row(NOTE, NUMBER_PLACEHOLDERS), "I am [your name] of [address].", id="asked by id"
        ),
        pytest.param(
            row("Write a letter template."), "Dear [your name], it leaks.", id="asked in words"
        ),
        pytest.param(row(NOTE), "See the list [3] and [see below].", id="brackets of other use"),
        pytest.param(row(NOTE, BULLETS), "* the roof leaks\n* it is cold", id="a real list"),
        pytest.param(row("Multiply."), "* 12\n* 7", id="numbers are answers"),
        pytest.param(
            row("Which of item 1 and item 2 are right?"), "* item 1\n* item 2", id="named in prompt"
        ),
        pytest.param(row("Recite the alphabet."), "a b c d e", id="the alphabet"),
        pytest.param(row("Repeat the word go five times."), "go go go go go", id="repetition"),
        pytest.param(row("Count."), "It leaks. It leaks. It leaks.", id="a phrase three times"),
        pytest.param(row("Poem."), "row row row your boat " * 2, id="a refrain"),
        pytest.param(row("Count.", REPEAT), "Count. one two three", id="repeated prompt"),
        pytest.param(row("Give the digits."), "1 1 1 1 1 1", id="repeated digits"),
        pytest.param(
            row("Fix it:\n\nThe quick brown fox jump over the dog.", {"punctuation:no_comma": {}}),
            "The quick brown fox jump over the dog.",
            id="the query's own text",
        ),
        pytest.param(
            row("Show a prompt with ### Response.", {}, "Show a prompt with ### Response."),
            "### Response",
            id="a mark that was asked for",
        ),
        pytest.param(
            row("End with the sentence.", ENDING),
            "It leaks. All instructions were followed.",
            id="an assurance that was asked for",
        ),
        pytest.param(
            row("Were all instructions followed? Say whether all instructions were followed."),
            "Yes: all instructions were followed.",
            id="an assurance in the prompt",
        ),
        pytest.param(
            row(NOTE, KEYWORDS), "The harbour wall is white with salt.", id="keywords in sentences"
        ),
        pytest.param(
            row("Say only salt and harbour.", KEYWORDS, "Say only salt and harbour."),
            "salt harbour",
            id="nothing but the keywords was asked",
        ),
        pytest.param(row("What is 6 x 7?"), "42", id="a short answer"),
        pytest.param(row("Name the order.", BULLETS), '{"order": "512"}', id="a full object"),
        pytest.param(row(NOTE), "これは屋根の雨漏りについての手紙です。", id="another script"),
    ],
)
def test_no_wire_trips_on_an_honest_answer(asked: Any, answer: str) -> None:
    assert tripped(asked, answer) == ()


def test_every_wire_is_told_with_its_share() -> None:
    rows = [row(NOTE), row(NOTE), row(NOTE, KEYWORDS), row(NOTE)]
    found = watch(rows, ["fine words", "", "harbour salt", "p p p p"])
    assert found.rate == 0.75
    assert found.by_wire == {"repetition": 0.25, "keyword_stuffing": 0.25, "empty_shell": 0.25}
    assert set(found.by_wire) <= set(WIRES)
    assert watch([], []).rate == 0.0


def test_recorded_answers_of_the_embedded_domain_trip_no_wire() -> None:
    from risen_plugin.embedded import orders

    rows = orders.draw(500, 0)
    assert watch(rows, [r["completion"] for r in rows]).rate == 0.0
