// Writes Secrets of the form that cert-manager writes, with EC keys: an ECDSA P-256 CA, and below it a serving certificate for
// each name. Usage: ec-secrets NAMESPACE SECRET=DNSNAME... ; prints two Lists of Secrets, a line of JSON each: the first ones, and
// those of a renewal by the same CA.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"strings"
	"time"
)

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	fail(err)
	return n
}

func certificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func main() {
	now := time.Now()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	fail(err)
	ca := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "gpu-gate CA"},
		NotBefore: now, NotAfter: now.Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	fail(err)
	for range 2 {
		list(now, ca, caDER, caKey)
	}
}

func list(now time.Time, ca *x509.Certificate, caDER []byte, caKey *ecdsa.PrivateKey) {
	var items []any
	for _, wanted := range os.Args[2:] {
		name, dns, _ := strings.Cut(wanted, "=")
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		fail(err)
		// cert-manager sets no common name where dnsNames are given.
		leaf := &x509.Certificate{
			SerialNumber: serial(), NotBefore: now, NotAfter: now.Add(12 * time.Hour), BasicConstraintsValid: true,
			KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			DNSNames:    []string{dns}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
		fail(err)
		// PKCS#1 encoding, cert-manager's default: "EC PRIVATE KEY".
		keyDER, err := x509.MarshalECPrivateKey(key)
		fail(err)
		items = append(items, map[string]any{
			"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
			"metadata": map[string]any{
				"name": name, "namespace": os.Args[1],
				"labels": map[string]string{"controller.cert-manager.io/fao": "true"},
				"annotations": map[string]string{
					"cert-manager.io/alt-names": dns, "cert-manager.io/certificate-name": name,
					"cert-manager.io/issuer-kind": "Issuer", "cert-manager.io/issuer-name": "gpu-gate-ca",
				},
			},
			"data": map[string][]byte{
				"tls.crt": certificate(der), "ca.crt": certificate(caDER),
				"tls.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}),
			},
		})
	}
	fail(json.NewEncoder(os.Stdout).Encode(map[string]any{"apiVersion": "v1", "kind": "List", "items": items}))
}
