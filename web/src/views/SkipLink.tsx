/** Takes the keyboard to what has the id, and leaves the address alone, in which an invitation may be. */
export const SkipLink = ({ to, text }: { to: string; text: string }) => (
  <a
    class="skip"
    href={`#${to}`}
    onClick={(event) => {
      event.preventDefault();
      document.getElementById(to)?.focus();
    }}
  >
    {text}
  </a>
);
