"""Chats by the OpenAI client."""

# pyright: basic
import openai

from cortex_testing.client_scenarios.clients import TOOL, WEATHER, Clients, Outcome, refusal, usage_of


def chat(c: Clients) -> Outcome:
    answer = c.chat()
    [choice] = answer.choices
    return {
        "text": choice.message.content,
        "finish": choice.finish_reason,
        "usage": usage_of(answer.usage),
        "model": answer.model,
        "object": answer.object,
    }


def chat_stream(c: Clients) -> Outcome:
    chunks = c.chat(stream=True)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    return {
        "text": "".join(choice.delta.content or "" for choice in choices),
        "finish": [choice.finish_reason for choice in choices if choice.finish_reason],
        "usages": sum(chunk.usage is not None for chunk in chunks),
        "role": choices[0].delta.role,
        "object": chunks[0].object,
        "models": sorted({chunk.model for chunk in chunks}),
    }


def chat_stream_usage(c: Clients) -> Outcome:
    chunks = c.chat(stream=True, stream_options={"include_usage": True})
    told = [chunk for chunk in chunks if chunk.usage is not None]
    return {"usage": [usage_of(chunk.usage) for chunk in told], "choices": [len(chunk.choices) for chunk in told]}


def chat_several(c: Clients) -> Outcome:
    answer = c.chat(n=2, extra_body={"ignore_eos": True}, max_tokens=6, temperature=0.5)
    return {
        "choices": [
            (choice.index, choice.finish_reason, isinstance(choice.message.content, str)) for choice in answer.choices
        ],
        "roles": [choice.message.role for choice in answer.choices],
        "usage": usage_of(answer.usage),
    }


def chat_several_stream(c: Clients) -> Outcome:
    quiet = {"ignore_eos": True}
    chunks = c.chat(
        n=2, stream=True, stream_options={"include_usage": True}, extra_body=quiet, max_tokens=6, temperature=0.5
    )
    told = [chunk.usage for chunk in chunks if chunk.usage is not None]
    finished = sorted(choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason)
    return {"usage": [usage_of(usage) for usage in told], "finished": finished}


def chat_stop(c: Clients) -> Outcome:
    whole = c.chat(max_tokens=20).choices[0].message.content
    word = next((part for part in whole.split() if part.isalpha()), whole[1:3])
    choice = c.chat(max_tokens=20, stop=[word]).choices[0]
    return {"cut": word not in (choice.message.content or ""), "finish": choice.finish_reason}


def chat_logprobs(c: Clients) -> Outcome:
    answer = c.chat(logprobs=True, top_logprobs=2, max_tokens=4, extra_body={"ignore_eos": True})
    content = answer.choices[0].logprobs.content
    return {
        "tokens": [entry.token for entry in content],
        "tops": [len(entry.top_logprobs) for entry in content],
        "probable": all(entry.logprob <= 0 for entry in content),
    }


def chat_json_schema(c: Clients) -> Outcome:
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER, "strict": True}}
    choice = c.chat(response_format=form, max_tokens=40).choices[0]
    return {"text": choice.message.content, "finish": choice.finish_reason}


def chat_tool_named(c: Clients) -> Outcome:
    choice = c.chat(
        tools=[TOOL], tool_choice={"type": "function", "function": {"name": "weather"}}, max_tokens=60
    ).choices[0]
    calls = choice.message.tool_calls or []
    return {
        "names": [call.function.name for call in calls],
        "arguments": [type(call.function.arguments).__name__ for call in calls],
    }


def chat_tool_auto(c: Clients) -> Outcome:
    return refusal(lambda: c.chat(tools=[TOOL], tool_choice="auto"))


def chat_max_completion_tokens(c: Clients) -> Outcome:
    answer = c.chat(max_tokens=openai.omit, max_completion_tokens=3, extra_body={"ignore_eos": True})
    return {"usage": usage_of(answer.usage), "finish": answer.choices[0].finish_reason}


def chat_many_tokens(c: Clients) -> Outcome:
    """More than the context holds: as many as there is room for."""

    def ask() -> object:
        return c.chat(max_tokens=100_000, stop=["\n", ".", "!"])

    return refusal(ask)


ALL = (
    chat,
    chat_stream,
    chat_stream_usage,
    chat_several,
    chat_several_stream,
    chat_stop,
    chat_logprobs,
    chat_json_schema,
    chat_tool_named,
    chat_tool_auto,
    chat_max_completion_tokens,
    chat_many_tokens,
)
