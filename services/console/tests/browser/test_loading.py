"""How pages come to a browser."""

from collections.abc import Callable

from playwright.sync_api import Page, expect

from .conftest import Person, sign_in


def test_the_files_of_the_first_page_are_there_when_somebody_has_signed_in(
    guest: Page, url: str, new_person: Callable[[str], Person]
) -> None:
    answers: list[tuple[str, int]] = []
    guest.on("response", lambda answer: answers.append((answer.url, answer.status)))
    with guest.expect_response("**/index-*.js"):  # of the charts, the largest
        guest.goto(f"{url}/sign-in")
    guest.wait_for_load_state()
    wanted = guest.locator("link[rel=preload]").evaluate_all("(all) => all.map((one) => one.href)")
    assert len(wanted) >= 10
    assert {status for address, status in answers if address in wanted} == {200}
    sign_in(guest, url, new_person("viewer"))
    expect(guest.locator(".c-feed")).to_have_text("Live")
    used, fetched = guest.evaluate(
        "() => { const all = performance.getEntriesByType('resource');"
        " return [all, all.filter((one) => one.transferSize)].map((some) => some.map((one) => one.name)); }"
    )
    assert set(wanted) <= set(used)
    assert not set(wanted) & set(fetched)
