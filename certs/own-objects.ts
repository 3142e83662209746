// Tells the leader that one of its objects was changed, by whomever: what was broken is mended at once and not at the next check.
import { WEBHOOK_CONFIGURATION } from '../core/keys.ts';
import type { Kube } from '../platform/kube.ts';
import type { Log } from '../platform/log.ts';
import { reflector, type Reflector } from '../platform/reflector.ts';
import {
  CA_SECRET,
  CANARY_SECRET,
  EXTENDER_CA_CONFIG_MAP,
  EXTENDER_SECRET,
  SCHEDULER_SECRET,
  WEBHOOK_SECRET,
} from './store.ts';

/** Watches of the objects that certificates live in, not started yet; of each is kept that it changed, and nothing of what is in it. */
export function ownObjects(options: {
  readonly kube: Kube;
  readonly log: Log;
  readonly namespace: string;
  readonly onChange: () => void;
}): Readonly<Record<string, Reflector<string>>> {
  const { kube, log, namespace, onChange } = options;
  const watch = (collection: string, name: string): Reflector<string> =>
    reflector({
      kube,
      log,
      path: collection,
      query: { fieldSelector: `metadata.name=${name}` },
      trim: ({ metadata }: { metadata: { resourceVersion?: string } }) => metadata.resourceVersion ?? '',
      onChange,
    });
  const core = `/api/v1/namespaces/${namespace}`;
  const secrets = [CA_SECRET, WEBHOOK_SECRET, CANARY_SECRET, EXTENDER_SECRET, SCHEDULER_SECRET];
  return {
    ...Object.fromEntries(secrets.map((name) => [`secrets/${name}`, watch(`${core}/secrets`, name)])),
    [`configmaps/${EXTENDER_CA_CONFIG_MAP}`]: watch(`${core}/configmaps`, EXTENDER_CA_CONFIG_MAP),
    mutatingwebhookconfigurations: watch(
      '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations',
      WEBHOOK_CONFIGURATION,
    ),
  };
}
