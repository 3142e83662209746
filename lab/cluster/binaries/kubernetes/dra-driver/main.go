// Plays NVIDIA's DRA driver on a real node without a GPU, through the real interfaces: it registers with the kubelet, publishes
// ResourceSlices, prepares claims by CDI specs that containerd reads, and reports the health of its devices. It is here and not
// beside NVIDIA's other parts because all that it imports is compiled for Kubernetes' own programs anyway.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	resource "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/dynamic-resource-allocation/kubeletplugin"
	"k8s.io/dynamic-resource-allocation/resourceslice"
)

const (
	driverName = "gpu.nvidia.com"
	cdiKind    = "k8s.gpu.nvidia.com/claim"
	libDir     = "usr/lib/x86_64-linux-gnu"
	// Where this container sees the driver root.
	seenRoot = "/driver-root"
	// The kubelet takes a device's health for unknown if it hears nothing for 30 s.
	repeatHealth = 10 * time.Second
)

type driver struct {
	node string
	// The driver root on the host.
	root string
	cdi  string
	// Names of device files by names of devices: gpu-0 is nvidia0.
	files map[string]string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	d := &driver{node: os.Getenv("NODE_NAME"), root: os.Getenv("NVIDIA_DRIVER_ROOT"), cdi: os.Getenv("CDI_ROOT"), files: map[string]string{}}
	plugins, registry := os.Getenv("KUBELET_PLUGINS_DIRECTORY_PATH"), os.Getenv("KUBELET_REGISTRAR_DIRECTORY_PATH")
	for name, value := range map[string]string{"NODE_NAME": d.node, "NVIDIA_DRIVER_ROOT": d.root, "CDI_ROOT": d.cdi, "KUBELET_PLUGINS_DIRECTORY_PATH": plugins, "KUBELET_REGISTRAR_DIRECTORY_PATH": registry} {
		if value == "" {
			return fmt.Errorf("DRA driver: %s is not set", name)
		}
	}
	paths, _ := filepath.Glob(filepath.Join(seenRoot, "dev", "nvidia[0-9]*"))
	for _, path := range paths {
		file := filepath.Base(path)
		d.files["gpu-"+strings.TrimPrefix(file, "nvidia")] = file
	}
	if len(d.files) == 0 || !exists(filepath.Join(seenRoot, libDir, "libnvidia-ml.so.1")) {
		return fmt.Errorf("DRA driver: failed to initialize NVML: no libnvidia-ml.so.1 or no device under %s", seenRoot)
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	data := filepath.Join(plugins, driverName)
	for _, dir := range []string{data, d.cdi} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	helper, err := kubeletplugin.Start(ctx, d,
		kubeletplugin.KubeClient(client), kubeletplugin.NodeName(d.node), kubeletplugin.DriverName(driverName),
		kubeletplugin.RegistrarDirectoryPath(registry), kubeletplugin.PluginDataDirectoryPath(data))
	if err != nil {
		return err
	}
	defer helper.Stop()
	if err := helper.PublishResources(ctx, d.resources()); err != nil {
		return err
	}
	fmt.Printf("published %d devices of %s\n", len(d.files), driverName)
	return serveHealth(ctx)
}

// serveHealth answers the probes of the pod until the end.
func serveHealth(ctx context.Context) error {
	listener, err := net.Listen("tcp", ":"+os.Getenv("HEALTHCHECK_PORT"))
	if err != nil {
		return err
	}
	server, answer := grpc.NewServer(), health.NewServer()
	answer.SetServingStatus("liveness", grpc_health_v1.HealthCheckResponse_SERVING)
	grpc_health_v1.RegisterHealthServer(server, answer)
	go func() {
		<-ctx.Done()
		server.Stop()
	}()
	return server.Serve(listener)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (d *driver) resources() resourceslice.DriverResources {
	kind := "gpu"
	var devices []resource.Device
	for _, name := range slices.Sorted(maps.Keys(d.files)) {
		uuid := "GPU-" + d.files[name]
		devices = append(devices, resource.Device{Name: name, Attributes: map[resource.QualifiedName]resource.DeviceAttribute{
			"type": {StringValue: &kind}, "uuid": {StringValue: &uuid},
		}})
	}
	return resourceslice.DriverResources{Pools: map[string]resourceslice.Pool{d.node: {Slices: []resourceslice.Slice{{Devices: devices}}}}}
}

func (d *driver) specOf(claim types.UID) string {
	return filepath.Join(d.cdi, "k8s.gpu.nvidia.com-claim_"+string(claim)+".json")
}

type object = map[string]any

// PrepareResourceClaims writes one CDI spec for each claim: the driver's files, and the device nodes of its devices.
func (d *driver) PrepareResourceClaims(_ context.Context, claims []*resource.ResourceClaim) (map[types.UID]kubeletplugin.PrepareResult, error) {
	results := map[types.UID]kubeletplugin.PrepareResult{}
	for _, claim := range claims {
		results[claim.UID] = d.prepare(claim)
	}
	return results, nil
}

func (d *driver) prepare(claim *resource.ResourceClaim) kubeletplugin.PrepareResult {
	var devices []kubeletplugin.Device
	var specs []object
	for _, result := range claim.Status.Allocation.Devices.Results {
		if result.Driver != driverName {
			continue
		}
		file, known := d.files[result.Device]
		if !known {
			return kubeletplugin.PrepareResult{Err: fmt.Errorf("there is no device %s", result.Device)}
		}
		name := string(claim.UID) + "-" + result.Device
		specs = append(specs, object{"name": name, "containerEdits": object{"deviceNodes": []object{{
			"path": "/dev/" + file, "hostPath": filepath.Join(d.root, "dev", file), "permissions": "rw",
		}}}})
		devices = append(devices, kubeletplugin.Device{
			Requests: []string{result.Request}, PoolName: result.Pool, DeviceName: result.Device, CDIDeviceIDs: []string{cdiKind + "=" + name},
		})
	}
	var mounts []object
	for _, file := range []string{libDir + "/libcuda.so.1", libDir + "/libnvidia-ml.so.1", "usr/bin/nvidia-smi"} {
		mounts = append(mounts, object{"hostPath": filepath.Join(d.root, file), "containerPath": "/" + file, "options": []string{"bind", "ro", "nosuid", "nodev"}})
	}
	spec, err := json.Marshal(object{"cdiVersion": "0.6.0", "kind": cdiKind, "devices": specs, "containerEdits": object{"env": []string{"NVIDIA_VISIBLE_DEVICES=void"}, "mounts": mounts}})
	if err != nil {
		return kubeletplugin.PrepareResult{Err: err}
	}
	path := d.specOf(claim.UID)
	// Renamed over, so that the runtime never reads half of it. It reads no file with another ending.
	if err := os.WriteFile(path+".new", spec, 0o644); err != nil {
		return kubeletplugin.PrepareResult{Err: err}
	}
	if err := os.Rename(path+".new", path); err != nil {
		return kubeletplugin.PrepareResult{Err: err}
	}
	return kubeletplugin.PrepareResult{Devices: devices}
}

func (d *driver) UnprepareResourceClaims(_ context.Context, claims []kubeletplugin.NamespacedObject) (map[types.UID]error, error) {
	results := map[types.UID]error{}
	for _, claim := range claims {
		err := os.Remove(d.specOf(claim.UID))
		if errors.Is(err, os.ErrNotExist) {
			err = nil
		}
		results[claim.UID] = err
	}
	return results, nil
}

func (d *driver) HandleError(_ context.Context, err error, message string) {
	fmt.Fprintf(os.Stderr, "%s: %v\n", message, err)
	if !errors.Is(err, kubeletplugin.ErrRecoverable) {
		os.Exit(1)
	}
}

// WatchHealthStatus calls a device unhealthy whose file is gone from the driver root.
func (d *driver) WatchHealthStatus(ctx context.Context, reports chan<- kubeletplugin.DeviceHealthReport) error {
	var sent []kubeletplugin.HealthStatus
	var at time.Time
	for {
		var report kubeletplugin.DeviceHealthReport
		var now []kubeletplugin.HealthStatus
		for _, name := range slices.Sorted(maps.Keys(d.files)) {
			one := kubeletplugin.DeviceHealth{PoolName: d.node, DeviceName: name, Health: kubeletplugin.HealthStatusHealthy, LastUpdated: time.Now()}
			if !exists(filepath.Join(seenRoot, "dev", d.files[name])) {
				one.Health, one.Message = kubeletplugin.HealthStatusUnhealthy, "GPU is lost"
			}
			report.Devices = append(report.Devices, one)
			now = append(now, one.Health)
		}
		if !slices.Equal(now, sent) || time.Since(at) > repeatHealth {
			select {
			case <-ctx.Done():
				return nil
			case reports <- report:
			}
			sent, at = now, time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}
