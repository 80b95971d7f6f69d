"""What an operator does about a room's keys and what they seal: a page at a time, and harmless beside a running room.

What broke off can be begun again. Each function says what it finds, by ``say``, and returns whether all is well.
"""

from collections.abc import Awaitable, Callable

from m3.errors import StartError, Unreadable
from m3.sealing.content import Content, ThreadKey, about_message, about_summary, plain_terms
from m3.sealing.masters import Masters, WrappedKey
from m3.store import Store
from m3.store.vault import Kept, KeptSummary, Sealed, Vault

#: Rows of a page, and of a transaction.
PAGE = 500
#: Keys of threads by which a master key is tried: one of them may have been changed.
SAMPLES = 5

#: Takes a sentence.
Say = Callable[[str], None]
#: One of the functions below.
Work = Callable[[Store, Say], Awaitable[bool]]


async def check(store: Store) -> None:
    """Raises StartError where a master key is not there by which threads' keys are wrapped, or another than it was."""
    masters = store.content.masters
    for name, keys in (await Vault(store).samples(SAMPLES)).items():
        if name not in masters.names:
            raise StartError(
                f"CONTENT_KEYS lacks the key {name}, without which sealed messages cannot be read. Add it; once "
                "`m3 content rotate` has wrapped all threads' keys with another one it can go."
            )
        if not any(_opens(masters, thread_id, key) for thread_id, key in keys):
            raise StartError(
                f"CONTENT_KEYS has another key {name} than the one by which messages were sealed; or the keys of "
                "threads were changed, of which `m3 content verify` says more."
            )


def _opens(masters: Masters, thread_id: str, key: WrappedKey) -> bool:
    try:
        masters.unwrap(thread_id, key)
    except Unreadable:
        return False
    return True


async def rotate(store: Store, say: Say) -> bool:
    """Wrap all threads' keys with the first master key."""
    masters, vault = _sealing(store), Vault(store)
    wrapped, lost, after = 0, 0, ""
    while page := await vault.keys(PAGE, after=after, but_of=masters.first):
        after = page[-1][0]
        changes = []
        for thread_id, key in page:
            try:
                changes.append((thread_id, key, masters.rewrap(thread_id, key)))
            except Unreadable as error:
                lost += 1
                say(f"The key of the thread {thread_id} does not open: {error}")
        if changes:
            await vault.change_keys(changes)
        wrapped += len(changes)
    say(f"{wrapped} threads' keys were wrapped with the key {masters.first}; {lost} do not open.")
    return not lost


async def seal(store: Store, say: Say) -> bool:
    """Seal what was said before the room had keys."""
    _sealing(store)
    content, vault = store.content, Vault(store)
    sealed, after = 0, 0
    while page := await vault.messages(PAGE, after=after):
        after = page[-1].id
        plain = [kept for kept in page if not kept.sealed]
        if plain:
            keys = await _keys(content, {kept.thread_id for kept in plain})
            await vault.seal_messages([_sealed(kept, keys[kept.thread_id]) for kept in plain])
        sealed += len(plain)
    summaries, thread_id = 0, ""
    while some := await vault.summaries(PAGE, after=thread_id):
        thread_id = some[-1].thread_id
        for summary in some:
            if not summary.sealed:
                keys = await _keys(content, {summary.thread_id})
                about = about_summary(summary.thread_id, summary.until)
                await vault.seal_summary(summary, keys[summary.thread_id].seal(summary.text, about))
                summaries += 1
    say(f"{sealed} messages and {summaries} summaries were sealed.")
    return True


def _sealed(kept: Kept, key: ThreadKey) -> Sealed:
    about = about_message(kept.thread_id, kept.message_id)
    return Sealed(kept, key.seal(kept.content, about), key.terms(kept.content))


async def index(store: Store, say: Say) -> bool:
    """Have all messages found that are not found by any word yet, as those from before there was a search."""
    vault = Vault(store)
    made, lost, after = 0, 0, 0
    while page := await vault.messages(PAGE, after=after):
        after = page[-1].id
        missing = [kept for kept in page if not kept.searchable]
        keys = await store.content.keys({kept.thread_id for kept in missing if kept.sealed})
        found_by = []
        for kept in missing:
            try:
                found_by.append((kept, _terms(kept, keys.get(kept.thread_id))))
            except Unreadable:
                lost += 1
        if found_by:
            await vault.add_terms(found_by)
        made += len(found_by)
    say(f"{made} messages can be found now that could not before; {lost} cannot be read.")
    return not lost


def _terms(kept: Kept, key: ThreadKey | None) -> bytes:
    if not kept.sealed:
        return plain_terms(kept.thread_id, kept.content)
    if key is None:
        raise Unreadable("The thread's key cannot be had.")
    return key.terms(key.open(kept.content, about_message(kept.thread_id, kept.message_id)))


async def verify(store: Store, say: Say) -> bool:
    """Open all that is sealed. What does not open was changed, or put in the place of something else."""
    content, vault = store.content, Vault(store)
    read, plain, changed, after = 0, 0, 0, 0
    while page := await vault.messages(PAGE, after=after):
        after = page[-1].id
        keys = await content.keys({kept.thread_id for kept in page if kept.sealed})
        for kept in page:
            read += 1
            plain += not kept.sealed
            if kept.sealed and not _is_whole(kept, keys.get(kept.thread_id)):
                changed += 1
                say(f"The message {kept.message_id} of the thread {kept.thread_id} does not open.")
    thread_id = ""
    while some := await vault.summaries(PAGE, after=thread_id):
        thread_id = some[-1].thread_id
        keys = await content.keys({summary.thread_id for summary in some if summary.sealed})
        for summary in some:
            plain += not summary.sealed
            if summary.sealed and not _is_whole(summary, keys.get(summary.thread_id)):
                changed += 1
                say(f"The summary of the thread {summary.thread_id} does not open.")
    thread_id = ""
    while wrapped := await vault.keys(PAGE, after=thread_id):
        thread_id = wrapped[-1][0]
        for one, key in wrapped:
            if not _opens(content.masters, one, key):
                changed += 1
                say(f"The key of the thread {one} does not open with the master key {key.master}.")
    say(f"{read} messages were read; {changed} things do not open, and {plain} are plain.")
    return not changed and not plain


def _is_whole(kept: Kept | KeptSummary, key: ThreadKey | None) -> bool:
    if key is None:
        return False
    try:
        if isinstance(kept, Kept):
            key.open(kept.content, about_message(kept.thread_id, kept.message_id))
        else:
            key.open(kept.text, about_summary(kept.thread_id, kept.until))
    except Unreadable:
        return False
    return True


def _sealing(store: Store) -> Masters:
    masters = store.content.masters
    if masters.first is None:
        raise StartError("Set CONTENT_KEYS=name:64 hex digits, the key to seal with first.")
    return masters


async def _keys(content: Content, thread_ids: set[str]) -> dict[str, ThreadKey]:
    """Keys to seal with. Raises StartError where one does not open."""
    keys = await content.keys(thread_ids, make=True)
    if lost := sorted(thread_ids - keys.keys()):
        raise StartError(f"The key of the thread {lost[0]} does not open: `m3 content verify` says more.")
    return keys
