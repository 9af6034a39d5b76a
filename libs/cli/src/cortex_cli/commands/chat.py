"""`cortex chat`."""

import asyncio
import sys
from typing import Annotated

import typer

from cortex_cli.adapters.admin_api import admin_api
from cortex_cli.adapters.gateway_api import Conversation, GatewayApi, Question, gateway_api
from cortex_cli.adapters.http_errors import ApiError
from cortex_cli.arguments import find_model
from cortex_cli.commands.options import HomeOption, connection
from cortex_cli.connection import Connection
from cortex_cli.errors import CliError, ExitCode
from cortex_cli.output import print_error

app = typer.Typer()

_NOT_FOUND = 404


@app.command(
    epilog='Examples: `cortex chat my-model "Why is the sky blue?"` · `cat letter.txt | cortex chat my-model` · '
    "`cortex chat my-model` (a conversation; /reset forgets it, /exit or Ctrl-D ends it)"
)
def chat(
    model: Annotated[str, typer.Argument(help="Served name, name or id.")],
    prompt: Annotated[str | None, typer.Argument(help="What to say; read from standard input when left out.")] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.", min=1)] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is the most predictable.", min=0)] = None,
    home: HomeOption = None,
) -> None:
    """Talk to a model through the gateway; the answer is printed as it comes."""
    session = ChatSession(connection(home), model, Conversation(system), max_tokens, temperature)
    if prompt is None and sys.stdin.isatty():
        asyncio.run(session.converse())
        return
    text = prompt if prompt is not None else sys.stdin.read().strip()
    if not text:
        raise CliError("There is nothing to say: the prompt is empty.", exit_code=ExitCode.USAGE)
    asyncio.run(session.once(text))


class ChatSession:
    """One conversation with one model."""

    def __init__(
        self,
        known: Connection,
        model: str,
        conversation: Conversation,
        max_tokens: int | None,
        temperature: float | None,
    ) -> None:
        self._known = known
        self._model = model
        self._conversation = conversation
        self._max_tokens = max_tokens
        self._temperature = temperature

    async def once(self, text: str) -> None:
        """Ask once and print the answer.

        Raises:
            CliError: the gateway refuses or is away.
        """
        async with gateway_api(self._known.gateway()) as gateway:
            await self._exchange(gateway, text)

    async def converse(self) -> None:
        """Ask again and again until the end of the input; an error does not end the conversation."""
        async with gateway_api(self._known.gateway()) as gateway:
            while (text := await asyncio.to_thread(_read_line)) is not None:
                if text == "/reset":
                    self._conversation.messages.clear()
                elif text:
                    try:
                        await self._exchange(gateway, text)
                    except CliError as error:
                        self._conversation.take_back()
                        print_error(error)

    async def _exchange(self, gateway: GatewayApi, text: str) -> None:
        self._conversation.ask(text)
        try:
            answer = await self._print_answer(gateway)
        except ApiError as error:
            if error.status != _NOT_FOUND or not await self._find_served_name():
                raise
            answer = await self._print_answer(gateway)
        self._conversation.answered(answer)

    async def _print_answer(self, gateway: GatewayApi) -> str:
        question = Question(self._model, self._conversation.all(), self._max_tokens, self._temperature)
        pieces: list[str] = []
        async for piece in gateway.chat(question):
            pieces.append(piece)
            print(piece, end="", flush=True)
        print()
        return "".join(pieces)

    async def _find_served_name(self) -> bool:
        """The gateway knows served names only: look up a name or an id. False when that leads to nothing new."""
        try:
            async with admin_api(self._known.registry()) as api:
                served = str(find_model(await api.models(), self._model).get("served_model_name"))
        except CliError:
            return False
        changed, self._model = served != self._model, served
        return changed


def _read_line() -> str | None:
    try:
        text = input("> ").strip()
    except EOFError:
        print()
        return None
    return None if text in ("/exit", "/quit") else text
