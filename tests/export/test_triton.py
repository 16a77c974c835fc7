"""The model repository for Triton, its model.py run against a stand-in of Triton's interface."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from risen_export.engine.engine import Engine
from risen_export.engine.requests import Request
from risen_export.engine.settings import EngineSettings
from risen_export.serving.triton_repository import write_repository
from risen_plugin.cli import command_line
from risen_plugin.errors import ConfigError

pytest.importorskip("starlette", reason="the extra serve is not installed")
pytestmark = pytest.mark.slow
FINAL = 1
HELLO: list[Any] = [{"role": "user", "content": "hello"}]


# The documented interface of triton_python_backend_utils, as far as model.py uses it.


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        assert isinstance(array, np.ndarray)
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array


class TritonError:
    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, CANCELLED = range(7)

    def __init__(self, message: str, code: int = 1) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class InferenceResponse:
    def __init__(self, output_tensors: Any = (), error: TritonError | None = None) -> None:
        self._tensors, self._error = list(output_tensors), error

    def output_tensors(self) -> list[Tensor]:
        return self._tensors

    def error(self) -> TritonError | None:
        return self._error


class Sender:
    """Triton's response sender: after the last response nothing can be sent."""

    def __init__(self) -> None:
        self.sent: list[InferenceResponse] = []
        self.final = threading.Event()
        self.began = threading.Event()
        self.cancelled = False

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        assert not self.final.is_set()
        assert response is not None or flags == FINAL
        if response is not None:
            self.sent.append(response)
        self.began.set()
        if flags == FINAL:
            self.final.set()

    def is_cancelled(self) -> bool:
        return self.cancelled


class InferenceRequest:
    def __init__(self, **inputs: Any) -> None:
        self.inputs = {
            name: Tensor(name, np.array([value if isinstance(value, bool) else value.encode()]))
            if isinstance(value, bool)
            else Tensor(name, np.array([value.encode()], object))
            for name, value in inputs.items()
        }
        self.sender = Sender()

    def get_response_sender(self) -> Sender:
        return self.sender


def stand_in() -> ModuleType:
    module: Any = ModuleType("triton_python_backend_utils")
    module.Tensor, module.InferenceResponse = Tensor, InferenceResponse
    module.TritonError, module.TRITONSERVER_RESPONSE_COMPLETE_FINAL = TritonError, FINAL
    module.get_input_tensor_by_name = lambda request, name: request.inputs.get(name)
    return module


@pytest.fixture(scope="module")
def repository(apart_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "models"
    command = ["triton", str(apart_bundle), str(folder), "--name", "tiny", "--rows", "4"]
    done = CliRunner().invoke(command_line(), command)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def model(repository: Path) -> Iterator[Any]:
    """The repository's model, as Triton begins it."""
    folder = repository / "tiny"
    config = (folder / "config.pbtxt").read_text(encoding="utf-8")
    found = re.findall(r'key: "(\w+)" value \{ string_value: "([^"]*)" \}', config)
    parameters = {name: {"string_value": value} for name, value in found}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "triton_python_backend_utils", stand_in())
        spec = importlib.util.spec_from_file_location("of_triton", folder / "1" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    one = module.TritonPythonModel()
    one.initialize(
        {
            "model_config": json.dumps({"parameters": parameters}),
            "model_repository": str(folder),
            "model_version": "1",
            "model_name": "tiny",
        }
    )
    yield one
    one.finalize()


def asked(model: Any, *requests: InferenceRequest) -> list[Sender]:
    """The senders of requests, which have all been answered."""
    assert model.execute(list(requests)) is None
    assert all(request.sender.final.wait(30) for request in requests)
    return [request.sender for request in requests]


def texts(sender: Sender, name: str = "text_output") -> list[str]:
    found = []
    for response in sender.sent:
        assert response.error() is None, response.error().message()  # type: ignore[union-attr]
        tensors = {one.name(): one.as_numpy() for one in response.output_tensors()}
        found += [one.decode() for one in tensors[name]]
    return found


def parameters(**more: Any) -> str:
    return json.dumps({"max_tokens": 12, "temperature": 0, "ignore_eos": True, **more})


@pytest.fixture(scope="module")
def alone(apart_bundle: Path) -> Any:
    engine = Engine.open(apart_bundle, settings=EngineSettings(rows=1))

    def answer(prompt: Any) -> str:
        ids = tuple(engine.tokenizer.encode(prompt))
        return engine.run([Request(ids, 12, ignore_eos=True)])[0][0].text

    return answer


def test_the_repository_has_what_triton_reads(repository: Path) -> None:
    config = (repository / "tiny" / "config.pbtxt").read_text(encoding="utf-8")
    assert 'name: "tiny"\nbackend: "python"\n' in config
    assert "model_transaction_policy { decoupled: true }" in config
    assert config.count("{") == config.count("}")
    assert (repository / "tiny" / "1" / "bundle" / "manifest.json").is_file()
    assert sorted(one.name for one in repository.iterdir()) == ["tiny"]


def test_requests_of_a_batch_are_answered_as_each_alone(model: Any, alone: Any) -> None:
    prompts = ["hello", "one two three", "x"]
    senders = asked(
        model,
        *(InferenceRequest(text_input=one, sampling_parameters=parameters()) for one in prompts),
        InferenceRequest(messages=json.dumps(HELLO), sampling_parameters=parameters()),
    )
    assert [texts(one) for one in senders] == [[alone(one)] for one in [*prompts, HELLO]]
    assert [texts(one, "finish_reason") for one in senders] == [["length"]] * 4
    assert json.loads(texts(senders[0], "response")[0])["usage"]["completion_tokens"] == 12


@pytest.mark.parametrize("prompt", ["hello", HELLO])
def test_a_stream_gives_the_same_text_in_pieces(model: Any, alone: Any, prompt: Any) -> None:
    given = {"text_input": prompt} if isinstance(prompt, str) else {"messages": json.dumps(prompt)}
    request = InferenceRequest(**given, sampling_parameters=parameters(), stream=True)
    (sender,) = asked(model, request)
    assert len(sender.sent) > 2
    assert "".join(texts(sender)) == alone(prompt)
    assert texts(sender, "finish_reason")[-1] == "length"


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        ({}, "text_input or messages"),
        ({"text_input": "a", "messages": "[]"}, "not both"),
        ({"text_input": "a", "sampling_parameters": "{"}, "no JSON"),
        ({"text_input": "a", "sampling_parameters": '{"temprature": 1}'}, "temprature"),
        ({"text_input": "a", "sampling_parameters": '{"model": "nope"}'}, "no model 'nope'"),
        ({"messages": "no"}, "no JSON"),
        ({"messages": "[]", "stream": True}, "messages is empty"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(model: Any, inputs: Any, why: str) -> None:
    (sender,) = asked(model, InferenceRequest(**inputs))
    (response,) = sender.sent
    error = response.error()
    assert error is not None
    assert error.code() == TritonError.INVALID_ARG
    assert why in error.message()
    assert "\n" not in error.message()


@pytest.mark.parametrize("stream", [True, False])
def test_a_cancelled_request_leaves_the_engine(model: Any, stream: bool) -> None:
    long = parameters(max_tokens=200)
    request = InferenceRequest(text_input="a", sampling_parameters=long, stream=stream)
    request.sender.cancelled = True
    (sender,) = asked(model, request)
    assert len([one for one in sender.sent if one.error() is None]) < 200
    worker = model._model._service.worker
    asked(model, InferenceRequest(text_input="b", sampling_parameters=parameters()))
    assert not worker.call(lambda: worker.engine.busy).result(10)


def test_a_model_that_is_there_is_not_written_over(repository: Path, apart_bundle: Path) -> None:
    command = ["triton", str(apart_bundle), str(repository), "--name"]
    for name, why in (("tiny", "is there already"), ("../x", "cannot be a model's name")):
        done = CliRunner().invoke(command_line(), [*command, name])
        assert done.exit_code == 2
        assert why in done.output
        assert len(done.output.splitlines()) == 1


def test_a_repository_in_its_own_bundle_or_below_a_file_is_refused(
    apart_bundle: Path, tmp_path: Path
) -> None:
    before = sorted(apart_bundle.rglob("*"))
    with pytest.raises(ConfigError, match="lies in the bundle that it would be a copy of"):
        write_repository(apart_bundle, apart_bundle / "triton", "tiny", {})
    assert sorted(apart_bundle.rglob("*")) == before
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be written: .*Not a directory"):
        write_repository(apart_bundle, tmp_path / "file", "tiny", {})
