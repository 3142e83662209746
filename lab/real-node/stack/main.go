// Stack plays NVIDIA's parts on a machine without a GPU, through the real interfaces: the container runtime's configuration and
// its restart, an OCI runtime, the host's driver root, the kubelet's device plugin socket. One static program; its name, or the
// image's entrypoint, says which part it is.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

const (
	driverVersion = "595.91.07"
	libDir        = "usr/lib/x86_64-linux-gnu"
)

var parts = map[string]func(args []string) error{
	"nvidia-toolkit":           toolkit,
	"nvidia-container-runtime": containerRuntime,
	"driver-manager":           driverManager,
	"nvidia-driver":            driver,
	"nvidia-smi":               smi,
	"nvidia-device-plugin":     devicePlugin,
	"dcgm-exporter":            dcgmExporter,
	"vectorAdd":                vectorAdd,
	"gpu-app":                  gpuApp,
	"pause":                    pause,
}

func main() {
	name := filepath.Base(os.Args[0])
	part, known := parts[name]
	if !known {
		fmt.Fprintf(os.Stderr, "stack: %q is none of NVIDIA's parts\n", name)
		os.Exit(2)
	}
	if err := part(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// fault says whether the GPUPolicy asked this part to fail so, by the variable STACK_FAULT.
func fault(name string) bool { return os.Getenv("STACK_FAULT") == name }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
