// The reference that the extender is measured against: the smallest Go program that does the same work with the standard parts,
// net/http, encoding/json and Kubernetes' own wire types, a map lookup per node. Not part of the product.
//
//	extender-go serve NODES REFUSED_EVERY CERT KEY [CLIENT_CA [PREFIX]]   serves /filter and /prioritize, prints its port
//	extender-go load       reads "CALLS URL CA BODYFILE CERT KEY" lines, plays one scheduler on one connection
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	extender "k8s.io/kube-scheduler/extender/v1"
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("write: serve or load")
	}
	switch os.Args[1] {
	case "serve":
		serve(os.Args[2:])
	case "load":
		load()
	default:
		log.Fatalf("unknown command %q", os.Args[1])
	}
}

func serve(args []string) {
	nodes, _ := strconv.Atoi(args[0])
	every, _ := strconv.Atoi(args[1])
	prefix := "node-"
	config := &tls.Config{NextProtos: []string{"http/1.1"}}
	if len(args) > 4 && args[4] != "" {
		config.ClientCAs = x509.NewCertPool()
		config.ClientCAs.AppendCertsFromPEM(read(args[4]))
		config.ClientAuth = tls.RequireAndVerifyClientCert
	}
	if len(args) > 5 {
		prefix = args[5]
	}
	known := make(map[string]string, nodes)
	for i := range nodes {
		reason := ""
		if every > 0 && i%every == 0 {
			reason = "node rebooted since validation"
		}
		known[prefix+strconv.Itoa(i)] = reason
	}
	decode := func(w http.ResponseWriter, r *http.Request) (extender.ExtenderArgs, bool) {
		var call extender.ExtenderArgs
		if err := json.NewDecoder(r.Body).Decode(&call); err != nil || call.NodeNames == nil {
			http.Error(w, "bad request", http.StatusBadRequest)
			return call, false
		}
		return call, true
	}
	answer := func(w http.ResponseWriter, value any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(value); err != nil {
			log.Print(err)
		}
	}
	http.HandleFunc("POST /filter", func(w http.ResponseWriter, r *http.Request) {
		call, ok := decode(w, r)
		if !ok {
			return
		}
		passed := make([]string, 0, len(*call.NodeNames))
		refused := extender.FailedNodesMap{}
		for _, name := range *call.NodeNames {
			if reason, found := known[name]; !found {
				refused[name] = "GPU state not known yet"
			} else if reason != "" {
				refused[name] = reason
			} else {
				passed = append(passed, name)
			}
		}
		answer(w, extender.ExtenderFilterResult{NodeNames: &passed, FailedAndUnresolvableNodes: refused})
	})
	http.HandleFunc("POST /prioritize", func(w http.ResponseWriter, r *http.Request) {
		call, ok := decode(w, r)
		if !ok {
			return
		}
		scores := make(extender.HostPriorityList, 0, len(*call.NodeNames))
		for _, name := range *call.NodeNames {
			scores = append(scores, extender.HostPriority{Host: name, Score: 1})
		}
		answer(w, scores)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	server := http.Server{TLSConfig: config}
	log.Fatal(server.ServeTLS(listener, args[2], args[3]))
}

// load reads lines "CALLS URL CA BODYFILE CERT KEY" and answers each with a line of microseconds, one number per call. Every URL has one
// connection that is kept, as the scheduler keeps it.
func load() {
	// The client's own collections would be part of every figure.
	debug.SetGCPercent(1600)
	clients := map[string]*http.Client{}
	var answer bytes.Buffer
	lines := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		calls, _ := strconv.Atoi(words[0])
		url, body := words[1], read(words[3])
		client := clients[url]
		if client == nil {
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(read(words[2]))
			pair, err := tls.LoadX509KeyPair(words[4], words[5])
			if err != nil {
				log.Fatal(err)
			}
			config := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
			client = &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1, TLSClientConfig: config}}
			clients[url] = client
		}
		for range calls {
			began := time.Now()
			response, err := client.Post(url, "application/json", bytes.NewReader(body))
			if err != nil {
				log.Fatal(err)
			}
			answer.Reset()
			_, err = answer.ReadFrom(response.Body)
			response.Body.Close()
			if err != nil || response.StatusCode != http.StatusOK || answer.Len() == 0 {
				log.Fatalf("%s answered %d: %.200s", url, response.StatusCode, answer.Bytes())
			}
			fmt.Fprintf(out, "%d ", time.Since(began).Microseconds())
		}
		fmt.Fprintln(out)
		out.Flush()
	}
}

func read(path string) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	return content
}
