"""The whole job of an administrator in a browser, from signing in to deleting the model, with trouble in the middle of it."""

from playwright.sync_api import Page, expect

from .journey import Journey, restart_registry
from .looking import visit

LONG = "Write a very long story about a lighthouse, a storm and a ship. Do not stop before 900 words."


def test_an_administrator_does_the_whole_job_with_llama_cpp(journey: Journey, viewer: Page) -> None:
    page = journey.page
    journey.go_by_navigation("Models")
    page.get_by_role("link", name="New model").click()
    page.get_by_role("button", name="Create and start Smollm2").click()
    journey.loads()
    journey.chats()
    a_restart_of_the_registry_and_a_reload_lose_nothing(journey)
    journey.is_used_watched_and_deleted(viewer, requests=3, log_line="all slots are idle")


def a_restart_of_the_registry_and_a_reload_lose_nothing(journey: Journey) -> None:
    """Of a chat while an answer comes, and of a form that is half filled."""
    chat, form = journey.page, journey.page.context.new_page()
    visit(form, f"{journey.url}/models/{journey.model}/edit")
    form.get_by_label("Context size, tokens").fill("2048")
    form.get_by_label("Parallel slots").fill("some")
    expect(form.locator(".mf-change")).to_contain_text("2048 tokens")
    journey.limits_answers(600)
    journey.ask(LONG)
    expect(chat.locator(".pg-answer")).to_have_count(2)
    answer = chat.locator(".pg-answer .c-md").last
    expect(answer).not_to_be_empty()
    begun = answer.inner_text()
    chat.get_by_label("Your message").fill("And then?")
    restart_registry(journey.stack, chat, form)
    for page in (chat, form):
        page.reload()
        expect(page.locator(".c-feed")).to_have_text("Live")
    whole = journey.answers(2)[1]
    assert whole.startswith(begun[:8])
    assert len(whole) > len(begun), "it went on"
    expect(chat.get_by_label("Your message")).to_have_value("And then?")
    expect(form.get_by_label("Context size, tokens")).to_have_value("2048")
    expect(form.get_by_label("Parallel slots")).to_have_value("some")
    expect(form.get_by_text("A whole number is wanted.")).to_be_visible()
    form.get_by_label("Parallel slots").fill("1")
    form.get_by_role("button", name="Save", exact=True).click()
    expect(form.locator(".c-toast").filter(has_text="Saved.")).to_be_visible()
    stored = journey.stack.model(journey.model)
    assert (stored["context_size"], stored["parallel_slots"]) == (2048, 1)
    form.reload()
    expect(form.locator(".mf-bar")).to_contain_text("Fits")
    expect(form.locator(".mf-change")).to_have_count(0)
    form.close()
    journey.limits_answers(16)  # the engine is being replaced; the old one does not wait for ever
    chat.get_by_role("button", name="Send").click()
    journey.answers(3)
    expect(chat.get_by_label("Your message")).to_have_value("")
