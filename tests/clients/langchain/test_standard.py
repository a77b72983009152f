"""LangChain's published standard tests of chat and embedding models, for its OpenAI classes pointed
at this server, and what those tests leave out."""

import typing

import openai
import pydantic
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import (ChatModelIntegrationTests,
                                               EmbeddingsIntegrationTests)
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests

from harness import MODEL, scripted_text
from shared_fixtures import EMBEDDER

NOWHERE = "http://127.0.0.1:1/v1"
REAL = SCRIPTED = NOWHERE  # set by conftest.py


def parameters(**fields):
    return {"model": MODEL, "base_url": REAL, "api_key": "none", "max_retries": 0,
            "temperature": 0, "seed": 1, "max_tokens": 200, **fields}


class TestChatUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        return {"model": MODEL, "base_url": NOWHERE, "api_key": "none"}

    @property
    def init_from_env_params(self):
        return ({"OPENAI_API_KEY": "none", "OPENAI_API_BASE": NOWHERE}, {"model": MODEL},
                {"openai_api_key": "none", "openai_api_base": NOWHERE})


class TestChat(ChatModelIntegrationTests):
    @property
    def chat_model_class(self):
        return ChatOpenAI

    @property
    def chat_model_params(self):
        # Usage in streams has to be asked for when the base URL isn't OpenAI's own.
        # The penalty, so that a small model doesn't say one thing for ever.
        return {"model": MODEL, "base_url": REAL, "api_key": "none", "seed": 1,
                "stream_usage": True, "frequency_penalty": 1.0}

    @property
    def standard_chat_model_params(self):
        return {"temperature": 0, "max_tokens": 128, "max_retries": 0, "timeout": 60}

    @property
    def supports_json_mode(self):
        return True

    @property
    def supports_model_override(self):
        return True

    @property
    def model_override_value(self):
        return MODEL


class TestChatOverResponses(TestChat):
    """The same tests, with the Responses API under them."""

    @property
    def chat_model_params(self):
        return {"model": MODEL, "base_url": REAL, "api_key": "none", "use_responses_api": True,
                "extra_body": {"frequency_penalty": 1.0}}


class Embeddings:
    @property
    def embeddings_class(self):
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self):
        return {"model": EMBEDDER, "base_url": REAL, "api_key": "none",
                "check_embedding_ctx_length": False}


class TestEmbeddingsUnit(Embeddings, EmbeddingsUnitTests):
    pass


class TestEmbeddings(Embeddings, EmbeddingsIntegrationTests):
    pass


# ---- what the published tests leave out ----------------------------------------------------------


class Weather(pydantic.BaseModel):
    """The weather at a place."""
    place: typing.Literal["Paris", "Rome"]
    days: typing.Annotated[int, pydantic.Field(ge=1, le=7)]


@pytest.fixture
def chat():
    return ChatOpenAI(**parameters(max_tokens=100))


@pytest.fixture
def quick():
    return ChatOpenAI(**parameters(model="scripted", base_url=SCRIPTED, max_tokens=None))


def test_structured_output_by_each_method(chat):
    for method in ("json_schema", "function_calling"):
        made = chat.with_structured_output(Weather, method=method).invoke("Rome, for two days.")
        assert isinstance(made, Weather), method


def test_one_forced_call(chat):
    """What the published tests of tool calling check, with one call at a time."""
    bound = chat.bind_tools([Weather], tool_choice="any", parallel_tool_calls=False)
    (call,) = bound.invoke("The weather in Rome?").tool_calls
    assert call["name"] == "Weather" and Weather(**call["args"])
    whole = None
    for chunk in bound.stream("The weather in Rome?"):
        whole = chunk if whole is None else whole + chunk
    assert [one["args"] for one in whole.tool_calls] == [call["args"]]


def test_a_forced_call_and_its_result(chat):
    bound = chat.bind_tools([Weather], tool_choice="Weather")
    asked = bound.invoke("The weather in Rome?")
    (call,) = asked.tool_calls
    assert call["name"] == "Weather" and Weather(**call["args"])
    answer = chat.bind_tools([Weather], tool_choice="none").invoke(
        [HumanMessage("The weather in Rome?"), asked, ToolMessage("sunny", tool_call_id=call["id"])])
    assert isinstance(answer, AIMessage) and answer.content and not answer.tool_calls


def test_streamed_chunks_add_up(quick):
    whole = None
    for chunk in quick.stream("a", stream_usage=True):
        whole = chunk if whole is None else whole + chunk
    assert whole.content == scripted_text(6)
    assert whole.usage_metadata["output_tokens"] == 6
    assert whole.response_metadata["finish_reason"] in ("stop", "length")


def test_logprobs(chat):
    answer = chat.bind(logprobs=True, top_logprobs=2).invoke("Hello")
    tokens = answer.response_metadata["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == answer.content


def test_several_generations(chat):
    made = ChatOpenAI(**parameters(n=2, temperature=1.2, max_tokens=8)).generate(
        [[HumanMessage("Hello")]])
    assert len(made.generations[0]) == 2


def test_legacy_model():
    llm = OpenAI(model="scripted", base_url=SCRIPTED, api_key="none", max_retries=0)
    assert llm.invoke("a") == scripted_text(6)
    assert "".join(llm.stream("a")) == scripted_text(6)


def test_embeddings_by_token_ids():
    """LangChain's default cuts long texts by sending token ids (of another vocabulary: only the
    form counts here)."""
    made = OpenAIEmbeddings(model=EMBEDDER, base_url=REAL, api_key="none", tiktoken_enabled=False,
                            check_embedding_ctx_length=False, dimensions=8)
    assert [len(vector) for vector in made.embed_documents(["a", "b"])] == [8, 8]


def test_errors_are_the_clients_own(quick):
    with pytest.raises(openai.BadRequestError):
        quick.invoke("a", temperature=9)
    with pytest.raises(openai.NotFoundError):
        ChatOpenAI(**parameters(model="no-such-model")).invoke("a")
