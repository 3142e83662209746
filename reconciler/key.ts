// What a controller is called for. Pure: the queue tells keys apart by `idOf`, and every kind has
// one handler.

export type Kind =
  /** An opted-in node, or one that is being released; name of the Node. */
  | 'node'
  /** A GPU pod of a user; `namespace/name`. */
  | 'pod'
  /** A GPU pod that was just bound; `namespace/name`. */
  | 'bound'
  /** A node has opened: retry what waits for it; name of the Node. */
  | 'wake'
  /** Pods that wait may fit somewhere since a policy changed. */
  | 'wake-any'
  /** Report to pods that wait what they wait for. */
  | 'waiting'
  /** Every policy's status and finalizer. */
  | 'policies'
  /** The DeviceTaintRules of a node, which may be gone; name of the Node. */
  | 'device-taint'
  /** The operands' DaemonSets. */
  | 'operands';

export interface Key {
  readonly kind: Kind;
  /** Empty for the kinds that concern the whole cluster. */
  readonly name: string;
  /**
   * Keys of one object with different turns are handled apart, such as wakes after 1, 3 and 10 s.
   */
  readonly turn?: number;
}

export const idOf = ({ kind, name, turn = 0 }: Key): string => `${kind}/${turn}/${name}`;

/** A handler for each kind; a kind without one does not compile. */
export type Handlers = Readonly<Record<Kind, (name: string) => Promise<void>>>;

/** How a controller asks for another turn. */
export interface Turns {
  add(key: Key): void;
  addAfter(key: Key, ms: number): void;
}
