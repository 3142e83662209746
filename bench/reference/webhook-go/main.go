// What a Go author would ship: net/http, the typed Pod of k8s.io/api, one fixed patch. The reference of `npm run bench -- webhook`, and
// with the word `load` its client.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	admission "k8s.io/api/admission/v1"
	core "k8s.io/api/core/v1"
)

var patch = []byte(`[{"op":"add","path":"/spec/runtimeClassName","value":"nvidia"},` +
	`{"op":"add","path":"/spec/readinessGates","value":[{"conditionType":"gpu-gate.dev/node-validated"}]}]`)

func mutate(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 7<<20))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	var review admission.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil || review.Request == nil {
		http.Error(w, "the body is not an AdmissionReview", http.StatusBadRequest)
		return
	}
	var pod core.Pod
	if err := json.Unmarshal(review.Request.Object.Raw, &pod); err != nil {
		http.Error(w, "the object is not a Pod", http.StatusBadRequest)
		return
	}
	response := &admission.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	if asksForGPU(&pod) {
		kind := admission.PatchTypeJSONPatch
		response.Patch, response.PatchType = patch, &kind
	}
	review.Request, review.Response = nil, response
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(review); err != nil {
		log.Print(err)
	}
}

func asksForGPU(pod *core.Pod) bool {
	for _, container := range pod.Spec.Containers {
		if quantity, ok := container.Resources.Limits["nvidia.com/gpu"]; ok && !quantity.IsZero() {
			return true
		}
	}
	return false
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "load" {
		load()
		return
	}
	address := flag.String("address", "127.0.0.1:8443", "where to listen")
	cert := flag.String("cert", "tls.crt", "certificate")
	key := flag.String("key", "tls.key", "private key")
	flag.Parse()
	http.HandleFunc("/mutate", mutate)
	http.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.ServeTLS(listener, nil, *cert, *key))
}
