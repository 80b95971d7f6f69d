export function Dialogs(_props: { goTo: (messageId: string) => void }) {
  return null;
}
