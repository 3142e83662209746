// Names in certificates, each in one spelling: an IPv6 address has several, and what is read back is seldom the one asked for. Pure.

/** Name or address as certificates are compared by it: `::1` and `0:0:0:0:0:0:0:1` are one. */
export const canonicalName = (name: string): string => {
  if (!name.includes(':')) return name.toLowerCase();
  const url = `http://[${name}]`;
  return URL.canParse(url) ? new URL(url).hostname.slice(1, -1) : name.toLowerCase();
};

/** The first of these names that a certificate lacks; undefined: it has them all. */
export const missingName = (
  { sans }: { readonly sans: readonly string[] },
  names: readonly string[],
): string | undefined => names.find((name) => !sans.includes(canonicalName(name)));
