"""A session that ends while a person types, and what becomes of the form."""

import secrets

from playwright.async_api import expect

from tests.browser.guard import Guard
from tests.browser.journeys.installation import Installation
from tests.browser.person import Person, seen


@seen("light")
async def test_a_session_ends_while_a_person_types(
    person: Person, installation: Installation, guard: Guard
) -> None:
    guard.expect(401)
    fleet = f"typed-{secrets.token_hex(3)}"
    page = person.page
    await page.goto("/console/fleets/-/new")
    await person.reads("Sign in")
    await person.types("API token", "mat_mistyped")
    await person.presses("Sign in")
    await person.is_told("alert", "TOKEN_UNKNOWN")
    await person.types("API token", installation.admin_token)
    await person.presses("Sign in")
    await person.reads("New fleet")

    await person.types("Id", fleet)
    await person.types("Name", "Typed before & after")
    person.visits.end_sessions()
    await person.presses("Make the fleet")
    dialog = page.get_by_role("dialog", name="Your session has ended")
    await expect(dialog.get_by_label("API token")).to_be_focused()
    await person.looks()
    await person.types("API token", "mat_mistyped")
    await person.presses("Sign in")
    await person.is_told("alert", "This token is not valid")
    await person.types("API token", installation.admin_token)
    await person.presses("Sign in")

    await person.reads("Typed before & after")
    assert (await installation.found(f"/fleets/{fleet}"))["name"] == "Typed before & after"
    # The new session goes on for other forms.
    await person.types("Name", "Changed in the new session")
    await person.presses("Save")
    await person.is_told("status", "Saved.")
    await person.signs_out()
