/** A kind of object that the caller may not read, or that could not be read. */
export interface Unread {
  readonly what: string;
  readonly because: string;
}
