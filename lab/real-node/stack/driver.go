package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	mountedRoot = "/run/nvidia/driver"
	validations = "/run/nvidia/validations"
	module      = "/sys/module/nvidia"
)

func untilStopped() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}

// driverManager unmounts what an earlier driver container left and takes its sentinels away.
func driverManager(args []string) error {
	if len(args) != 1 || args[0] != "uninstall_driver" {
		return fmt.Errorf("driver-manager: want uninstall_driver, got %q", args)
	}
	if os.Getenv("ENABLE_GPU_POD_EVICTION") != "false" || os.Getenv("ENABLE_AUTO_DRAIN") != "false" {
		return fmt.Errorf("driver-manager: would evict pods on its own")
	}
	unmountRoot()
	return nil
}

func unmountRoot() {
	for syscall.Unmount(mountedRoot, syscall.MNT_DETACH) == nil {
	}
	_ = os.Remove(filepath.Join(validations, "driver-ready"))
	_ = os.Remove(filepath.Join(validations, ".driver-ctr-ready"))
}

// driver "compiles" for STACK_COMPILE_SECONDS, "loads" the module (a file under a /sys/module of this container's own: a kernel
// module is what this machine cannot have) and publishes its root on the host by a bind mount, as the stock image does.
func driver(args []string) error {
	if len(args) != 1 || args[0] != "init" {
		return fmt.Errorf("nvidia-driver: want init, got %q", args)
	}
	seconds, _ := strconv.Atoi(os.Getenv("STACK_COMPILE_SECONDS"))
	gpus, err := strconv.Atoi(os.Getenv("STACK_GPUS"))
	if err != nil {
		gpus = 1
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	fmt.Printf("compiling for %d s\n", seconds)
	select {
	case <-time.After(time.Duration(seconds) * time.Second):
	case <-stop:
		return nil
	}
	if fault("crash") {
		return fmt.Errorf("modprobe: FATAL: Module nvidia not found in directory /lib/modules")
	}
	if err := syscall.Mount("tmpfs", filepath.Dir(module), "tmpfs", 0, "size=64k"); err != nil {
		return fmt.Errorf("module: %w", err)
	}
	if err := os.MkdirAll(module, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(module, "refcnt"), []byte("1\n"), 0o444); err != nil {
		return err
	}
	if err := layOut("/driver", gpus); err != nil {
		return err
	}
	if !fault("no-root") {
		if err := os.MkdirAll(mountedRoot, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("/driver", mountedRoot, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("driver root: %w", err)
		}
	}
	if err := os.MkdirAll(validations, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(validations, ".driver-ctr-ready"), []byte("GPU_DIRECT_RDMA_ENABLED=false\n"), 0o644); err != nil {
		return err
	}
	fmt.Printf("driver %s is loaded, root at %s\n", driverVersion, mountedRoot)
	<-stop
	unmountRoot()
	return nil
}

// layOut makes the driver root's files: libraries, nvidia-smi, the version, one device file per GPU.
func layOut(root string, gpus int) error {
	for _, dir := range []string{libDir, "usr/bin", "dev", "lib/firmware"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{libDir + "/libcuda.so.1": driverVersion + "\n", libDir + "/libnvidia-ml.so.1": driverVersion + "\n", "version": driverVersion + "\n"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := install(filepath.Join(root, "usr/bin/nvidia-smi")); err != nil {
		return err
	}
	for i := range gpus {
		path := filepath.Join(root, "dev", fmt.Sprintf("nvidia%d", i))
		_ = os.Remove(path)
		// The null device: something that opens, and that the device cgroup rules over.
		if err := syscall.Mknod(path, syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o666); err != nil {
			return err
		}
	}
	return nil
}

func smi([]string) error {
	library := "/" + libDir + "/libnvidia-ml.so.1"
	if !exists(library) {
		library = filepath.Join("/driver", libDir, "libnvidia-ml.so.1")
	}
	if !exists(library) {
		return fmt.Errorf("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system")
	}
	fmt.Printf("NVIDIA-SMI %s (a stand-in: no GPU is here)\n", readLine(library))
	return nil
}
