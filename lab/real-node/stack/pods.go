package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
)

// check is what CUDA finds first: the driver's library, then a device that opens. The first line is CUDA's own; the last one,
// which reaches the node's condition, is the stand-in's and says what exactly is missing.
func check() error {
	library := "/" + libDir + "/libcuda.so.1"
	if !exists(library) {
		reason := "no driver root: the nvidia runtime found no " + library + " to add"
		if !slices.Contains(os.Environ(), started) {
			reason = "not started by the nvidia runtime: another one is behind the handler"
		}
		return fmt.Errorf("Failed to allocate device vector A (error code CUDA driver version is insufficient for CUDA runtime version)!\n%s", reason)
	}
	devices, _ := filepath.Glob("/dev/nvidia[0-9]*")
	if len(devices) == 0 {
		return fmt.Errorf("Failed to allocate device vector A (error code no CUDA-capable device is detected)!\nno device was given: there is no /dev/nvidia*")
	}
	for _, device := range devices {
		file, err := os.OpenFile(device, os.O_RDWR, 0)
		if err != nil {
			return fmt.Errorf("Failed to allocate device vector A (error code operation not permitted)!\n%w", err)
		}
		file.Close()
	}
	return nil
}

// vectorAdd adds two vectors as NVIDIA's sample does, on the CPU, after it found what CUDA would have needed.
func vectorAdd([]string) error {
	const n = 50000
	fmt.Printf("[Vector addition of %d elements]\n", n)
	if err := check(); err != nil {
		return err
	}
	fmt.Println("Copy input data from the host memory to the CUDA device")
	a, b := make([]float32, n), make([]float32, n)
	for i := range n {
		a[i], b[i] = float32(i)/n, 1-float32(i)/n
	}
	for i := range n {
		if sum := a[i] + b[i]; sum < 0.99999 || sum > 1.00001 {
			return fmt.Errorf("Result verification failed at element %d!", i)
		}
	}
	fmt.Println("Copy output data from the CUDA device to the host memory")
	fmt.Println("Test PASSED")
	fmt.Println("Done")
	return nil
}

// gpuApp is a user's program: it needs CUDA as vectorAdd does, then serves what it found.
func gpuApp([]string) error {
	if err := check(); err != nil {
		return err
	}
	devices, _ := filepath.Glob("/dev/nvidia[0-9]*")
	found := map[string]any{
		"devices":         devices,
		"visible":         os.Getenv("NVIDIA_VISIBLE_DEVICES"),
		"ldLibraryPath":   os.Getenv("LD_LIBRARY_PATH"),
		"driverVolume":    readLine("/usr/local/nvidia/version"),
		"runtimeInjected": readLine("/" + libDir + "/libcuda.so.1"),
	}
	if len(os.Args) > 1 && os.Args[1] == "--once" {
		return json.NewEncoder(os.Stdout).Encode(found)
	}
	go func() {
		untilStopped()
		os.Exit(0)
	}()
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(found) })
	return http.ListenAndServe(":8080", nil)
}

func dcgmExporter([]string) error {
	if !exists("/" + libDir + "/libnvidia-ml.so.1") {
		return fmt.Errorf("dcgm-exporter: no libnvidia-ml.so.1")
	}
	http.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "OK") })
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "# TYPE DCGM_FI_DEV_GPU_TEMP gauge\nDCGM_FI_DEV_GPU_TEMP{gpu=\"0\"} 40")
	})
	go func() {
		untilStopped()
		os.Exit(0)
	}()
	return http.ListenAndServe(os.Getenv("DCGM_EXPORTER_LISTEN"), nil)
}

func pause([]string) error {
	untilStopped()
	return nil
}
