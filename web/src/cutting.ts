/** Where a text may be cut: not in what is seen as one character, such as a letter with its accents, a family or a flag. */

const segmenter = new Intl.Segmenter();
/** UTF-16 units of the longest that is kept whole: a letter may have as many accents as a text has room for. */
const LONGEST = 64;

/** The place, or the one before it where the text may be cut. */
export function whole(text: string, place: number): number {
  if (place >= text.length) return text.length;
  const begin = segmenter.segment(text.slice(0, place + LONGEST)).containing(place)?.index ?? place;
  if (place - begin <= LONGEST) return begin;
  return /[\udc00-\udfff]/.test(text.charAt(place)) ? place - 1 : place;
}

export const cut = (text: string, most: number): string =>
  text.length > most ? `${text.slice(0, whole(text, most))}…` : text;

export const firstOf = (text: string): string | undefined => segmenter.segment(text).containing(0)?.segment;
