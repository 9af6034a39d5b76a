"""What the form of a model, the calculator and recipes decide."""

import asyncio
from typing import Any

import pytest

from cortex_console.domain.form import calculator
from cortex_console.domain.form.calculator import Hardware
from cortex_console.domain.form.command import command_text
from cortex_console.domain.form.draft import Draft
from cortex_console.domain.form.fields import FormField, Widget
from cortex_console.domain.form.latest import Latest
from cortex_console.domain.form.library import LibraryEntry, beginning, name_for, ordered
from cortex_console.domain.form.memory import Estimate, Proposal, beside, largest, proposals_of, settled, useful
from cortex_console.domain.form.refusals import of_error, of_names
from cortex_console.domain.form.revisions import Revision, differences
from cortex_console.domain.form.sections import owner_of, sections_of
from cortex_console.domain.form.typed import WrongValue, parse, said, shown
from cortex_console.errors import ConsoleError, FieldError
from cortex_contracts.engines import LlamaCppOptions, VllmOptions


def field(name: str, type_: str = "string", **more: Any) -> FormField:
    return FormField.of({"name": name, "type": type_, "group": "basic", "description": "what it is", **more})


CONTEXT = field("context_size", "integer", default=8192, minimum=0, unit="tokens")
NGL = field("ngl", "integer", nullable=True, minimum=0)
SCALE = field("rope_scale", "number", nullable=True, exclusive_minimum=0)
SHARE = field("gpu_memory_utilization", "number", default=0.9, exclusive_minimum=0, maximum=1)
NAME = field("name", required=True)
ALIASES = field("aliases", "array", default=[])
ARGS = field("extra_args", "array", default=[])
ENV = field("extra_env", "object", default={})
OVERRIDES = field("hf_overrides", "object", default={})
LORAS = field("lora_adapters", "array", default=[])
GPUS = field("placement", "any", default="auto", choices=["auto"])
SPLIT = field("tensor_split", nullable=True, pattern=r"^\d+(\.\d+)?([,/]\d+(\.\d+)?)*$")
UNIFIED = field("kv_unified", "boolean", nullable=True)
LOCK = field("mlock", "boolean", default=False)
TASK = field("task", default="generate", choices=["generate", "embed", "rerank"])
DEFAULTS = field("request_defaults", "object", default={})
TOKEN = field("hf_token", nullable=True, write_only=True)
SERVED = field("served_model_name", nullable=True)
FIELDS = (NAME, SERVED, ALIASES, CONTEXT, NGL, SPLIT, UNIFIED, LOCK, TASK, DEFAULTS, TOKEN)


@pytest.mark.parametrize(
    ("one", "typed", "value"),
    [
        (CONTEXT, "4096", 4096),
        (CONTEXT, " 32k ", 32768),
        (CONTEXT, "131 072", 131072),
        (CONTEXT, "", 8192),
        (CONTEXT, None, 8192),
        (NGL, "", None),
        (NGL, "0", 0),
        (SHARE, "0.85", 0.85),
        (NAME, "  Qwen  ", "Qwen"),
        (ALIASES, "qwen, best\nlast", ["qwen", "best", "last"]),
        (ARGS, "--flag 'two words' -x", ["--flag", "two words", "-x"]),
        (ENV, "A=1\n\n B = x=y ", {"A": "1", "B": " x=y"}),
        (OVERRIDES, '{"a": [1]}', {"a": [1]}),
        (LORAS, '[{"path": "a.gguf"}]', [{"path": "a.gguf"}]),
        (GPUS, "0, 2", [0, 2]),
        (GPUS, "Auto", "auto"),
        (GPUS, "", "auto"),
        (SPLIT, "3,1", "3,1"),
        (UNIFIED, None, None),
        (UNIFIED, False, False),
        (LOCK, True, True),
    ],
)
def test_what_is_typed_is_read(one: FormField, typed: Any, value: Any) -> None:
    assert parse(one, typed) == value


@pytest.mark.parametrize(
    ("one", "typed", "message"),
    [
        (CONTEXT, "many", "whole number"),
        (CONTEXT, "1.5", "whole number"),
        (CONTEXT, "-1", "At least 0"),
        (SCALE, "0", "More than 0"),
        (SCALE, "nan", "number"),
        (SHARE, "1.2", "At most 1"),
        (NAME, " ", "missing"),
        (ARGS, "--flag 'open", "quotation"),
        (ENV, "no equals", "NAME=value"),
        (OVERRIDES, "{", "No JSON"),
        (OVERRIDES, "[]", "object"),
        (LORAS, "{}", "list"),
        (GPUS, "first", "Numbers of GPUs"),
        (SPLIT, "half", "Proportions"),
    ],
)
def test_what_cannot_be_meant_is_said(one: FormField, typed: str, message: str) -> None:
    with pytest.raises(WrongValue, match=message):
        parse(one, typed)


@pytest.mark.parametrize(
    ("one", "value"),
    [
        (CONTEXT, 4096),
        (NGL, 3),
        (SHARE, 0.5),
        (ALIASES, ["a", "b"]),
        (ARGS, ["--flag", "two words"]),
        (ENV, {"A": "1", "B": "x=y"}),
        (OVERRIDES, {"a": {"b": None}}),
        (GPUS, [0, 1]),
        (LOCK, True),
        (UNIFIED, True),
    ],
)
def test_what_is_shown_is_read_back_the_same(one: FormField, value: Any) -> None:
    assert parse(one, shown(one, value)) == value


def test_a_default_leaves_the_input_empty_and_stands_behind_it() -> None:
    assert (shown(CONTEXT, 8192), CONTEXT.empty_means) == ("", "8192")
    assert (shown(NGL, None), NGL.empty_means) == ("", "auto")


def test_the_kind_of_an_input_follows_the_registry() -> None:
    assert [one.widget for one in (CONTEXT, NAME, ALIASES, ARGS, ENV, OVERRIDES, GPUS, LOCK, UNIFIED, TOKEN)] == [
        Widget.NUMBER,
        Widget.TEXT,
        Widget.NAMES,
        Widget.WORDS,
        Widget.PAIRS,
        Widget.JSON,
        Widget.PLACEMENT,
        Widget.SWITCH,
        Widget.CHOICE,
        Widget.SECRET,
    ]
    assert UNIFIED.choices == ((None, "Engine decides"), (True, "On"), (False, "Off"))
    assert NAME.help == "What people call it."
    assert CONTEXT.label == "Context size"


def test_values_are_said_in_words() -> None:
    assert said(CONTEXT, 4096) == "4096 tokens"
    assert said(UNIFIED, None) == said(ALIASES, []) == "–"
    assert said(LOCK, True) == "on"
    assert said(ALIASES, ["a", "b"]) == "a, b"
    assert said(TASK, "embed") == "Embeddings"


@pytest.mark.parametrize("options", [LlamaCppOptions, VllmOptions])
def test_every_option_of_an_engine_stands_in_one_section(options: type[LlamaCppOptions | VllmOptions]) -> None:
    fields = [field(name, group="advanced") for name in (*options.model_fields, "an_option_of_tomorrow")]
    shown_names = [one.name for section in sections_of(fields) for one in section.fields]
    assert sorted(shown_names) == sorted(one.name for one in fields)


def test_common_request_parameters_are_fields_of_chat_models_alone() -> None:
    def names(task: str) -> list[str]:
        return [one.name for section in sections_of([DEFAULTS], task) for one in section.fields]

    assert "request_defaults.temperature" in names("generate")
    assert names("embed") == ["request_defaults"]


@pytest.mark.parametrize(
    ("wrong", "shown_at"),
    [
        ("ngl", "ngl"),
        ("aliases.0", "aliases"),
        ("request_defaults.temperature", "request_defaults.temperature"),
        ("request_defaults.zzz", "request_defaults"),
        ("local_path", None),
        ("", None),
    ],
)
def test_an_error_finds_its_input(wrong: str, shown_at: str | None) -> None:
    names = ["ngl", "aliases", "request_defaults", "request_defaults.temperature"]
    assert owner_of(wrong, names) == shown_at


def draft(**given: Any) -> Draft:
    return Draft.new("llamacpp", FIELDS, {"name": "one", **given})


def test_a_new_model_is_described_by_what_is_not_the_default() -> None:
    made = draft().typed("context_size", "4096").typed("mlock", False)
    assert made.description() == {"engine_type": "llamacpp", "name": "one", "context_size": 4096}
    assert made.set_in(["context_size", "ngl"]) == 1


def test_a_wrong_value_is_kept_out_until_it_is_mended() -> None:
    wrong = draft().typed("context_size", "many")
    assert wrong.values["context_size"] == 8192
    assert "context_size" in wrong.wrong
    assert wrong.typed("context_size", "1024").wrong == {}


def test_a_patch_holds_what_differs_and_null_for_a_default() -> None:
    before = draft(context_size=4096, ngl=3)
    after = before.typed("context_size", "").typed("ngl", "5").typed("hf_token", "hf_secret")
    assert after.patch(before) == {"context_size": None, "ngl": 5, "hf_token": "hf_secret"}
    words = {one.field: (one.before, one.after) for one in after.changes(before)}
    assert words["context_size"] == ("4096 tokens", "8192 tokens")
    assert words["hf_token"] == ("kept", "replaced")


def test_what_was_typed_can_be_typed_again_but_for_secrets() -> None:
    begun = Draft.new("llamacpp", FIELDS, {"name": "Qwen"})
    typed = begun.typed("context_size", "32k").typed("kv_unified", True).typed("hf_token", "hf_secret")
    typed = typed.typed("request_defaults.temperature", "0.5").typed("aliases", "one, two")
    kept = typed.typed_since(begun)
    assert kept == {
        "context_size": "32768",
        "kv_unified": True,
        "request_defaults.temperature": "0.5",
        "aliases": "one, two",
    }
    again = begun.retyped(kept | {"ngl": "many", "gone": "1"})
    assert again.having("ngl", None) == typed.having("hf_token", None)
    assert again.wrong == {"ngl": "A whole number is wanted."}


def test_request_defaults_are_one_object_behind_several_inputs() -> None:
    made = draft(request_defaults={"temperature": 0.2, "seed": 1})
    assert made.value("request_defaults.temperature") == 0.2
    assert made.value("request_defaults") == {"seed": 1}
    made = made.typed("request_defaults.temperature", "").typed("request_defaults.top_k", "40")
    made = made.typed("request_defaults", '{"stop": ["x"]}')
    assert made.values["request_defaults"] == {"top_k": 40, "stop": ["x"]}


def test_my_edits_go_over_somebody_elses_version() -> None:
    base, theirs = draft(ngl=1), draft(ngl=2, context_size=2048)
    mine = base.typed("context_size", "1024")
    kept = theirs.rebased(mine, base)
    assert (kept.values["ngl"], kept.values["context_size"]) == (2, 1024)
    assert kept.patch(theirs) == {"context_size": 1024}


def test_the_registrys_refusals_come_to_their_fields() -> None:
    wrong = FieldError("ngl", "greater_than_equal", "Input should be greater than or equal to 0")
    assert of_error(ConsoleError(422, "invalid_request", "no", fields=(wrong,))) == {
        "ngl": "Should be greater than or equal to 0"
    }
    form = FieldError("aliases.0", "string_pattern_mismatch", "String should match pattern '^…$'")
    assert of_error(ConsoleError(422, "invalid_request", "no", fields=(form,)))["aliases.0"].startswith("Letters,")
    assert of_error(ConsoleError(409, "name_taken", "taken")) == {"served_model_name": "taken"}
    assert of_error(ConsoleError(422, "path_outside", "outside")) == {"": "outside"}


def test_a_name_that_another_model_has_is_told_before_saving() -> None:
    taken = {"one": "a", "two": "b"}
    assert of_names(draft(), "one", taken, None) == {"name": "Another model is served as one."}
    assert of_names(draft(served_model_name="one"), "one", taken, "a") == {}
    assert "aliases" in of_names(draft(aliases=["two"]), "one", taken, "a")


def entry(**more: Any) -> LibraryEntry:
    plain = {
        "path": "x/model-Q4_K_M.gguf",
        "format": "gguf",
        "kind": "model",
        "state": "ready",
        "engines": [{"engine": "vllm", "suits": False, "reason": "no"}, {"engine": "llamacpp", "suits": True}],
    }
    return LibraryEntry.of(plain | more)


def test_what_can_be_used_comes_first_and_the_recommended_before_it() -> None:
    usable, best = entry(path="b"), entry(path="c", recommended=True)
    part = entry(path="a", state="incomplete", reason="1 of 4 parts are missing")
    assert [one.path for one in ordered([part, usable, best])] == ["c", "b", "a"]
    assert (usable.usable, usable.engine, part.usable) == (True, "llamacpp", False)
    assert part.why == "1 of 4 parts are missing"
    assert part.status[0] == "incomplete"
    assert entry(kind="mmproj", engines=[]).why.startswith("Projector")
    assert entry(parts={"present": 3, "expected": 3}).status[0] == "3 of 3 parts"


@pytest.mark.parametrize(
    ("path", "taken", "name"),
    [
        ("x/Qwen3-8B-Q4_K_M.gguf", (), "Qwen3-8B-Q4_K_M"),
        ("gpt/gpt-oss-120b-00001-of-00003.gguf", (), "gpt-oss-120b"),
        ("tiny-llama", ("tiny-llama", "tiny-llama-2"), "tiny-llama-3"),
        ("Model.Q4_1.gguf", ("model-q4-1",), "Model.Q4_1-2"),
    ],
)
def test_a_model_is_named_after_its_file(path: str, taken: tuple[str, ...], name: str) -> None:
    assert name_for(path, taken) == name


def test_a_new_model_begins_with_less_context_only_where_more_would_not_fit() -> None:
    assert beginning(entry(), {"context_size": 65536}, ()) == {
        "name": "model-Q4_K_M",
        "local_path": "x/model-Q4_K_M.gguf",
    }
    assert beginning(entry(), {"context_size": 2048}, ())["context_size"] == 2048
    assert beginning(entry(context_length=4096), {}, ())["context_size"] == 4096
    assert beginning(entry(kind="embedding"), {}, ())["task"] == "embed"


def test_only_proposals_that_change_something_are_shown() -> None:
    told = [
        {"setting": "engine_type", "value": "llamacpp", "reason": ""},
        {"setting": "context_size", "value": 8192, "reason": "fits"},
        {"setting": "kv_unified", "value": "on", "reason": "why"},
        {"setting": "ngl", "value": 12, "reason": "why"},
        {"setting": "not_here", "value": 1, "reason": ""},
    ]
    made = draft()
    found = useful(proposals_of(told), made.fields, made.values)
    assert [one.setting for one in found] == ["kv_unified", "ngl"]
    assert settled(Proposal("kv_unified", "on", ""), UNIFIED) is True
    assert settled(Proposal("ngl", 12, ""), NGL) == 12


def test_files_that_go_with_a_model_are_proposed() -> None:
    assert beside(entry()) == ()
    found = beside(entry(mmproj=["m.gguf", "n.gguf"], drafts=["d.gguf"]))
    assert [(one.setting, one.value) for one in found] == [("mmproj_path", "m.gguf"), ("draft_model_path", "d.gguf")]


def test_the_largest_context_is_offered_where_it_is_another_one() -> None:
    told = {"known": True, "total": 0, "context_size": 8192}
    assert largest(Estimate.of({**told, "largest_context": 8192}), "llamacpp") is None
    assert largest(Estimate.of({**told, "largest_context": 0}), "llamacpp") is None
    found = largest(Estimate.of({**told, "largest_context": 16384}), "vllm")
    assert found is not None
    assert (found.setting, found.value) == ("max_model_len", 16384)


def test_an_estimate_counts_output_as_other_and_says_the_rest() -> None:
    one = {"device": "GPU0", "weights": 10, "kv": 5, "compute": 3, "output": 1, "other": 2, "total": 21, "free": 20}
    estimate = Estimate.of({"known": False, "devices": [one | {"fits": False}], "total": 21, "fits": False})
    device = estimate.devices[0]
    assert (device.parts["other"], device.scale, device.title) == (3, 21, "GPU 0")
    assert estimate.verdict[0] == "does not fit"
    assert estimate.facts() == {"Together": "21 B or more"}
    assert Estimate.of({"largest_context": 0, "total": 0, "known": True}).facts()["Largest context that fits"] == "none"


def test_a_command_line_has_an_option_a_line() -> None:
    argv = ["/bin/llama server", "--host", "<host>", "--temp", "-1", "--flag", "--name", "a b"]
    assert command_text(argv) == (
        "'/bin/llama server' \\\n  --host <host> \\\n  --temp -1 \\\n  --flag \\\n  --name 'a b'"
    )


def test_versions_compare_by_their_settings_alone() -> None:
    revision = Revision.of({"version": 3, "action": "model.update", "changed": ["ngl", "desired_state"]})
    assert (revision.action, revision.summary) == ("Changed", "GPU layers")
    items = [
        {"field": "desired_state", "before": "stopped", "after": "running"},
        {"field": "ngl", "before": 1, "after": None},
    ]
    (change,) = differences({"items": items}, {"ngl": NGL}, backwards=True)
    assert (change.label, change.before, change.after) == ("GPU layers", "–", "1")


def test_the_calculator_asks_with_what_is_not_the_default() -> None:
    settings = calculator.settings_of("llamacpp", FIELDS)
    made = Draft("llamacpp", {one.name: one for one in settings}, {one.name: one.default for one in settings})
    made = made.typed("ngl", "4")
    hardware = Hardware.thought(2, 24, 64, 16)
    request = calculator.estimate_request("a.gguf", made, hardware)
    assert request["llamacpp"] == {"ngl": 4}
    assert [one["name"] for one in request["devices"]] == ["GPU0", "GPU1"]
    assert hardware.summary == "2 GPUs, 48.0 GiB free there, 64.0 GiB of 64.0 GiB RAM free"
    assert calculator.address_of_new("a b.gguf", made) == "/models/new?path=a+b.gguf&ngl=4"
    assert calculator.patch_for({"ngl": 9, "context_size": 4096}, made) == {"ngl": 4, "context_size": None}


def test_settings_can_go_to_models_of_the_same_engine_those_of_the_same_file_first() -> None:
    models = [
        {"name": "a", "engine_type": "llamacpp", "local_path": "other"},
        {"name": "b", "engine_type": "llamacpp", "local_path": "mine"},
        {"name": "c", "engine_type": "vllm", "local_path": "mine"},
        {"name": "d", "engine_type": "llamacpp", "local_path": "mine", "external": True},
    ]
    assert [one["name"] for one in calculator.candidates(models, "llamacpp", "mine")] == ["b", "a"]


async def test_what_is_typed_while_one_asks_is_asked_once_more_and_waited_for() -> None:
    typed, asked, gate = "a", [], asyncio.Event()

    async def ask() -> None:
        asked.append(typed)
        await gate.wait()

    latest = Latest(ask)
    first = asyncio.create_task(latest())
    await asyncio.sleep(0)
    typed = "abc"
    others = [asyncio.create_task(latest()) for _ in range(3)]
    await asyncio.sleep(0)
    assert asked == ["a"]
    assert not any(one.done() for one in others)
    gate.set()
    await asyncio.gather(first, *others)
    assert asked == ["a", "abc"]


async def test_a_question_that_fails_leaves_the_next_one_free() -> None:
    failing = [True]

    async def ask() -> None:
        if failing.pop():
            raise ConsoleError(0, "unavailable", "away")

    latest = Latest(ask)
    with pytest.raises(ConsoleError):
        await latest()
    failing.append(False)
    await latest()
    assert failing == []
