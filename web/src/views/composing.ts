/** Whether Enter is for the input method, which takes what was chosen with it. Safari ends the composition before the
 * key is told of, whose code is then 229 (https://w3c.github.io/uievents/#determine-keydown-keyup-keyCode). */
export const isComposing = (event: KeyboardEvent): boolean => event.isComposing || event.keyCode === 229;
