/** The page's own pictures, drawn in the colour of the text beside them. */
const PATHS = {
  agent:
    "M12 2l2.1 6.2L20 10l-5.900 1.800L12 18l-2.100-6.200L4 10l5.900-1.800zM19 15l.9 2.600L22.500 18.500l-2.600.900L19 22l-.9-2.600-2.600-.9 2.600-.9z",
  program: "M8 6l-5 6 5 6M16 6l5 6-5 6",
  close: "M6 6l12 12M18 6L6 18",
  menu: "M4 7h16M4 12h16M4 17h16",
  send: "M12 20V5M5 12l7-7 7 7",
  stop: "M7 7h10v10H7z",
  plus: "M12 5v14M5 12h14",
  down: "M12 5v14M5 12l7 7 7-7",
  up: "M12 19V5M5 12l7-7 7 7",
  reply: "M9 14L4 9l5-5M4 9h10a6 6 0 016 6v4",
  check: "M5 13l4 4L19 7",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  clock: "M12 7v5l3 2M12 21a9 9 0 110-18 9 9 0 010 18z",
  warning:
    "M12 9v4M12 16.500v.5M10.300 4.300L2.500 18a2 2 0 001.700 3h15.600a2 2 0 001.700-3L13.700 4.300a2 2 0 00-3.400 0z",
  settings: "M4 7h10M18 7h2M4 17h2M10 17h10M16 5v4M8 15v4",
  people:
    "M16 20v-1.500A4.500 4.500 0 0011.500 14h-5A4.500 4.500 0 002 18.500V20M9 10.500a3.500 3.500 0 100-7 3.500 3.500 0 000 7zM22 20v-1.500a4.500 4.500 0 00-3.500-4.300M15.500 3.700a3.500 3.500 0 010 6.600",
  search: "M11 18a7 7 0 110-14 7 7 0 010 14zM20 20l-4-4",
  lanes: "M4 4h4v16H4zM10 4h4v16h-4zM16 4h4v16h-4z",
  stream: "M4 6h16M4 12h16M4 18h10",
  play: "M8 5l11 7-11 7z",
  pause: "M8 5v14M16 5v14",
  lock: "M6 11h12v9H6zM9 11V8a3 3 0 016 0v3",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class={`icon-${name}`} viewBox="0 0 24 24" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
