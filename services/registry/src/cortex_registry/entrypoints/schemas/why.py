"""Answers about why."""

from datetime import datetime

from pydantic import BaseModel, Field, JsonValue

from cortex_registry.domain.why import Kind, Why, WhyNode


class WhyNodeAnswer(BaseModel):
    """One thing that happened, and what followed from it."""

    kind: Kind
    sentence: str = Field(examples=["alice asked it to run."])
    at: datetime
    after_s: float | None = Field(description="Seconds after what it follows from.")
    type: str | None = Field(description="Type of the event; null when its event is not known.")
    event_id: str | None
    causation_id: str | None = Field(description="The event that it names as its cause.")
    replica_id: str | None
    details: dict[str, JsonValue]
    children: list["WhyNodeAnswer"]

    @classmethod
    def of(cls, node: WhyNode) -> "WhyNodeAnswer":
        return cls(
            kind=node.kind,
            sentence=node.sentence,
            at=node.at,
            after_s=node.after_s,
            type=node.type,
            event_id=node.event_id,
            causation_id=node.causation_id,
            replica_id=node.replica_id,
            details=dict(node.details),
            children=[cls.of(child) for child in node.children],
        )


class WhyAnswer(BaseModel):
    """Why a model is in its state."""

    headline: str = Field(
        examples=["gpt failed: The GPU has too little memory. alice asked it to run at 19:03:12 UTC."]
    )
    next_step: str = Field(description="What to do; empty for a version of the past.")
    state: str | None = Field(description="Null while nothing can be observed.")
    reason: str
    since: datetime | None
    version: int | None = Field(description="The version of the model that the state goes back to.")
    root: WhyNodeAnswer | None
    later: list[WhyNodeAnswer] = Field(description="Changes after it that did not bring the state about.")
    omitted: int = Field(description="Events in the middle of a long history that were left out.")

    @classmethod
    def of(cls, why: Why) -> "WhyAnswer":
        present = why.present
        return cls(
            headline=why.headline,
            next_step=why.next_step,
            state=present.state.value if present.state is not None else None,
            reason=present.reason,
            since=present.since,
            version=why.version,
            root=WhyNodeAnswer.of(why.root) if why.root is not None else None,
            later=[WhyNodeAnswer.of(node) for node in why.later],
            omitted=why.omitted,
        )
