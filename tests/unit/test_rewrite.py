"""The generator rewrite, against the model of a run and against a real server on this machine."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from risen_plugin.builtin.generators.endpoint import Endpoint, NoAnswer
from risen_plugin.builtin.generators.rewrite import Rewrite
from risen_plugin.builtin.generators.wording import cleaned, fault_of_answer
from risen_plugin.errors import ConfigError, DataError, PluginError
from risen_plugin.testing import check_generator

PROMPTS = [f"Describe the {thing} that you like best." for thing in ("river", "tree", "stone")]
KEY = "a-key-that-nobody-may-see"


def question_in(told: str) -> str:
    return told.partition("<request>\n")[2].partition("\n</request>")[0]


def other_words(told: str) -> str:
    """A model that puts requests in other words."""
    thing = question_in(told).split()[2]
    return f'Rewritten request: "Which {thing} would you call your favourite, and why is it so?"'


def generate(prompts: list[Any]) -> list[str]:
    return [other_words(prompt[0]["content"]) for prompt in prompts]


def rewrite(**options: Any) -> Rewrite:
    base = {"prompts": PROMPTS, **options.pop("constraints", {})}
    return Rewrite(base, **options)


def draw(generator: Rewrite, count: int = 3, **context: Any) -> list[Any]:
    return list(generator(count=count, seed=0, pass_rates={}, **context))


def queries(rows: list[Any]) -> list[str]:
    return [row["query"][0]["content"] for row in rows]


# The model that is being trained


def test_the_model_of_the_run_rewrites_and_constraints_are_added() -> None:
    rows = draw(rewrite(), generate=generate)
    assert sorted(queries(rows)) == [
        f"Which {thing} would you call your favourite, and why is it so?"
        for thing in ("river", "stone", "tree")
    ]
    for row in rows:
        assert row["prompt"][0]["content"].startswith(queries([row])[0] + "\n\n")
        assert row["level"] == len(row["instruction_id_list"]) >= 1


def test_it_keeps_the_contract_of_a_generator() -> None:
    check_generator(rewrite(constraints={"maximum": 4}), count=20, generate=generate)


def test_without_a_model_to_ask_it_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"no 'generate'; give base_url and model"):
        draw(rewrite())


def test_text_prompts_are_asked_for_as_text() -> None:
    asked: list[Any] = []

    def answer(prompts: list[Any]) -> list[str]:
        asked.extend(prompts)
        return [other_words(prompt) for prompt in prompts]

    rows = draw(rewrite(constraints={"chat": False}), generate=answer)
    assert all(isinstance(prompt, str) for prompt in asked)
    assert all(isinstance(row["prompt"], str) for row in rows)


@pytest.mark.parametrize("wrong", [[], ["a"], "abc", [None] * 3])
def test_a_model_of_the_run_that_breaks_its_promise_is_an_error(wrong: Any) -> None:
    with pytest.raises(PluginError, match="must return a list of 3 texts"):
        draw(rewrite(), generate=lambda prompts: wrong)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "no text"),
        ("<think>What shall I", "no text"),
        ("Rivers", "too short"),
        ("I'm sorry, but I can't help with that.", "a refusal"),
        ("x " * 3000, "too long"),
        (PROMPTS[0], "near-duplicate"),
    ],
)
def test_what_cannot_be_used_falls_back_to_the_prompt_and_is_counted(
    answer: str, reason: str
) -> None:
    generator = rewrite()
    rows = draw(generator, generate=lambda prompts: [answer] * len(prompts))
    assert sorted(queries(rows)) == sorted(PROMPTS)
    assert generator.report().dropped == {f"answer of the model: {reason}": 3}


def test_an_answer_that_was_given_before_is_not_used_again() -> None:
    generator = rewrite()
    same = "Which thing in nature do you like, and why?"
    rows = draw(generator, generate=lambda prompts: [same] * len(prompts))
    assert queries(rows).count(same) == 1
    assert generator.report().dropped == {"answer of the model: near-duplicate": 2}


def test_an_answer_out_of_an_evaluation_file_is_not_used(tmp_path: Path) -> None:
    leaked = "How many apples are left when Tom gives away two of his seven?"
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": leaked}))
    generator = rewrite(constraints={"against": [str(path)]})
    draw(generator, generate=lambda prompts: [leaked] * len(prompts))
    assert generator.report().dropped == {"answer of the model: overlaps with test.jsonl": 3}


def test_rows_that_state_constraints_are_not_rewritten() -> None:
    stated = {
        "prompt": "Why? No commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    }
    generator = Rewrite({"rows": [stated]})
    rows = draw(generator, 1, generate=lambda prompts: [other_words(p) for p in prompts])
    assert queries(rows) == ["Why? No commas."]
    assert generator.report().dropped == {"not asked: the row states constraints": 1}


def test_rewritten_rows_keep_their_columns_and_invented_ones_have_none() -> None:
    base = {"rows": [{"prompt": prompt, "answer": "yes"} for prompt in PROMPTS], "prompts": None}
    assert all(row["answer"] == "yes" for row in draw(rewrite(constraints=base), generate=generate))
    generator = rewrite(constraints=base, mode="invent")
    fresh = ["Name a bird.", "Sing of the sea at night.", "What is dew?"]
    rows = draw(generator, generate=lambda prompts: fresh)
    assert queries(rows) == fresh
    assert all("answer" not in row for row in rows)
    assert "answer" not in generator.columns


def test_a_model_that_invents_is_shown_examples() -> None:
    shown: list[str] = []

    def answer(prompts: list[Any]) -> list[str]:
        shown.extend(prompt[0]["content"] for prompt in prompts)
        return ["Name a bird."] * len(prompts)

    draw(rewrite(mode="invent", examples=2), 1, generate=answer)
    assert shown[0].count("<request>") == 2


def test_a_share_of_the_prompts_stays() -> None:
    prompts = [f"Tell me about {number} of them." for number in range(200)]
    asked: list[Any] = []

    def answer(prompts: list[Any]) -> list[str]:
        asked.extend(prompts)
        return [""] * len(prompts)

    draw(Rewrite({"prompts": prompts}, share=0.25), 200, generate=answer)
    assert 30 <= len(asked) <= 70


def test_a_resumed_run_goes_on_where_it_was() -> None:
    first = rewrite()
    draw(first, generate=generate)
    state = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    second = rewrite()
    second.load_state_dict(state)
    assert draw(second, generate=generate) == draw(first, generate=generate)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("  Name a river. ", "Name a river."),
        ('"Name a river."', "Name a river."),
        ("\u201cName a river.\u201d", "Name a river."),
        ("Here is the rewritten request:\n\nName a river.", "Name a river."),
        ("**Request:** Name a river.", "Name a river."),
        ("<think>Hm. A river?</think>\nName a river.", "Name a river."),
        ("<request>\nName a river.\n</request>", "Name a river."),
        ('"Yes" or "no"', '"Yes" or "no"'),
        ("Request a river's name.", "Request a river's name."),
    ],
)
def test_what_stands_around_a_request_is_taken_away(answer: str, text: str) -> None:
    assert cleaned(answer) == text
    assert fault_of_answer(text) is None


# An endpoint

Reply = Callable[[dict[str, Any]], tuple[int, bytes]]


class Server:
    """A chat endpoint whose answers the test decides, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.reply: Reply = lambda body: said(other_words(body["messages"][0]["content"]))
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.asked.append(body)
                server.keys.append(self.headers["Authorization"])
                status, content = server.reply(body)
                try:
                    self.send_response(status)
                    if status == 302:
                        self.send_header("Location", f"{server.url}/elsewhere")
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # who asked has gone

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


def said(text: Any) -> tuple[int, bytes]:
    return 200, json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    made = Server()
    yield made
    made.close()


def at(server: Server, **options: Any) -> Rewrite:
    return rewrite(base_url=server.url, model="tiny", **{"retries": 0, "parallel": 1, **options})


def endpoint(server: Server, **options: Any) -> Endpoint:
    pauses: list[float] = []
    made = Endpoint(server.url, "tiny", parallel=1, sleep=pauses.append, **options)
    made.pauses = pauses  # type: ignore[attr-defined]
    return made


def body(text: str = "Hello") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def test_an_endpoint_rewrites(server: Server) -> None:
    rows = draw(at(server, temperature=0.5))
    assert all(query.startswith("Which ") for query in queries(rows))
    assert {asked["model"] for asked in server.asked} == {"tiny"}
    assert {asked["temperature"] for asked in server.asked} == {0.5}
    assert len({asked["seed"] for asked in server.asked}) == 3


def test_an_endpoint_that_is_down_costs_one_round_and_the_prompts_stay(server: Server) -> None:
    server.reply = lambda body: (500, b"")
    generator = at(server)
    assert sorted(queries(draw(generator))) == sorted(PROMPTS)
    assert generator.report().dropped == {
        "no answer: HTTP 500": 1,
        "no answer: not asked, since the requests before failed": 2,
    }
    assert len(server.asked) == 1


def test_a_port_where_nobody_listens_is_no_answer(server: Server) -> None:
    server.close()
    [answer] = endpoint(server, retries=1).ask([body()])
    assert isinstance(answer, NoAnswer)
    assert answer.reason.startswith("the endpoint cannot be reached (")


def test_a_slow_endpoint_is_given_up_at_the_limit(server: Server) -> None:
    gone = threading.Event()

    def wait(body: Any) -> tuple[int, bytes]:
        gone.wait(5)
        return said("late")

    server.reply = wait
    [answer] = endpoint(server, retries=0, request_timeout_s=0.05).ask([body()])
    gone.set()
    assert answer == NoAnswer("no answer within 0.05 s")


def test_an_answer_that_drips_is_given_up_at_the_limit(server: Server) -> None:
    times = iter([0.0, 99.0, 99.0])
    made = endpoint(server, retries=0, request_timeout_s=5.0, clock=lambda: next(times))
    assert made.ask([body("<request>\na b river\n</request>")]) == [
        NoAnswer("no answer within 5 s")
    ]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ((200, b"<html>"), "the response is no chat completion"),
        ((200, b'{"choices": []}'), "the response is no chat completion"),
        ((200, b"[" * 100_000), "the response is no chat completion"),
        ((200, b"\xff\xfe"), "the response is no chat completion"),
        (said(None), "the response holds no text"),
        (said("  "), "the response holds no text"),
        ((429, b""), "HTTP 429"),
    ],
)
def test_nonsense_is_asked_for_again_and_then_given_up(
    server: Server, reply: tuple[int, bytes], reason: str
) -> None:
    server.reply = lambda body: reply
    made = endpoint(server, retries=2, backoff_s=0.5)
    assert made.ask([body()]) == [NoAnswer(f"{reason} after 3 requests")]
    assert len(server.asked) == 3
    assert made.pauses == [0.5, 1.0]  # type: ignore[attr-defined]


def test_an_answer_after_an_outage_is_used(server: Server) -> None:
    replies = [(503, b""), said("Here I am.")]
    server.reply = lambda body: replies.pop(0)
    assert endpoint(server, retries=1).ask([body()]) == ["Here I am."]


@pytest.mark.parametrize("status", [400, 401, 404, 302])
def test_what_will_not_go_better_is_not_tried_again(server: Server, status: int) -> None:
    server.reply = lambda body: (status, b"")
    made = endpoint(server, retries=2)
    assert made.ask([body()]) == [NoAnswer(f"HTTP {status}")]
    assert len(server.asked) == 1  # a redirect is not followed either


def test_an_answer_without_end_is_cut_off(server: Server) -> None:
    server.reply = lambda body: (200, b"x" * 5_000_000)
    [answer] = endpoint(server).ask([body()])
    assert answer == NoAnswer("the response is larger than 4000000 bytes")


def test_the_budget_counts_every_request(server: Server) -> None:
    made = endpoint(server, retries=0, budget=2)
    texts = [f"<request>\na b {number}\n</request>" for number in range(3)]
    answers = made.ask([body(text) for text in texts])
    assert [isinstance(answer, str) for answer in answers] == [True, True, False]
    assert answers[2] == NoAnswer("the budget of 2 requests is spent")
    assert made.spent == len(server.asked) == 2


def test_a_budget_that_is_spent_stays_so_after_a_resume(server: Server) -> None:
    first = at(server, budget=2)
    draw(first)
    second = at(server, budget=2)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    draw(second)
    assert len(server.asked) == 2


def test_the_cache_answers_without_the_endpoint(server: Server, tmp_path: Path) -> None:
    cache = tmp_path / "new" / "cache.jsonl"
    rows = draw(at(server, cache=str(cache)))
    with cache.open("a") as file:
        file.write('{"key": "torn')  # as a run that was killed leaves it
    server.reply = lambda body: (500, b"")
    assert draw(at(server, cache=str(cache))) == rows
    assert len(server.asked) == 3


def test_the_key_comes_from_the_environment_and_stands_nowhere(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    cache = tmp_path / "cache.jsonl"
    generator = at(server, api_key_env="MY_KEY", cache=str(cache))
    rows = draw(generator)
    assert set(server.keys) == {f"Bearer {KEY}"}
    told = [repr(generator), json.dumps(generator.state_dict()), json.dumps(rows)]
    told += [cache.read_text(), str(generator.report()), repr(pickle.dumps(generator))]
    assert not any(KEY in text for text in told)


def test_a_pickled_generator_goes_on_as_the_original(server: Server) -> None:
    generator = at(server)
    twin = pickle.loads(pickle.dumps(generator))
    assert draw(twin) == draw(generator)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "translate"}, "mode must be rewrite or invent"),
        ({"share": 2.0}, "share must be from 0 to 1"),
        ({"examples": 0}, "examples must be at least 1"),
        ({"near": 0.0}, "near must be above 0"),
        ({"model": "tiny"}, "base_url and model belong together"),
        ({"base_url": "file:///etc", "model": "m"}, "is no address like http://localhost:8000/v1"),
        (
            {"base_url": "http://me:secret@host/v1", "model": "m"},
            "base_url holds a user, a password",
        ),
        (
            {"base_url": "http://host", "model": "m", "request_timeout_s": 0},
            "request_timeout_s must be above 0",
        ),
        ({"base_url": "http://host", "model": "m", "retries": -1}, "retries must be at least 0"),
        (
            {"base_url": "http://host", "model": "m", "api_key_env": "RISEN_NO_SUCH_KEY"},
            "there is no environment variable 'RISEN_NO_SUCH_KEY', or it is empty",
        ),
        ({"constraints": {"minimum": 0}}, "rewrite: constraints: minimum must be at least 1"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        rewrite(**options)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_bad_prompts_are_errors_as_everywhere() -> None:
    with pytest.raises(DataError, match="the prompt is empty"):
        draw(Rewrite({"prompts": [" "]}), generate=generate)
