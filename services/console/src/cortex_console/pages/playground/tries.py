"""Embeddings and reranking: one request, and what came of it."""

import time

from nicegui import ui

from cortex_console.components.buttons import button
from cortex_console.components.text import Text, box, heading, labelled
from cortex_console.domain.formatting import count_text, duration_text
from cortex_console.domain.shapes import Row, number, row, rows, text, whole
from cortex_console.domain.similarity import length, preview, similarities, texts_of
from cortex_console.domain.snippets import curl, python_embeddings, python_rerank
from cortex_console.pages.playground.gateway import Playground
from cortex_console.pages.playground.snippets import show_snippets

MAX_TEXTS = 32


class _Try:
    """A form with a model, and a place for what came."""

    def __init__(self, playground: Playground, task: str) -> None:
        self._playground = playground
        self._task = task

    def show_models(self) -> None:
        """After models came or went."""
        chosen = str(self._model.value or "")
        offered = self._playground.choices(self._task, chosen)
        self._model.set_options(offered, value=chosen or next(iter(offered), None))
        running = bool(offered)
        self._form.visible = running
        self._none.clear()
        if not running:
            with self._none:
                self._playground.nothing_runs(self._task)

    def _draw(self) -> None:
        self._none = box("")
        with box("c-columns") as self._form:
            with box("c-card"):
                self._model = ui.select({}, label="Model")
                labelled(self._model.props("outlined dense options-dense").classes("c-field"), "Model")
                self._fields()
                with box("c-dialog-foot"):
                    button("Copy as code", self._show_code, icon="o_code", kind="quiet")
                    button(self._word, self._ask, icon="o_send", kind="primary")
            self._result = box("c-card").props('role="status"')
            with self._result:
                Text("p", "What comes back is shown here.", "c-muted")
        self.show_models()

    _word = "Ask"

    def _fields(self) -> None:
        raise NotImplementedError

    async def _ask(self) -> None:
        raise NotImplementedError

    async def _show_code(self) -> None:
        raise NotImplementedError

    async def _timed(self, path: str, body: Row) -> tuple[Row, str]:
        begun = time.monotonic()
        answer = await self._playground.gateway.post(path, body)
        took = duration_text(time.monotonic() - begun)
        tokens = whole(row(answer.get("usage")).get("prompt_tokens") or row(answer.get("usage")).get("total_tokens"))
        return answer, f"{count_text(tokens)} tokens in {took}" if tokens else f"in {took}"

    @property
    def _url(self) -> str:
        return self._playground.context.installation.gateway_url


class EmbeddingsPanel(_Try):
    """Vectors of texts, and how near they are to each other."""

    _word = "Embed"

    def __init__(self, playground: Playground) -> None:
        super().__init__(playground, "embed")

    async def build(self) -> None:
        """Draw it."""
        self._draw()

    def _fields(self) -> None:
        self._texts = ui.textarea(
            "Texts, one a line", value="A lighthouse by the sea\nA tower with a lamp\nA bowl of soup"
        )
        self._texts.props('outlined autogrow maxlength="100000"').classes("c-field")
        Text("p", "Two or more are compared by the cosine of their vectors.", "c-hint")

    def _body(self) -> dict[str, object]:
        return {"model": str(self._model.value or ""), "input": texts_of(self._texts.value or "")[:MAX_TEXTS]}

    async def _ask(self) -> None:
        body = self._body()
        texts = [str(one) for one in texts_of(self._texts.value or "")[:MAX_TEXTS]]
        if not texts:
            return
        answer, cost = await self._timed("/embeddings", body)
        found = sorted(rows(answer.get("data")), key=lambda one: whole(one.get("index")))
        vectors = [[float(value) for value in one.get("embedding") or ()] for one in found]
        self._result.clear()
        with self._result:
            heading(
                f"{len(vectors)} vector{'s' * (len(vectors) != 1)} of {len(vectors[0]) if vectors else 0} numbers", 2
            )
            Text("p", cost, "c-hint")
            if len(vectors) > 1:
                _matrix(texts, similarities(vectors))
            for given, vector in zip(texts, vectors, strict=False):
                with box("pg-vector"):
                    Text("div", given, "c-strong c-clip")
                    Text("code", preview(vector), "c-code")
                    Text("div", f"length {length(vector):.3f}", "c-hint")

    async def _show_code(self) -> None:
        body = self._body()
        await show_snippets(
            {"curl": curl(self._url, "/embeddings", body), "Python": python_embeddings(self._url, body)}
        )


class RerankPanel(_Try):
    """Documents in the order in which they answer a question."""

    _word = "Rerank"

    def __init__(self, playground: Playground) -> None:
        super().__init__(playground, "rerank")

    async def build(self) -> None:
        """Draw it."""
        self._draw()

    def _fields(self) -> None:
        self._query = ui.input("Question", value="What guides ships at night?")
        self._query.props('outlined dense maxlength="10000"').classes("c-field")
        self._texts = ui.textarea(
            "Documents, one a line",
            value="A lighthouse stands on the cliff.\nSoup is best when hot.\nSailors read charts.",
        )
        self._texts.props('outlined autogrow maxlength="100000"').classes("c-field")

    def _body(self) -> dict[str, object]:
        documents = texts_of(self._texts.value or "")[:MAX_TEXTS]
        return {"model": str(self._model.value or ""), "query": self._query.value or "", "documents": documents}

    async def _ask(self) -> None:
        documents = texts_of(self._texts.value or "")[:MAX_TEXTS]
        if not documents:
            return
        answer, cost = await self._timed("/rerank", self._body())
        self._result.clear()
        with self._result:
            heading("Best first", 2)
            Text("p", cost, "c-hint")
            with box("pg-ranks", "ol"):
                for result in rows(answer.get("results")):
                    position, score = whole(result.get("index")), number(result.get("relevance_score"))
                    with box("pg-rank", "li"):
                        Text("span", documents[position] if position < len(documents) else text(position), "c-grow")
                        Text("span", "–" if score is None else f"{score:.4f}", "c-mono c-nowrap")

    async def _show_code(self) -> None:
        body = self._body()
        await show_snippets({"curl": curl(self._url, "/rerank", body), "Python": python_rerank(self._url, body)})


def _matrix(texts: list[str], values: list[list[float | None]]) -> None:
    with box("pg-matrix-frame").props('tabindex="0"'), labelled(box("pg-matrix", "table"), "Cosine similarity"):
        with box("", "thead"), box("", "tr"):
            Text("th", "Cosine")
            for position in range(len(texts)):
                Text("th", str(position + 1)).props["scope"] = "col"
        with box("", "tbody"):
            for position, (given, line) in enumerate(zip(texts, values, strict=False)):
                with box("", "tr"):
                    Text("th", f"{position + 1}  {given}", "c-clip").props["scope"] = "row"
                    for value in line:
                        share = max(0.0, value or 0.0)
                        made = Text("td", "–" if value is None else f"{value:.3f}")
                        made.style(
                            f"background:color-mix(in srgb, var(--c-accent-soft) {share * 100:.0f}%, transparent)"
                        )
