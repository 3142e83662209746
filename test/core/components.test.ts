import { describe, expect, it } from 'vitest';
import { COMPONENTS, isDeployed, namesOf, POD_COMPONENT, specOf } from '../../core/components.ts';
import { aPolicy } from '../builders/objects.ts';

describe('the table of components', () => {
  it('is in the order of deployment', () =>
    expect(COMPONENTS).toEqual([
      'toolkit',
      'driver',
      'device-plugin',
      'dra-driver',
      'dcgm-exporter',
      'feature-discovery',
    ]));
  it('finds every component in a GPUPolicy', () => {
    const policy = aPolicy({ components: { devicePlugin: { version: 'v9' }, driver: { mode: 'external' } } });
    expect(specOf(policy, 'device-plugin').version).toBe('v9');
    expect(isDeployed('driver', policy)).toBe(false);
    expect(new Set(COMPONENTS.map((component) => namesOf(component).policy)).size).toBe(COMPONENTS.length);
  });
  it('has gpu-gate deploy one of the two by which GPUs reach pods', () => {
    const deployed = (allocation: string) => {
      const policy = aPolicy({ allocation });
      return COMPONENTS.filter((component) => isDeployed(component, policy));
    };
    expect(deployed('DevicePlugin')).toEqual(['toolkit', 'driver', 'device-plugin', 'dcgm-exporter']);
    expect(deployed('DRA')).toEqual(['toolkit', 'driver', 'dra-driver', 'dcgm-exporter']);
  });
  it('names every component in pods alike', () => {
    for (const component of COMPONENTS) expect(POD_COMPONENT[component]).toBe(namesOf(component).pod);
  });
});
