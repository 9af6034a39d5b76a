"""The first administrator is shown at the first start and never again."""

import httpx
import pytest

from cortex_cli.adapters.admin_api import AdminApi
from cortex_cli.errors import CliError
from cortex_cli.stack.owner import first_owner, notice


def api(status: int, content: object) -> AdminApi:
    transport = httpx.MockTransport(lambda request: httpx.Response(status, json=content))
    return AdminApi(httpx.AsyncClient(transport=transport), "http://registry")


async def test_the_first_start_shows_name_and_password() -> None:
    found = await first_owner(api(201, {"user": {"username": "owner"}, "one_time_password": "a-b-c-d"}))
    assert found is not None
    assert "a-b-c-d" in notice(found)
    assert "cortex login --user owner" in notice(found)
    assert "a-b-c-d" not in repr(found)


async def test_a_later_start_shows_nothing_and_another_refusal_is_told() -> None:
    assert await first_owner(api(409, {"code": "owner_exists", "detail": "There is one."})) is None
    with pytest.raises(CliError) as caught:
        await first_owner(api(503, {"code": "database_unavailable", "detail": "Away."}))
    assert caught.value.code == "database_unavailable"
