// Finds the certificates in a PEM bundle, in one pass over it.
const BEGIN = '-----BEGIN CERTIFICATE-----';
const END = '-----END CERTIFICATE-----';

/** Each certificate from its BEGIN to its END; text around them is left out. */
export const certificatesIn = (bundle: string): readonly string[] =>
  bundle
    .split(END)
    .slice(0, -1)
    .flatMap((text) => {
      const at = text.lastIndexOf(BEGIN);
      return at < 0 ? [] : [`${text.slice(at)}${END}`];
    });
