package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	pluginSocket = "nvidia-gpu.sock"
	// NVIDIA's plugin starts anew when the kubelet does, NVML included; meanwhile the kubelet offers no GPU.
	newStart = 4 * time.Second
)

type plugin struct {
	api.UnimplementedDevicePluginServer
	root string
	ids  []string
}

// devicePlugin registers nvidia.com/gpu with the kubelet, again whenever the kubelet made its socket anew.
func devicePlugin([]string) error {
	if got := os.Getenv("DEVICE_LIST_STRATEGY"); got != "envvar" {
		return fmt.Errorf("device plugin: DEVICE_LIST_STRATEGY is %q: there are no CDI specs, the toolkit ran before the driver", got)
	}
	root := os.Getenv("CONTAINER_DRIVER_ROOT")
	p := &plugin{root: root}
	for _, name := range gpusIn(root) {
		p.ids = append(p.ids, uuidOf(name))
	}
	if len(p.ids) == 0 || !exists(filepath.Join(root, libDir, "libnvidia-ml.so.1")) {
		return fmt.Errorf("device plugin: failed to initialize NVML: no libnvidia-ml.so.1 or no device under %s", root)
	}
	go func() {
		untilStopped()
		_ = os.Remove(filepath.Join(api.DevicePluginPath, pluginSocket))
		os.Exit(0)
	}()
	for {
		kubelet, err := inode(api.KubeletSocket)
		if err != nil {
			time.Sleep(200 * time.Millisecond)
			continue
		}
		if err := p.serve(kubelet); err != nil {
			fmt.Fprintln(os.Stderr, err)
			time.Sleep(500 * time.Millisecond)
		}
	}
}

func inode(path string) (uint64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	return info.Sys().(*syscall.Stat_t).Ino ^ uint64(info.ModTime().UnixNano()), nil
}

// serve registers and answers until the kubelet's socket is another one.
func (p *plugin) serve(kubelet uint64) error {
	path := filepath.Join(api.DevicePluginPath, pluginSocket)
	_ = os.Remove(path)
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, p)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()
	conn, err := grpc.NewClient("unix://"+api.KubeletSocket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := api.NewRegistrationClient(conn).Register(ctx, &api.RegisterRequest{
		Version: api.Version, Endpoint: pluginSocket, ResourceName: "nvidia.com/gpu", Options: &api.DevicePluginOptions{},
	}); err != nil {
		return fmt.Errorf("device plugin: registration: %w", err)
	}
	fmt.Printf("registered %d nvidia.com/gpu\n", len(p.ids))
	for {
		time.Sleep(200 * time.Millisecond)
		if now, err := inode(api.KubeletSocket); err != nil || now != kubelet {
			fmt.Println("the kubelet's socket is another one")
			time.Sleep(newStart)
			return nil
		}
		// The kubelet empties its folder when it starts.
		if !exists(path) {
			return nil
		}
	}
}

func (p *plugin) devices() []*api.Device {
	devices := make([]*api.Device, 0, len(p.ids))
	for _, id := range p.ids {
		health := api.Healthy
		if !exists(filepath.Join(p.root, "dev", strings.TrimPrefix(id, "GPU-"))) {
			health = api.Unhealthy
		}
		devices = append(devices, &api.Device{ID: id, Health: health})
	}
	return devices
}

func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

func (p *plugin) ListAndWatch(_ *api.Empty, stream grpc.ServerStreamingServer[api.ListAndWatchResponse]) error {
	var sent []string
	for {
		devices := p.devices()
		var now []string
		for _, device := range devices {
			now = append(now, device.ID+device.Health)
		}
		if !reflect.DeepEqual(now, sent) {
			if err := stream.Send(&api.ListAndWatchResponse{Devices: devices}); err != nil {
				return err
			}
			sent = now
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		answer := &api.ContainerAllocateResponse{}
		if !fault("no-device") {
			answer.Envs = map[string]string{"NVIDIA_VISIBLE_DEVICES": strings.Join(container.DevicesIds, ",")}
			if os.Getenv("PASS_DEVICE_SPECS") == "true" {
				for _, id := range container.DevicesIds {
					device := "dev/" + strings.TrimPrefix(id, "GPU-")
					answer.Devices = append(answer.Devices, &api.DeviceSpec{
						HostPath: filepath.Join(os.Getenv("NVIDIA_DRIVER_ROOT"), device), ContainerPath: "/" + device, Permissions: "rw",
					})
				}
			}
		} else {
			// What a broken plugin does: the container starts with the driver and sees no GPU.
			answer.Envs = map[string]string{"NVIDIA_VISIBLE_DEVICES": "GPU-none"}
		}
		response.ContainerResponses = append(response.ContainerResponses, answer)
	}
	return response, nil
}

func (p *plugin) GetPreferredAllocation(context.Context, *api.PreferredAllocationRequest) (*api.PreferredAllocationResponse, error) {
	return &api.PreferredAllocationResponse{}, nil
}

func (p *plugin) PreStartContainer(context.Context, *api.PreStartContainerRequest) (*api.PreStartContainerResponse, error) {
	return &api.PreStartContainerResponse{}, nil
}
