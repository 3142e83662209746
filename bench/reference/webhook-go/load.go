package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// load reads lines "RATE CALLS URL CA BODYFILE" and answers each with a line of microseconds, one number per call in the order of their
// beginnings. The loop is open: calls begin at the rate whatever became of the earlier ones, and each is counted from the moment at which it
// was to begin, so a stall is measured on all calls that it delays. Connections are kept as an API server keeps them.
func load() {
	// The client's own collections would be part of every figure.
	debug.SetGCPercent(1600)
	// By default a thread sleeps 50 µs longer than it asks to.
	runtime.LockOSThread()
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_TIMERSLACK, 1, 0)
	clients := map[string]*http.Client{}
	lines := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		rate, _ := strconv.Atoi(words[0])
		calls, _ := strconv.Atoi(words[1])
		url, body := words[2], read(words[4])
		client := clients[url]
		if client == nil {
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(read(words[3]))
			client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 25, TLSClientConfig: &tls.Config{RootCAs: roots}}}
			clients[url] = client
		}
		times := make([]int64, calls)
		var running sync.WaitGroup
		start := time.Now()
		for i := range calls {
			due := start.Add(time.Duration(i) * time.Second / time.Duration(rate))
			sleepUntil(due)
			running.Add(1)
			go func() {
				defer running.Done()
				response, err := client.Post(url, "application/json", bytes.NewReader(body))
				if err != nil {
					log.Fatal(err)
				}
				answer, err := io.ReadAll(response.Body)
				response.Body.Close()
				if err != nil || response.StatusCode != http.StatusOK || !bytes.Contains(answer, []byte(`"patch"`)) {
					log.Fatalf("%s answered %d: %.200s", url, response.StatusCode, answer)
				}
				times[i] = time.Since(due).Microseconds()
			}()
		}
		running.Wait()
		for _, took := range times {
			fmt.Fprintf(out, "%d ", took)
		}
		fmt.Fprintln(out)
		out.Flush()
	}
}

// sleepUntil wakes to some ten microseconds, where time.Sleep of a busy process is up to a millisecond late, which would be part of every
// figure.
func sleepUntil(due time.Time) {
	for rest := time.Until(due); rest > 0; rest = time.Until(due) {
		nap := syscall.NsecToTimespec(rest.Nanoseconds())
		_ = syscall.Nanosleep(&nap, nil)
	}
}

func read(path string) []byte {
	content, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	return content
}
