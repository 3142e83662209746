// Stands in for undici in the kubectl plugin. The client library imports it at load, and it does
// not load on Node.js 20; the plugin takes credentials from the library and sends every call by
// node:https.
const unused = (): never => {
  throw new Error('the kubectl plugin sends no call through undici');
};

export { unused as Agent, unused as ProxyAgent, unused as fetch };
