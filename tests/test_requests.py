"""Keys of requests to language models: what makes a difference, and what does not."""

import dataclasses
import enum
import inspect

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel

from persistdict import PersistDict, make_key
from persistdict.requests import LEFT_OUT

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "default": None}}}
FULL = {
    "temperature": 0.7,
    "top_p": 0.9,
    "seed": 7,
    "tools": [TOOL],
    "tool_choice": "auto",
    "response_format": {"type": "json_object"},
    "stop": ["\n"],
    "max_tokens": 100,
    "n": 1,
    "base_url": "http://localhost",
    "logit_bias": {"50256": -100},
    "extra_body": {"top_k": 5},
}


def test_a_key_has_the_name_of_the_model_and_works_with_every_dictionary(tmp_path):
    key = make_key("gpt-4o", QUESTION, **FULL)
    assert key[0] == "gpt-4o"
    with PersistDict(tmp_path / "d", background_thread="disabled") as d:
        d[key] = "Because."
        assert list(d.range(("gpt-4o",), ("gpt-4p",))) == [key]
        f = d.memoize(key=make_key)(lambda model, messages, **params: "computed")
        assert f("gpt-4o", QUESTION, **FULL, timeout=5) == "Because."
        assert f("gpt-4o", QUESTION) == "computed" == d[make_key("gpt-4o", QUESTION)]


def test_keys_are_the_same_in_every_version():
    """They are on disk."""
    assert make_key("m", "Why?") == ("m", "a4be187b5ce6fc11168e76d127a252fe")
    assert make_key("m", QUESTION, **FULL) == ("m", "244310e6031b3ebc4186dec9d7082040")


@pytest.mark.parametrize("name", FULL)
def test_every_parameter_makes_a_difference(name):
    other = {**FULL, name: "another"}
    without = {key: value for key, value in FULL.items() if key != name}
    assert len({make_key("m", QUESTION, **params) for params in (FULL, other, without)}) == 3


@pytest.mark.parametrize("name", [*LEFT_OUT, "openai_api_key"])
def test_what_is_left_out_makes_none(name):
    assert make_key("m", QUESTION, **FULL, **{name: object()}) == make_key("m", QUESTION, **FULL)


def test_what_is_left_out_has_reasons_and_cannot_be_changed():
    assert all(isinstance(reason, str) and reason for reason in LEFT_OUT.values())
    with pytest.raises(TypeError):
        LEFT_OUT["temperature"] = "no"
    assert not set(FULL) & set(LEFT_OUT)


def test_models_messages_and_samples_make_a_difference():
    keys = [
        make_key("m", QUESTION),
        make_key("n", QUESTION),
        make_key("m", QUESTION[::-1]),
        make_key("m", QUESTION[1:]),
        make_key("m", "Why?"),
        make_key("m", QUESTION, sample=1),
        make_key("m", QUESTION, sample=2),
        make_key("m", [{**QUESTION[0], "name": "x"}, QUESTION[1]]),
        make_key("m", [QUESTION[0], {"role": "user", "content": ["Why?"]}]),
    ]
    assert len(set(keys)) == len(keys)
    assert make_key("m", QUESTION, sample=0) == keys[0]


def test_how_a_request_is_written_makes_none():
    class Role(str, enum.Enum):
        USER = "user"

    key = make_key("m", QUESTION, temperature=1, tools=[TOOL], stop=["a", "b"])
    for messages in (
        tuple(QUESTION),
        [dict(reversed(message.items())) for message in QUESTION],
        [QUESTION[0], {"role": Role.USER, "content": type("Text", (str,), {})("Why?")}],
        [{**message, "name": None, "id": f"msg_{n}"} for n, message in enumerate(QUESTION)],
    ):
        assert make_key("m", messages, temperature=1.0, tools=(TOOL,), stop=("a", "b"), seed=None) == key
    assert make_key(model="m", messages=QUESTION, stop=("a", "b"), tools=[TOOL], temperature=True) != key
    explicit = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    assert make_key("m", QUESTION, tools=[explicit]) != make_key("m", QUESTION, tools=[TOOL]), "None within a schema"


def test_an_id_that_is_the_content_stays():
    one, two = ([{"type": "item_reference", "id": name}] for name in ("a", "b"))
    assert make_key("m", one) != make_key("m", two)
    blocks = [[{"role": "user", "content": [{"type": "file", "file": {"file_id": name}}]}] for name in ("a", "b")]
    assert make_key("m", blocks[0]) != make_key("m", blocks[1])


def openai(first, second, answers):
    calls = [
        {"id": name, "type": "function", "function": {"name": "look", "arguments": f'{{"at": {n}}}'}}
        for n, name in enumerate((first, second))
    ]
    return [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": calls},
        *[{"role": "tool", "tool_call_id": name, "content": f"answer {n}"} for n, name in enumerate(answers)],
    ]


def anthropic(first, second, answers):
    calls = [{"type": "tool_use", "id": name, "name": "look", "input": {}} for name in (first, second)]
    results = [{"type": "tool_result", "tool_use_id": name, "content": f"answer {n}"} for n, name in enumerate(answers)]
    return [{"role": "assistant", "content": calls}, {"role": "user", "content": results}]


def responses(first, second, answers):
    calls = [{"type": "function_call", "id": f"fc_{name}", "call_id": name, "name": "look"} for name in (first, second)]
    return [*calls, *[{"type": "function_call_output", "call_id": name, "output": n} for n, name in enumerate(answers)]]


def langchain(first, second, answers):
    calls = [{"name": "look", "args": {"at": n}, "id": name} for n, name in enumerate((first, second))]
    raw = {"tool_calls": [{"id": name, "type": "function"} for name in (first, second)]}
    return [
        HumanMessage("Why?", id=f"human {first}"),
        AIMessage(
            "",
            tool_calls=calls,
            additional_kwargs=raw,
            id=f"run {first}",
            response_metadata={"at": first},
            usage_metadata={"input_tokens": len(first), "output_tokens": 1, "total_tokens": 2},
        ),
        *[ToolMessage(f"answer {n}", tool_call_id=name, artifact=first) for n, name in enumerate(answers)],
    ]


@pytest.mark.parametrize("form", [openai, anthropic, responses, langchain])
def test_ids_of_tool_calls_count_by_what_belongs_together(form):
    """The ids of another run make no difference; which answer belongs to which call does."""
    key = make_key("m", form("call_a", "call_b", ("call_a", "call_b")))
    assert make_key("m", form("call_xyz", "call_0", ("call_xyz", "call_0"))) == key
    assert make_key("m", form("call_b", "call_a", ("call_b", "call_a"))) == key
    assert make_key("m", form("call_a", "call_b", ("call_b", "call_a"))) != key


def test_arguments_of_tool_calls_are_no_ids():
    def asked(value):
        args = {"call_id": value, "id": value, "tool_call_id": value}
        return [
            [{"role": "assistant", "tool_calls": [{"id": "c", "name": "look", "args": args}]}],
            [{"role": "assistant", "content": [{"type": "tool_use", "id": "c", "input": args}]}],
            [{"role": "user", "content": [{"type": "text", "id": value}]}],
        ]

    for one, two in zip(asked("a"), asked("b"), strict=True):
        assert make_key("m", one) != make_key("m", two)


class Message(BaseModel):
    role: str
    content: str
    name: str | None = None


class Note(BaseModel):
    content: str


class Remark(BaseModel):
    content: str


class Old:
    """As pydantic's models were before model_dump."""

    def dict(self):
        return {"role": "user", "content": "Why?"}


@dataclasses.dataclass
class Turn:
    role: str
    content: str


@dataclasses.dataclass
class Text:
    content: str


def test_objects_count_as_what_they_hold():
    key = make_key("m", QUESTION[1:])
    for message in (Message(role="user", content="Why?"), Old(), Turn("user", "Why?")):
        assert make_key("m", [message]) == key
    classes = [Note(content="Why?"), Remark(content="Why?"), Text("Why?"), {"content": "Why?"}]
    assert len({make_key("m", [message]) for message in classes}) == 4, "who says it may be in the class"
    langchain = [[HumanMessage("Why?")], [AIMessage("Why?")], [SystemMessage("Why?")]]
    assert len({make_key("m", messages) for messages in langchain}) == 3


def test_a_class_as_the_format_of_the_answer_counts_as_its_schema():
    class Answer(BaseModel):
        text: str

    first = make_key("m", QUESTION, response_format=Answer)

    class Answer(BaseModel):
        text: int

    assert make_key("m", QUESTION, response_format=Answer) != first
    assert make_key("m", QUESTION, response_format=Note) == make_key("m", QUESTION, response_format=Note) != first


def test_what_is_unknown_is_refused():
    with pytest.raises(TypeError, match="tools of the request cannot be part of its key"):
        make_key("m", QUESTION, tools=[len])
    with pytest.raises(TypeError, match="messages of the request"):
        make_key("m", [object()])
    loop = []
    loop.append(loop)
    with pytest.raises(TypeError, match="nested too deep"):
        make_key("m", QUESTION, extra=loop)
    for wrong in ({"sample": 1.5}, {"sample": True}):
        with pytest.raises(TypeError):
            make_key("m", QUESTION, **wrong)
    with pytest.raises(TypeError):
        make_key(None, QUESTION)


def test_the_documentation_names_what_is_left_out():
    assert "LEFT_OUT" in inspect.getdoc(make_key)


def test_what_changes_the_answer_changes_the_key():
    """An id that says what is meant, True in place of 1, and headers that switch something on."""

    def edit(which):
        return [{"role": "user", "content": "edit it"}, {"type": "image_generation_call", "id": which}]

    ask = [{"role": "user", "content": "Why?"}]
    assert make_key("m", edit("ig_1")) != make_key("m", edit("ig_2"))
    assert make_key("m", ask, strict=True) != make_key("m", ask, strict=1)
    assert make_key("m", ask, n=1) == make_key("m", ask, n=1.0)
    plain = make_key("m", ask)
    assert make_key("m", ask, extra_headers={"beta": "x"}) != plain
    first, second = ({"Beta": "x", "Authorization": f"Bearer {who}", "X-Api-Key": who} for who in "ab")
    assert make_key("m", ask, extra_headers=first) == make_key("m", ask, extra_headers=second)
    call = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}"}
    assert make_key("m", [*ask, call]) == make_key("m", [*ask, {**call, "id": "fc_2"}])
