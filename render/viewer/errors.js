// Errors that the user can fix, shown in the page in plain words.

/** An error whose message names the file or feature, what is wrong with it and what to do. */
export class PlayerError extends Error {}

export const COPY_AGAIN = "Copy the whole folder again, or export the clip again.";
