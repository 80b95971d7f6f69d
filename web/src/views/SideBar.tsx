import { useSignal } from "@preact/signals";
import { addressOf, DEFAULT_THREAD, dialog, name, openThread, threadId } from "../app";
import { COUNTED, type Listed, listed, withOpen } from "../threads";
import { briefly, words } from "../words";
import { Avatar } from "./Avatar";
import { Icon } from "./Icon";
import { Mark } from "./Mark";

/** Threads from which on one can look for a name among them. */
const MANY = 8;

export function SideBar({ close }: { close: () => void }) {
  const wanted = useSignal("");
  const all = withOpen(listed.value, threadId.value);
  const looked = wanted.value.trim().toLowerCase();
  const found = looked ? all.filter((one) => one.threadId.toLowerCase().includes(looked)) : all;
  return (
    <>
      <nav
        class="side"
        aria-label={words.value.threads}
        onKeyDown={(event) => {
          if (event.key === "Escape") close();
        }}
      >
        <header>
          <a class="brand" href="/" onClick={leadingTo(() => openThread(DEFAULT_THREAD))}>
            <Mark />
            {words.value.room}
          </a>
          <button type="button" class="icon only-narrow" aria-label={words.value.hideThreads} onClick={close}>
            <Icon name="close" />
          </button>
        </header>
        <button
          type="button"
          class="new-thread"
          onClick={() => {
            dialog.value = "new-thread";
          }}
        >
          <Icon name="plus" />
          {words.value.newThread}
        </button>
        {all.length >= MANY && (
          <input
            type="search"
            value={wanted.value}
            aria-label={words.value.findThread}
            placeholder={words.value.findThread}
            onInput={(event) => {
              wanted.value = event.currentTarget.value;
            }}
          />
        )}
        <ul class="plain threads">
          {found.map((one) => (
            <ThreadItem key={one.threadId} thread={one} close={close} />
          ))}
        </ul>
        {!found.length && <p class="hint">{words.value.noThreadFound}</p>}
        <button
          type="button"
          class="me"
          onClick={() => {
            dialog.value = "preferences";
          }}
        >
          <Avatar lane="user" name={name.value ?? ""} />
          <span class="name">{name.value}</span>
          <Icon name="settings" />
          <span class="seldom">{words.value.preferences}</span>
        </button>
      </nav>
      <button type="button" class="curtain" aria-label={words.value.hideThreads} tabIndex={-1} onClick={close} />
    </>
  );
}

function ThreadItem({ thread, close }: { thread: Listed; close: () => void }) {
  const { threadId: id, unread, lastAt } = thread;
  const isOpen = id === threadId.value;
  const more = unread > COUNTED;
  return (
    <li>
      <a
        href={addressOf(id)}
        aria-current={isOpen ? "page" : undefined}
        onClick={leadingTo(() => {
          openThread(id);
          close();
        })}
      >
        <span class="name">{id}</span>
        {thread.visibility === "private" && thread.role !== null && <Icon name="lock" />}
        {unread > 0 && !isOpen ? (
          <span class="unread">
            <span aria-hidden="true">{more ? `${COUNTED}+` : unread}</span>
            <span class="seldom">{words.value.unread(Math.min(unread, COUNTED), more)}</span>
          </span>
        ) : (
          lastAt > 0 && <time>{briefly.value(lastAt)}</time>
        )}
      </a>
    </li>
  );
}

/** A link that is followed within the page, unless it is to be opened in another. */
const leadingTo = (go: () => void) => (event: MouseEvent) => {
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.button !== 0) return;
  event.preventDefault();
  go();
};
