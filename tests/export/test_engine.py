"""The engine on a tiny bundle: whatever is answered together is answered as if alone."""

from __future__ import annotations

import json
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from benchmarks import engine_mixes as mixing
from benchmarks.engine_mixes import ADAPTERS, factors
from risen_export import Bundle, export
from risen_export.bundles.manifest import ADAPTED_GRAPH, ENGINE_GRAPH
from risen_export.bundles.sites import Site
from risen_export.engine.engine import Engine
from risen_export.engine.requests import Grammar, Request, Sampling
from risen_export.engine.settings import BusyError, EngineSettings
from risen_export.engine.worker import Worker
from risen_plugin.errors import DataError, ExportError

LOGPROB = 1e-3  # nats, against PyTorch


@pytest.fixture(scope="module")
def bundle(tied_model: Any, tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that keeps adapters apart."""
    folder = tmp_path_factory.mktemp("engine")
    tied_model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    export(folder / "model", folder / "bundle", ("fp32",), separate=True, progress=False)
    return folder / "bundle" / "fp32"


@pytest.fixture(scope="module")
def sites(bundle: Path) -> list[Site]:
    return Bundle.open(bundle).sites


def opened(bundle: Path, sites: list[Site] | None = None, **settings: Any) -> Engine:
    engine = Engine.open(bundle, settings=EngineSettings(**{"rows": 4, **settings}))
    for number, (name, rank) in enumerate(ADAPTERS.items() if sites else ()):
        engine.load_adapter(name, factors(sites or [], number, rank))
    return engine


def prompt(seed: int, length: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng(seed).integers(0, 280, length).tolist())


def asked(ids: tuple[int, ...], tokens: int = 8, **more: Any) -> Request:
    return Request(ids, max_new_tokens=tokens, ignore_eos=True, text=False, **more)


# The same answers --------------------------------------------------------------------------------


def test_random_mixes_are_answered_as_each_request_alone(bundle: Path, sites: list[Site]) -> None:
    """Lengths, arrivals, cancellations, adapters and common beginnings at random, 40 mixes."""
    alone = Bundle.open(bundle)
    adapters = mixing.adapters_for(sites)
    choices = mixing.requests(seed=0, count=24, vocabulary=280, adapters=list(ADAPTERS))
    known = {one: mixing.alone(alone, one, adapters) for one in choices}
    engine = opened(bundle, sites, rows=3, chunk=16)
    assert [wrong for wrong in mixing.mixes(engine, known, adapters, 40, seed=0) if wrong] == []
    assert engine.stats().reused > 0
    assert engine.stats().running == engine.stats().waiting == 0


@pytest.mark.parametrize("name", ["temperature 1", "all of them"])
def test_drawn_tokens_follow_their_distribution(bundle: Path, name: str) -> None:
    one, ids, count = mixing.SAMPLINGS[name], prompt(16, 12), 1500
    logits = Bundle.open(bundle).logits(np.asarray([ids]))[0, -1]
    expected = mixing.distribution(logits, one) * count
    drawn = mixing.draws(opened(bundle, rows=16, waiting=count), ids, one, count)
    assert mixing.chi_square(drawn, expected)[1] >= mixing.LEAST_P
    another = mixing.distribution(logits, Sampling(0.6)) * count
    assert mixing.chi_square(drawn, another)[1] < mixing.LEAST_P


def take(engine: Engine, got: dict[int, list[int]]) -> None:
    for piece in engine.step():
        got[piece.request] += piece.ids


def test_an_answer_with_a_seed_is_the_same_whatever_is_beside_it(bundle: Path) -> None:
    one = asked(prompt(1, 9), 20, sampling=Sampling(seed=7), n=2)
    others = [asked(prompt(n, n + 3), 15, sampling=Sampling()) for n in range(5)]
    alone = opened(bundle).run([one])[0]
    beside = opened(bundle, chunk=4).run([*others, one, *others])[5]
    assert [answer.ids for answer in beside] == [answer.ids for answer in alone]
    assert alone[0].ids != alone[1].ids
    assert opened(bundle).run([asked(one.ids, 20, sampling=Sampling(seed=8))])[0][0].ids not in (
        alone[0].ids,
        alone[1].ids,
    )


def test_log_probabilities_are_those_of_pytorch(bundle: Path, tied_model: Any) -> None:
    one = asked(prompt(3, 12), 16, sampling=Sampling(0.7, seed=1, logprobs=3, scaled_logprobs=True))
    answer = opened(bundle).run([one])[0][0]
    ids = torch.tensor([[*one.ids, *answer.ids]])
    with torch.no_grad():
        logits = tied_model(ids).logits[0, len(one.ids) - 1 : -1] / 0.7
    expected = torch.log_softmax(logits.double(), -1)
    for line, given in enumerate(answer.logprobs):
        assert given.token == answer.ids[line]
        assert given.logprob == pytest.approx(float(expected[line, given.token]), abs=LOGPROB)
        best = expected[line].topk(3)
        assert [token for token, _ in given.likeliest] == best.indices.tolist()
        assert [number for _, number in given.likeliest] == pytest.approx(
            best.values.tolist(), abs=LOGPROB
        )


def test_log_probabilities_are_the_model_s_own_unless_scaled(bundle: Path) -> None:
    ids = prompt(3, 12)
    own = opened(bundle).run([asked(ids, 4, sampling=Sampling(0.0, logprobs=0))])[0][0]
    penalized = Sampling(0.0, logprobs=0, logit_bias={own.ids[0]: 5.0})
    biased = opened(bundle).run([asked(ids, 1, sampling=penalized)])[0][0]
    assert biased.logprobs[0].logprob == pytest.approx(own.logprobs[0].logprob, abs=1e-5)


def test_a_prompt_is_read_without_the_logits_that_nobody_asks_for(
    bundle: Path, tmp_path: Path
) -> None:
    """The graph for engines computes them for asked tokens, and they are the same."""
    whole = tmp_path / "fp32"
    shutil.copytree(bundle, whole)
    for name in (ENGINE_GRAPH, ADAPTED_GRAPH):
        (whole / name).unlink()
    one = asked(prompt(15, 70), 10, sampling=Sampling(0.0, logprobs=0))
    answers = []
    for folder, asks in ((bundle, True), (whole, False)):
        engine = Engine(folder, EngineSettings(rows=2, chunk=32))
        assert engine._graphs._graph.asks == asks
        answers.append(engine.run([one, one])[0][0])
    assert answers[0].ids == answers[1].ids
    assert [one.logprob for one in answers[0].logprobs] == pytest.approx(
        [one.logprob for one in answers[1].logprobs], abs=1e-5
    )


def test_the_prompt_of_a_group_is_read_once(bundle: Path) -> None:
    engine = opened(bundle)
    ids = prompt(4, 50)
    engine.run([asked(ids, 3, n=4, sampling=Sampling(seed=1))])
    assert (engine.stats().read, engine.stats().reused) == (50, 3 * 49)
    engine.run([asked((*ids, 5, 6), 3)])
    assert (engine.stats().read, engine.stats().reused) == (52, 3 * 49 + 50)


def test_what_was_read_with_another_version_of_an_adapter_is_not_reused(
    bundle: Path, sites: list[Site]
) -> None:
    engine = opened(bundle, sites)
    one = asked(prompt(5, 30), 6, adapter="one")
    first = engine.run([one])[0][0].ids
    assert engine.load_adapter("one", factors(sites, 50, 4)) == 2
    reused = engine.stats().reused
    second = engine.run([one])[0][0].ids
    assert engine.stats().reused == reused
    assert second != first
    assert second == opened_with(bundle, sites, 50).run([one])[0][0].ids


def opened_with(bundle: Path, sites: list[Site], seed: int) -> Engine:
    engine = opened(bundle)
    engine.load_adapter("one", factors(sites, seed, 4))
    return engine


def test_rows_keep_the_adapter_that_they_began_with(bundle: Path, sites: list[Site]) -> None:
    one = asked(prompt(6, 10), 12, adapter="one")
    expected = opened(bundle, sites).run([one])[0][0].ids
    engine = opened(bundle, sites)
    number = engine.submit(one)
    got: dict[int, list[int]] = {number: []}
    for _ in range(4):
        take(engine, got)
    engine.load_adapter("one", factors(sites, 60, 4))
    engine.load_adapter("two", factors(sites, 61, 4))
    engine.remove_adapter("one")
    while engine.busy:
        take(engine, got)
    assert got[number] == list(expected)
    with pytest.raises(DataError, match="no adapter 'one'"):
        engine.submit(one)


def test_a_saved_adapter_answers_as_in_peft(bundle: Path, tied_model: Any, tmp_path: Path) -> None:
    import copy

    torch.manual_seed(3)
    wrapped = get_peft_model(
        copy.deepcopy(tied_model),
        LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False),
    ).eval()
    wrapped.save_pretrained(tmp_path / "adapter")
    engine = opened(bundle)
    engine.load_adapter("mine", tmp_path / "adapter")
    ids = prompt(7, 20)
    answer = engine.run([asked(ids, 1, adapter="mine", sampling=Sampling(0.0, logprobs=20))])[0][0]
    with torch.no_grad():
        expected = torch.log_softmax(wrapped(torch.tensor([ids])).logits[0, -1].double(), -1)
    assert dict(answer.logprobs[0].likeliest) == pytest.approx(
        {token: float(expected[token]) for token, _ in answer.logprobs[0].likeliest}, abs=LOGPROB
    )


def test_the_graph_for_adapters_is_opened_once_and_beside_the_steps(
    bundle: Path, sites: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    from risen_export.engine import graphs

    engine = opened(bundle)
    threads: list[str] = []
    real = graphs.open_session

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return real(*arguments)

    monkeypatch.setattr(graphs, "open_session", noted)
    beside = threading.Thread(target=engine.open_adapters, name="beside")
    beside.start()
    beside.join()
    engine.load_adapter("one", factors(sites, 50, 4))
    engine.load_adapter("two", factors(sites, 51, 4))
    assert threads == ["beside"]


def test_an_adapter_of_another_graph_is_refused(
    bundle: Path, tied_bundle: Path, sites: list[Site]
) -> None:
    engine = opened(bundle)
    with pytest.raises(DataError, match="'odd' is for another graph, which takes nothing"):
        engine.load_adapter("odd", {"nothing": np.zeros((1, 2, 2), np.float32)})
    wrong = {sites[0].down: np.zeros((1, sites[0].inputs + 1, 2), np.float32)}
    with pytest.raises(DataError, match="is for another graph: its"):
        engine.load_adapter("odd", wrong)
    assert engine.adapters == {}
    with pytest.raises(ExportError, match="takes no adapters"):
        Engine.open(tied_bundle).load_adapter("odd", wrong)


# Ends --------------------------------------------------------------------------------------------


def test_answers_end_at_tokens_texts_and_lengths(bundle: Path) -> None:
    engine = opened(bundle)
    ids = prompt(8, 10)
    whole = engine.run([Request(ids, 12, ignore_eos=True)])[0][0]
    assert whole.finish == "length"
    assert len(whole.ids) == 12
    assert whole.text == engine.tokenizer.decode(whole.ids)
    ended = engine.run([Request(ids, 12, stop_ids=frozenset({whole.ids[5]}), ignore_eos=True)])[0][
        0
    ]
    assert ended.finish == "stop"
    assert ended.ids == whole.ids[: whole.ids.index(whole.ids[5]) + 1]
    assert ended.text == engine.tokenizer.decode(ended.ids[:-1])


def test_an_answer_ends_where_the_context_does(bundle: Path) -> None:
    engine = opened(bundle, context=64)
    answer = engine.run([asked(prompt(9, 60), 50)])[0][0]
    assert (len(answer.ids), answer.finish) == (4, "length")
    with pytest.raises(DataError, match=r"has 64 tokens and leaves no room.*at most 64"):
        engine.submit(asked(prompt(9, 64)))
    with pytest.raises(DataError, match="the prompt has token 999"):
        engine.submit(asked((999,)))
    with pytest.raises(DataError, match="logit_bias has token 999"):
        engine.submit(asked((1,), sampling=Sampling(logit_bias={999: 1.0})))


@pytest.mark.parametrize(
    ("grammar", "matches"),
    [
        (Grammar("regex", "(yes|no), [0-9]{3}"), r"(yes|no), \d{3}"),
        (
            Grammar(
                "json_schema",
                '{"type": "object", "properties": {"ok": {"type": "boolean"}}, '
                '"required": ["ok"], "additionalProperties": false}',
            ),
            r'\{\s*"ok"\s*:\s*(true|false)\s*\}',
        ),
        (Grammar("lark", 'start: "a" "b"+ "c"'), "ab+c"),
        (Grammar("lark", 'start: "a" start | "b"'), "a*b"),
    ],
)
def test_a_grammar_holds_every_answer_to_it(bundle: Path, grammar: Grammar, matches: str) -> None:
    one = Request(prompt(10, 8), 40, Sampling(seed=2), n=3, grammar=grammar)
    for answer in opened(bundle).run([one])[0]:
        if answer.finish == "stop":
            assert re.fullmatch(matches, answer.text)
    assert any(answer.finish == "stop" for answer in opened(bundle).run([one])[0])


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        (Grammar("regex", "(unclosed"), "the regex cannot be followed"),
        (Grammar("json_schema", "{not json"), "is not JSON"),
        (Grammar("json_schema", "[" * 1000 + "]" * 1000), "nested deeper than 64"),
        (Grammar("json_schema", '{"$ref": "#"}'), "contain another one, without end"),
        (Grammar("lark", "start: unknown_rule"), "the lark cannot be followed"),
        (Grammar("lark", "start: start"), "ask for themselves again"),
        (Grammar("lark", "start: a\na: b\nb: a"), "ask for themselves again"),
        (Grammar("regex", "a" * 300_000), "has 300000 characters"),
    ],
)
def test_what_is_no_grammar_is_refused(bundle: Path, grammar: Grammar, said: str) -> None:
    with pytest.raises(DataError, match=said) as refused:
        opened(bundle).submit(Request(prompt(10, 8), 40, grammar=grammar))
    assert "\n" not in str(refused.value)


def test_a_grammar_in_which_tokens_follow_without_end_finishes_by_length(bundle: Path) -> None:
    one = Request(prompt(10, 8), 12, grammar=Grammar("lark", 'start: a\na: ("x" | "y") a'))
    (answer,) = opened(bundle).run([one])[0]
    assert (answer.finish, set(answer.text)) == ("length", {*answer.text} & {"x", "y"})


# Bounds ------------------------------------------------------------------------------------------


def test_more_than_may_wait_is_refused_with_a_time(bundle: Path) -> None:
    engine = opened(bundle, rows=2, waiting=3)
    for _ in range(5):
        engine.submit(asked(prompt(11, 5)))
    with pytest.raises(BusyError, match="try again later") as refused:
        engine.submit(asked(prompt(11, 5)))
    assert refused.value.retry_after >= 1
    while engine.busy:
        engine.step()
    engine.submit(asked(prompt(11, 5), n=5))
    with pytest.raises(BusyError):
        engine.submit(asked(prompt(11, 5), n=2))


def test_memory_that_does_not_suffice_is_refused_before_it_is_used(bundle: Path) -> None:
    with pytest.raises(DataError, match="answers of 256 tokens take"):
        opened(bundle, rows=1000, context=256, memory=10_000_000)


def test_the_model_s_own_length_holds_where_the_request_names_none(
    bundle: Path, tmp_path: Path
) -> None:
    limited = shutil.copytree(bundle, tmp_path / "fp32")
    path = limited / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_length": 30}))
    engine = Engine(limited, EngineSettings(rows=2))
    free = Request(prompt(9, 20), ignore_eos=True, text=False)
    assert len(engine.run([free])[0][0].ids) == 10
    assert len(engine.run([asked(prompt(9, 20), 15)])[0][0].ids) == 15
    with pytest.raises(DataError, match=r"end prompt and answer at 30 \(max_length\)"):
        engine.submit(Request(prompt(9, 30)))


def test_a_device_that_this_engine_does_not_run_on_is_refused(bundle: Path) -> None:
    with pytest.raises(ExportError, match="this engine runs on the CPU; on cuda take"):
        Engine.open(bundle, device="cuda")


def test_a_request_that_is_cancelled_ends_and_frees_its_row(bundle: Path) -> None:
    engine = opened(bundle, rows=1)
    first, second = engine.submit(asked(prompt(12, 9), 50)), engine.submit(asked(prompt(13, 9)))
    engine.step()
    engine.cancel(first)
    pieces = engine.step()
    assert pieces[0].finish == "cancelled"
    assert {piece.request for piece in pieces[1:]} == {second}
    engine.cancel(1234)
    while engine.busy:
        pieces += engine.step()
    assert pieces[-1].finish == "length"


# In a thread -------------------------------------------------------------------------------------


def test_many_threads_ask_one_engine(bundle: Path) -> None:
    worker = Worker(opened(bundle))
    worker.start()
    expected = opened(bundle).run([asked(prompt(n, 6 + n)) for n in range(8)])
    got: dict[int, list[int]] = {n: [] for n in range(8)}
    done = [threading.Event() for _ in range(8)]

    def ask(n: int) -> None:
        def on_piece(piece: Any) -> None:
            got[n].extend(piece.ids)
            if piece.finish is not None:
                done[n].set()

        worker.submit(asked(prompt(n, 6 + n)), on_piece).result(10)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(event.wait(20) for event in done)
    assert [got[n] for n in range(8)] == [list(one[0].ids) for one in expected]
    with pytest.raises(DataError, match="leaves no room"):
        worker.submit(asked(prompt(1, 300)), lambda _: None).result(10)
    assert worker.call(lambda: worker.engine.stats().running).result(10) == 0
    assert worker.stop(timeout=10)
    with pytest.raises(ExportError, match="has stopped"):
        worker.submit(asked(prompt(1, 3)), lambda _: None).result(1)


def test_stopping_finishes_what_was_begun_or_cancels_it(bundle: Path) -> None:
    for drain, finish in ((True, "length"), (False, "cancelled")):
        worker = Worker(opened(bundle))
        ends: list[str | None] = []
        worker.start()
        worker.submit(asked(prompt(1, 6), 60), lambda piece, ends=ends: ends.append(piece.finish))
        assert worker.stop(drain=drain, timeout=20)
        assert ends[-1] == finish


def test_whoever_waits_is_told_when_the_engine_fails(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(bundle)
    worker = Worker(engine)
    told: list[BaseException] = []

    def fail() -> None:
        raise ExportError("the graph gives NaN")

    monkeypatch.setattr(engine, "step", fail)
    worker.submit(asked(prompt(1, 6)), lambda _: None, told.append)
    worker.start()
    worker._thread.join(10)
    assert str(told[0]) == "the graph gives NaN"
    assert not worker.alive
    with pytest.raises(ExportError, match="has stopped"):
        worker.call(lambda: 1).result(1)
