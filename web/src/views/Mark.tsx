/** The room's own sign: its three lanes. */
export const Mark = () => (
  <span class="mark" aria-hidden="true">
    <i />
    <i />
    <i />
  </span>
);
