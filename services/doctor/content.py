"""Whether what is sealed in the tables can be read with the keys that this program has."""

from m3 import upkeep
from m3.errors import StartError, StoreUnavailable
from m3.sealing import Masters
from m3.settings import Settings
from m3.store import open_store
from services.doctor.findings import Finding


async def content(settings: Settings) -> list[Finding]:
    """Nothing where nothing is to be sealed, and nothing is."""
    if settings.database_url is None:
        return []
    try:
        masters = Masters.of(settings)
        async with open_store(settings.database_url.get_secret_value(), pool_size=1, masters=masters) as store:
            await upkeep.check(store)
    except StartError as error:
        found, _, advice = str(error).partition(". ")
        return [Finding("content", "wrong", found.removesuffix("."), advice or "Correct CONTENT_KEYS.")]
    except StoreUnavailable:
        return [Finding("content", "skipped", "the tables were not reached")] if masters.names else []
    return [Finding("content", "ok", "what is sealed opens with CONTENT_KEYS")] if masters.names else []
