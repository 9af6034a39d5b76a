"""What a client asks, made into what each engine understands, and the engine's answer made into what the client expects."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from cortex_contracts.enums import EngineType
from cortex_gateway.domain.capabilities import Capabilities
from cortex_gateway.domain.levelling import rerank as reranking
from cortex_gateway.domain.levelling import tokens as tokenizing
from cortex_gateway.domain.levelling.bodies import Changes, Members, prepare_body
from cortex_gateway.domain.levelling.checks import check_request, check_shape
from cortex_gateway.domain.levelling.choices import Gathering
from cortex_gateway.domain.levelling.logprobs import TextChoices
from cortex_gateway.domain.levelling.names import CHAT_ID_TO_TEXT_ID, Renames, both_reasonings, model_rename, rename
from cortex_gateway.domain.levelling.responses import ResponseEvents, complete_response
from cortex_gateway.domain.requests import NULL, ApiRoute, RequestFields, decode_request, prompt_count, prompt_items
from cortex_gateway.domain.streams import Leveller, StreamLeveller, StreamPlan
from cortex_gateway.domain.typed_streams import MessagesLeveller, ResponsesLeveller
from cortex_gateway.domain.usage import Tokens, read_usage

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
COUNT_TOKENS = "/v1/messages/count_tokens"
TOKENIZE = "/tokenize"
DETOKENIZE = "/detokenize"
_RERANK = "/v1/rerank"
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_LIMIT_OF: Mapping[str, str] = {CHAT: "max_tokens", COMPLETIONS: "max_tokens", RESPONSES: "max_output_tokens"}
_NOTHING: Members = {}


@dataclass(slots=True)
class Ask:
    """One request as far as levelling needs it."""

    api: ApiRoute
    fields: RequestFields
    body: bytes
    cap: int = 0
    """Tokens of an answer when the client sets no limit; 0 leaves it to the context."""
    most: int | None = None
    """What an engine said that it can make at most."""
    rerank: reranking.RerankFields | None = None
    tokenize: tokenizing.TokenizeFields | None = None
    detokenize: tokenizing.DetokenizeFields | None = None
    rendered: str | None = None
    """The chat to tokenise as text, when the engine had to render it first."""
    several: bool = field(init=False)
    """More than one choice or prompt."""

    def __post_init__(self) -> None:
        choices = self.fields.n or 1
        self.several = choices > 1 or (self.api.path == COMPLETIONS and prompt_count(self.fields) > 1)

    @property
    def stream(self) -> bool:
        """The client wants a stream."""
        return bool(self.fields.stream) and self.api.streams


def read_ask(api: ApiRoute, body: bytes, cap: int) -> Ask:
    """Decode what matters and check what holds for every engine. Raises ApiError 400."""
    fields = decode_request(body)
    check_shape(api, fields)
    ask = Ask(api, fields, body, cap)
    if api.upstream_path == _RERANK:
        ask.rerank = reranking.read_rerank(body)
    elif api.path == TOKENIZE:
        ask.tokenize = tokenizing.read_tokenize(body)
    elif api.path == DETOKENIZE:
        ask.detokenize = tokenizing.read_detokenize(body)
    return ask


def gathers(ask: Ask, able: Capabilities) -> bool:
    """The answer is put together from a stream, see `choices`. llama-server streams no log probabilities with tools."""
    if not ask.several or ask.stream or able.engine_type is not EngineType.LLAMACPP:
        return False
    return ask.fields.tools is NULL or not ask.fields.logprobs


def engine_body(ask: Ask, able: Capabilities, name: str, defaults: Members) -> bytes:
    """The body for an engine that knows the model as `name`.

    Raises:
        ApiError: 400 when this engine cannot do what is asked.
    """
    if ask.rerank is not None:
        return reranking.rerank_body(ask.rerank, name)
    if ask.tokenize is not None:
        return tokenizing.tokenize_body(ask.body, ask.tokenize, able.engine_type, name, ask.rendered)
    if ask.detokenize is not None:
        return tokenizing.detokenize_body(ask.detokenize, name)
    check_request(ask.fields, able)
    completions = ask.api.path in (CHAT, COMPLETIONS)
    gathering = gathers(ask, able)
    changes = Changes(
        model=name,
        defaults=_defaults(ask, able, defaults) if ask.api.streams else _NOTHING,
        ask_usage=completions and (ask.stream or gathering),
        replace=_replacements(ask, able, gathering=gathering),
    )
    return prepare_body(ask.body, ask.fields, changes)


def _defaults(ask: Ask, able: Capabilities, defaults: Members) -> Members:
    """The model's own defaults, and a limit for what has none."""
    name = _LIMIT_OF.get(ask.api.path)
    cap = ask.cap or (able.context or 0 if able.endless else 0)
    fields = ask.fields
    if not cap or name is None or fields.max_completion_tokens is not None or any(one in defaults for one in _LIMITS):
        return defaults
    if (fields.max_output_tokens if name == "max_output_tokens" else fields.max_tokens) is not None:
        return defaults
    most = min(limit for limit in (cap, ask.most, able.context) if limit)
    return {**defaults, name: msgspec.Raw(b"%d" % most)}


def _replacements(ask: Ask, able: Capabilities, *, gathering: bool) -> Members:
    """Members whose value the engine would refuse or misunderstand. Mostly none."""
    fields = ask.fields
    most = ask.most if able.engine_type is EngineType.LLAMACPP else ask.most or able.context
    changed: dict[str, msgspec.Raw] = {}
    if most is not None:
        for name in _LIMITS:
            asked: int | None = getattr(fields, name)
            if asked is not None and asked > most:
                changed[name] = msgspec.Raw(b"%d" % most)
    if gathering:
        changed["stream"] = msgspec.Raw(b"true")
    if fields.logprobs is not None and _converts(ask, able) and fields.logprobs == 0:
        changed["logprobs"] = msgspec.Raw(b"1")
    return changed


def _converts(ask: Ask, able: Capabilities) -> bool:
    return able.engine_type is EngineType.LLAMACPP and ask.api.path == COMPLETIONS


def _text_choices(ask: Ask, able: Capabilities) -> TextChoices | None:
    """What rewrites llama-server's text completions, when they have to be."""
    fields = ask.fields
    if not _converts(ask, able) or (fields.logprobs is None and not fields.echo):
        return None
    prompts = [msgspec.json.decode(item, type=str) for item in prompt_items(fields)] if fields.echo else []
    return TextChoices(tops=fields.logprobs, prompts=prompts, choices_per_prompt=fields.n or 1)


def _renames(ask: Ask, able: Capabilities, name: str, *, own: bool) -> Renames:
    renames = model_rename(ask.fields.model, name) if own else ()
    return (*renames, CHAT_ID_TO_TEXT_ID) if _converts(ask, able) else renames


@dataclass(frozen=True, slots=True)
class Answering:
    """Whose answer it is: the engine's abilities, its name for the model, and whether that is the model asked for
    (a fallback shows its own name)."""

    ask: Ask
    able: Capabilities
    name: str
    own: bool
    answer_id: str

    @property
    def renames(self) -> Renames:
        return _renames(self.ask, self.able, self.name, own=self.own)

    def leveller(self) -> Leveller:
        """What follows the stream to the client."""
        ask, able, path = self.ask, self.able, self.ask.api.path
        if path == MESSAGES:
            return MessagesLeveller(self.renames)
        if path == RESPONSES:
            llama = able.engine_type is EngineType.LLAMACPP
            asked = ask.fields.model if self.own else self.name
            return ResponsesLeveller(
                self.renames, ResponseEvents(asked, ask.fields.max_output_tokens) if llama else None
            )
        choices = _text_choices(ask, able)
        return StreamLeveller(self._plan(wants_usage=ask.fields.wants_usage, choices=choices))

    def _plan(
        self, *, wants_usage: bool, choices: TextChoices | None, gathering: Gathering | None = None
    ) -> StreamPlan:
        completions = self.ask.api.path == COMPLETIONS
        return StreamPlan(
            wants_usage=wants_usage,
            collect=self.able.engine_type is EngineType.LLAMACPP and (self.ask.several or completions),
            choices_per_prompt=self.ask.fields.n or 1,
            per_prompt=completions,
            chat=not completions,
            renames=() if gathering is not None else self.renames,
            rewrite=None if choices is None else choices.rewrite,
            gathering=gathering,
        )

    def gathering(self) -> tuple[StreamLeveller, Gathering]:
        """What follows a stream that becomes one document: `whole` makes it the client's."""
        gathering = Gathering(chat=self.ask.api.path == CHAT)
        return StreamLeveller(self._plan(wants_usage=False, choices=None, gathering=gathering)), gathering

    def whole(self, body: bytes) -> tuple[bytes, Tokens | None]:
        """A whole answer for the client, and its usage if it tells any.

        Raises:
            msgspec.DecodeError: the engine's answer has not the form that it must have here.
        """
        ask = self.ask
        if ask.rerank is not None:
            return reranking.rerank_answer(body, ask.rerank, self.answer_id), read_usage(body)
        if ask.tokenize is not None:
            return tokenizing.tokenize_answer(body, self.able.context), Tokens()
        if ask.detokenize is not None:
            return tokenizing.detokenize_answer(body), Tokens()
        if ask.api.path == COUNT_TOKENS:
            return count_answer(body), Tokens()
        usage = read_usage(body)
        body = both_reasonings(rename(self._rewritten(body), self.renames))
        return body, usage

    def _rewritten(self, body: bytes) -> bytes:
        if self.able.engine_type is not EngineType.LLAMACPP:
            return body
        if self.ask.api.path == RESPONSES:
            return bytes(complete_response(body, self.name, self.ask.fields.max_output_tokens))
        choices = _text_choices(self.ask, self.able)
        if choices is None:
            return body
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        choices.rewrite(members)
        return msgspec.json.encode(members)


class _Counted(msgspec.Struct):
    input_tokens: int


def count_answer(body: bytes) -> bytes:
    """The answer of count_tokens. Raises msgspec.DecodeError."""
    return msgspec.json.encode({"input_tokens": msgspec.json.decode(body, type=_Counted).input_tokens})
