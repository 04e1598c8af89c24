// What a reader of the page can mend: said in the page, in plain words.

/** An error whose message names the file or feature, what is wrong with it and what to do. */
export class PlayerError extends Error {}

export const COPY_AGAIN = "Copy the whole folder again, or export the clip again.";
