package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// toolkit writes its PID file first of all, as the stock toolkit does: the file says that it runs, not that its change is in
// effect. Then it installs the OCI runtime on the host, adds the handler to containerd's configuration by a drop-in file, makes the
// running containerd read it as the stock toolkit does (SIGHUP to the process behind the socket), and takes it back at its end.
func toolkit([]string) error {
	root := os.Getenv("ROOT")
	dropIn := os.Getenv("RUNTIME_DROP_IN_CONFIG")
	socket := os.Getenv("RUNTIME_SOCKET")
	pidFile := os.Getenv("TOOLKIT_PID_FILE")
	handler := os.Getenv("CONTAINERD_RUNTIME_CLASS")
	for name, value := range map[string]string{"ROOT": root, "RUNTIME_DROP_IN_CONFIG": dropIn, "RUNTIME_SOCKET": socket, "TOOLKIT_PID_FILE": pidFile, "CONTAINERD_RUNTIME_CLASS": handler} {
		if value == "" {
			return fmt.Errorf("toolkit: %s is not set", name)
		}
	}
	if err := os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	binary := filepath.Join(root, "toolkit", "nvidia-container-runtime")
	if err := install(binary); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "toolkit", "driver-root"), []byte(os.Getenv("NVIDIA_DRIVER_ROOT")), 0o644); err != nil {
		return err
	}
	config := fmt.Sprintf(`version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.%s]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.%s.options]
BinaryName = %q
SystemdCgroup = false
`, handler, handler, binary)
	if fault("no-handler") {
		config = "version = 3\n"
	}
	if fault("wrong-handler") {
		// The name is there, and plain runc behind it.
		config = strings.Replace(config, strconv.Quote(binary), `"runc"`, 1)
	}
	if err := os.WriteFile(dropIn, []byte(config), 0o644); err != nil {
		return err
	}
	if err := restart(socket); err != nil {
		return err
	}
	fmt.Printf("handler %s is in effect\n", handler)
	untilStopped()
	_ = os.Remove(pidFile)
	if err := os.Remove(dropIn); err != nil {
		return err
	}
	// Its files under ROOT stay, as the stock toolkit's do: a container may still be running by them.
	return restart(socket)
}

func install(target string) error {
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	// Renamed over: the one in place may be running.
	file, err := os.OpenFile(target+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, self); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(target+".new", target)
}

// restart signals the process behind the socket and waits until another one answers there.
func restart(socket string) error {
	before, err := peer(socket)
	if err != nil {
		return fmt.Errorf("toolkit: %s: %w", socket, err)
	}
	if err := syscall.Kill(before, syscall.SIGHUP); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if now, err := peer(socket); err == nil && now != before {
			return nil
		}
	}
	return fmt.Errorf("toolkit: nobody answers at %s 30 s after SIGHUP to %d", socket, before)
}

func peer(socket string) (int, error) {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if failed != nil {
		return 0, failed
	}
	return int(cred.Pid), nil
}

// readLine is the first line of a file, empty where there is none.
func readLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return string(line)
}
