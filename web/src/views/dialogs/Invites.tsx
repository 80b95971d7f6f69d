import { useEffect, useState } from "preact/hooks";
import * as api from "../../api";
import { addressOfInvite, room } from "../../app";
import type { Invite } from "../../wire";
import { day, words } from "../../words";
import { Button } from "../Button";
import { Refusal, show, useAttempt } from "../Refusal";
import { LinkField } from "./LinkField";
import { SureButton } from "./SureButton";

const DAYS = [1, 7, 30] as const;
/** Seconds of a day. */
const DAY = 86_400;
const ROLES: readonly Invite["role"][] = ["member", "reader"];

/** Links that make whoever opens them a member. */
export function Invites({ thread }: { thread: string }) {
  const [role, setRole] = useState<Invite["role"]>("member");
  const [days, setDays] = useState<number>(7);
  const [link, setLink] = useState<string | undefined>(undefined);
  const [good, setGood] = useState<readonly Invite[]>([]);
  const { isBusy, problem, attempt } = useAttempt();
  const change = (work?: () => Promise<unknown>) =>
    attempt(async () => {
      await work?.();
      setGood(await api.invites(thread));
    });
  useEffect(() => void change(), [thread]);

  function make(event: Event): void {
    event.preventDefault();
    void change(async () => {
      const invite = await api.invite(thread, role, days * DAY);
      setLink(addressOfInvite(invite));
    });
  }

  return (
    <section class="stack">
      <h3>{words.value.inviteByLink}</h3>
      <p class="hint">{room.value?.sign_up ? words.value.inviteAnybodyHint : words.value.inviteHint}</p>
      <form class="row" onSubmit={make}>
        <label>
          {words.value.role}
          <select value={role} onChange={(event) => setRole(event.currentTarget.value as Invite["role"])}>
            {ROLES.map((one) => (
              <option key={one} value={one}>
                {words.value.roles[one]}
              </option>
            ))}
          </select>
        </label>
        <label>
          {words.value.inviteFor}
          <select value={days} onChange={(event) => setDays(Number(event.currentTarget.value))}>
            {DAYS.map((one) => (
              <option key={one} value={one}>
                {words.value.days(one)}
              </option>
            ))}
          </select>
        </label>
        <Button type="submit" isBusy={isBusy}>
          {words.value.makeLink}
        </Button>
      </form>
      <Refusal of={problem} />
      {link !== undefined && (
        <div key={link} class="made" role="status" ref={show}>
          <LinkField label={words.value.inviteLink} link={link} />
          <p class="hint">{words.value.linkOnce}</p>
        </div>
      )}
      {good.length > 0 && (
        <>
          <h3>{words.value.openInvites}</h3>
          <ul class="plain members">
            {good.map((one) => (
              <li key={one.prefix}>
                <span>
                  {words.value.roles[one.role]} <code>{one.prefix}…</code>
                  <br />
                  <small>{words.value.until(day.value(Date.parse(one.expires_at)), one.made_by)}</small>
                </span>
                <SureButton
                  text={words.value.takeBack}
                  label={words.value.told(words.value.takeBack, one.prefix)}
                  isBusy={isBusy}
                  act={() =>
                    void change(async () => {
                      await api.takeInviteBack(thread, one.prefix);
                      setLink(undefined);
                    })
                  }
                />
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}
