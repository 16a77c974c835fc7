"""Where the answer is in a completion, and which answers a scorer is not handed."""

import pytest

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

from risen_reasoning_gym.answers import answer_of, may_be_scored


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("I think.\n<answer>42</answer>", "42"),
        ("<answer>1</answer> no, <answer> 2 </answer> it is", "2"),
        ("<answer>1</answer> and an end </answer>", "1"),
        ("<ANSWER>a\nb</ANSWER>", "a\nb"),
        ("<answer></answer> \\boxed{3}", ""),
        ("so \\boxed{1} or \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("<answer>1</answer> \\boxed{2}", "1"),
        ("open \\boxed{1\nlast", "last"),
        ("First.\n\n  7 \n\n", "7"),
        ("Final answer: 7", "7"),
        ("", ""),
        (" \n ", ""),
    ],
)
def test_the_answer_is_the_last_one_marked_and_else_the_last_line(text, answer):
    assert answer_of(text) == answer


def test_a_hundred_thousand_tags_are_read_in_one_go():
    assert answer_of("<answer>" * 100_000 + "1</answer>") == "1"


@pytest.mark.parametrize("task", ["binary_matrix", "n_queens", "spiral_matrix", "string_insertion"])
@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os').getcwd()",
        "oracle_answer",
        "entry['answer']",
        "[1] * 10**9",
        "[x for x in range(10**9)]",
        "(lambda: 0)()",
        "f'{1}'",
    ],
)
def test_an_answer_that_eval_would_run_is_not_handed_over(task, answer):
    assert not may_be_scored(task, answer, "0 1\n1 0")


@pytest.mark.parametrize("answer", ["[[0, 1], [1, 0]]", "['a', 'b']", "1 2 3", "0 1\n1 0", "_ Q"])
def test_literals_and_what_is_no_python_are_handed_over(answer):
    assert may_be_scored("binary_matrix", answer, "2")


def test_the_right_answer_is_handed_over_even_where_python_would_read_it_as_a_name():
    assert may_be_scored("string_insertion", "ABCDE", "ABCDE")
    assert not may_be_scored("string_insertion", "ABCDE", "ABCDEA")


@pytest.mark.parametrize(
    ("task", "answer", "fits"),
    [
        ("countdown", "(3 + 4) * 25 - 1", True),
        ("countdown", "__import__('os').system('true')", False),
        ("countdown", "().__class__", False),
        ("countdown", "9**9**9**9", False),
        ("countdown", "2**(9*9*9*9*9)", False),
        ("countdown", "x + 1", False),
        ("countdown", "1+" * 400 + "1", False),
        ("countdown", "True", False),
        ("countdown", "99999!", False),
        ("polynomial_multiplication", "12*x**5 - 3*x*y + 7", True),
        ("polynomial_multiplication", "exec(x)", False),
        ("polynomial_multiplication", "x.func(1)", False),
        ("simple_integration", "-3*x**(5/2)/4 + sin(2*x)*exp(x**2) + C", True),
        ("simple_integration", "exp(exp(exp(9)))", False),
        ("simple_integration", "9**(99*99)", False),
        ("simple_integration", "sin", True),
        ("basic_arithmetic", "__import__('os')", True),
    ],
)
def test_a_formula_is_arithmetic_that_stays_small(task, answer, fits):
    assert may_be_scored(task, answer, "24") is fits
