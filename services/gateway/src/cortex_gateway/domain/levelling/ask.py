"""What a client asks, made into what each engine understands, and the engine's answer made into what the client expects."""

from collections.abc import Mapping
from typing import Final

import msgspec

from cortex_contracts.enums import EngineType, Task
from cortex_gateway.domain.capabilities import Capabilities
from cortex_gateway.domain.levelling import rerank as reranking
from cortex_gateway.domain.levelling import tokens as tokenizing
from cortex_gateway.domain.levelling.bodies import NOTHING, Changes, Members, prepare_body
from cortex_gateway.domain.levelling.checks import check_request, check_shape
from cortex_gateway.domain.levelling.choices import Gathering
from cortex_gateway.domain.levelling.logprobs import TextChoices
from cortex_gateway.domain.levelling.names import CHAT_ID_TO_TEXT_ID, Renames, both_reasonings, model_rename, rename
from cortex_gateway.domain.levelling.responses import ResponseEvents, complete_response
from cortex_gateway.domain.limits import Need
from cortex_gateway.domain.request_fields import NULL, RequestFields
from cortex_gateway.domain.requests import ApiRoute, decode_request, prompt_count, prompt_items
from cortex_gateway.domain.streams import Leveller, StreamLeveller, StreamPlan
from cortex_gateway.domain.typed_streams import MessagesLeveller, ResponsesLeveller
from cortex_gateway.domain.usage import Tokens, read_response_usage, read_usage

# Members of an enum cost more to look up than what they are compared for.
_GENERATE: Final = Task.GENERATE
_LLAMACPP: Final = EngineType.LLAMACPP
_VLLM: Final = EngineType.VLLM
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
_OTHERS = frozenset({COUNT_TOKENS, TOKENIZE, DETOKENIZE, _RERANK, "/rerank"})
_TRUE, _ONE = msgspec.Raw(b"true"), msgspec.Raw(b"1")


class Ask:
    """One request as far as levelling needs it.

    Args:
        cap: tokens of an answer when the client sets no limit; 0 leaves it to the context.
    """

    __slots__ = (
        "api",
        "body",
        "cap",
        "detokenize",
        "fields",
        "most",
        "rendered",
        "rerank",
        "several",
        "stream",
        "tokenize",
    )

    def __init__(self, api: ApiRoute, fields: RequestFields, body: bytes, cap: int = 0) -> None:
        self.api = api
        self.fields = fields
        self.body = body
        self.cap = cap
        self.stream = fields.stream is True and api.streams
        """The client wants a stream."""
        self.several = (fields.n or 1) > 1 or (api.path == COMPLETIONS and prompt_count(fields) > 1)
        """More than one choice or prompt."""
        self.most: int | None = None
        """What an engine said that it can make at most."""
        self.rerank: reranking.RerankFields | None = None
        self.tokenize: tokenizing.TokenizeFields | None = None
        self.detokenize: tokenizing.DetokenizeFields | None = None
        self.rendered: str | None = None
        """The chat to tokenise as text, when the engine had to render it first."""

    def need(self) -> Need:
        """What the request may cost."""
        fields = self.fields
        if self.api.task is not _GENERATE:
            return Need(len(self.body), choices=0)
        asked = fields.max_completion_tokens or fields.max_output_tokens or fields.max_tokens
        return Need(len(self.body), asked, fields.n or 1)


def read_ask(api: ApiRoute, body: bytes, cap: int) -> Ask:
    """Decode what matters and check what holds for every engine. Raises ApiError 400."""
    fields = decode_request(body)
    check_shape(api, fields)
    ask = Ask(api, fields, body, cap)
    if api.task is not _GENERATE:
        _read_other(ask)
    return ask


def _read_other(ask: Ask) -> None:
    """What has fields of its own."""
    path = ask.api.path
    if ask.api.upstream_path == _RERANK:
        ask.rerank = reranking.read_rerank(ask.body)
    elif path == TOKENIZE:
        ask.tokenize = tokenizing.read_tokenize(ask.body)
    elif path == DETOKENIZE:
        ask.detokenize = tokenizing.read_detokenize(ask.body)


def gathers(ask: Ask, able: Capabilities) -> bool:
    """The answer is put together from a stream, see `choices`. llama-server streams no log probabilities with tools."""
    if not ask.several or ask.stream or able.engine_type is not _LLAMACPP:
        return False
    return ask.fields.tools is NULL or not ask.fields.logprobs


def engine_body(ask: Ask, able: Capabilities, name: str, defaults: Members) -> bytes:
    """The body for an engine that knows the model as `name`.

    Raises:
        ApiError: 400 when this engine cannot do what is asked.
    """
    if ask.api.task is not _GENERATE and (other := _other_body(ask, able, name)) is not None:
        return other
    fields = ask.fields
    check_request(fields, able)
    api = ask.api
    gathering = ask.several and gathers(ask, able)
    completions = (ask.stream or gathering) and api.path in (CHAT, COMPLETIONS)
    if api.streams and (ask.cap or able.endless):
        defaults = _with_limit(ask, able, defaults)
    replace = _replacements(ask, able, gathering=gathering)
    usable = defaults if api.streams else NOTHING
    return prepare_body(ask.body, fields, Changes(name, usable, completions, replace))


def _other_body(ask: Ask, able: Capabilities, name: str) -> bytes | None:
    if ask.rerank is not None:
        return reranking.rerank_body(ask.rerank, name)
    if ask.tokenize is not None:
        return tokenizing.tokenize_body(ask.body, ask.tokenize, able.engine_type, name, ask.rendered)
    if ask.detokenize is not None:
        return tokenizing.detokenize_body(ask.detokenize, name)
    return None


def _with_limit(ask: Ask, able: Capabilities, defaults: Members) -> Members:
    """The model's own defaults, and a limit for what has none."""
    name = _LIMIT_OF.get(ask.api.path)
    fields = ask.fields
    limits = (*_limits(fields), *(one for one in _LIMITS if one in defaults))
    cap = ask.cap or able.context or 0
    if name is None or limits or not cap:
        return defaults
    most = min(limit for limit in (cap, ask.most, able.context) if limit)
    return {**defaults, name: msgspec.Raw(b"%d" % most)}


def _limits(fields: RequestFields) -> list[tuple[str, int]]:
    """The limits that a client has set."""
    given = zip(_LIMITS, (fields.max_tokens, fields.max_completion_tokens, fields.max_output_tokens), strict=True)
    return [(name, limit) for name, limit in given if limit is not None]


def _replacements(ask: Ask, able: Capabilities, *, gathering: bool) -> Members:
    """Members whose value the engine would refuse or misunderstand. Mostly none."""
    fields = ask.fields
    llama = able.engine_type is _LLAMACPP
    most = ask.most if llama else ask.most or able.context
    limit = fields.max_tokens or fields.max_completion_tokens or fields.max_output_tokens or 0
    if not gathering and (most is None or limit <= most) and fields.logprobs is None:
        return NOTHING
    changed: dict[str, msgspec.Raw] = {}
    if most is not None:
        changed |= {name: msgspec.Raw(b"%d" % most) for name, limit in _limits(fields) if limit > most}
    if gathering:
        changed["stream"] = _TRUE
    if fields.logprobs is not None and fields.logprobs == 0 and _converts(ask, able):
        changed["logprobs"] = _ONE
    return changed


def _converts(ask: Ask, able: Capabilities) -> bool:
    return able.engine_type is _LLAMACPP and ask.api.path == COMPLETIONS


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


class Answering:
    """Whose answer it is: the engine's abilities, its name for the model, and whether that is the model asked for
    (a fallback shows its own name)."""

    __slots__ = ("able", "answer_id", "ask", "name", "own")

    def __init__(self, ask: Ask, able: Capabilities, name: str, own: bool, answer_id: str) -> None:
        self.ask = ask
        self.able = able
        self.name = name
        self.own = own
        self.answer_id = answer_id

    @property
    def renames(self) -> Renames:
        if self.name == self.ask.fields.model and self.able.engine_type is _VLLM:
            return ()
        return _renames(self.ask, self.able, self.name, own=self.own)

    def leveller(self) -> Leveller:
        """What follows the stream to the client."""
        ask, able, path = self.ask, self.able, self.ask.api.path
        if path == MESSAGES:
            return MessagesLeveller(self.renames)
        if path == RESPONSES:
            llama = able.engine_type is _LLAMACPP
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
            collect=self.able.engine_type is _LLAMACPP and (self.ask.several or completions),
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
        if ask.api.path in _OTHERS:
            return self._other_whole(body)
        usage = read_response_usage(body) if ask.api.path in (RESPONSES, MESSAGES) else read_usage(body)
        if self.able.engine_type is _LLAMACPP:
            body = self._rewritten(body)
        if renames := self.renames:
            body = rename(body, renames)
        return both_reasonings(body), usage

    def _other_whole(self, body: bytes) -> tuple[bytes, Tokens | None]:
        ask = self.ask
        if ask.rerank is not None:
            return reranking.rerank_answer(body, ask.rerank, self.answer_id), read_usage(body)
        if ask.tokenize is not None:
            return tokenizing.tokenize_answer(body, self.able.context), Tokens()
        if ask.detokenize is not None:
            return tokenizing.detokenize_answer(body), Tokens()
        return tokenizing.count_answer(body), Tokens()

    def _rewritten(self, body: bytes) -> bytes:
        if self.ask.api.path == RESPONSES:
            return bytes(complete_response(body, self.name, self.ask.fields.max_output_tokens))
        choices = _text_choices(self.ask, self.able)
        if choices is None:
            return body
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        choices.rewrite(members)
        return msgspec.json.encode(members)
