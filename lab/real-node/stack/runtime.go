package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// started is in the environment of every container that containerRuntime starts: it tells "no driver" from "not started by it".
const started = "STACK_RUNTIME=nvidia"

// containerRuntime is the OCI runtime behind the handler `nvidia`: on `create` it adds the driver's files and the devices that
// NVIDIA_VISIBLE_DEVICES names to the bundle, then becomes runc. With no driver on the host it silently becomes runc, as NVIDIA's does.
func containerRuntime(args []string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	root := readLine(filepath.Join(filepath.Dir(self), "driver-root"))
	if slices.Contains(args, "create") {
		if err := prepare(bundleOf(args), root); err != nil {
			return fmt.Errorf("nvidia-container-runtime: %w", err)
		}
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	return syscall.Exec(runc, append([]string{"runc"}, args...), os.Environ())
}

func bundleOf(args []string) string {
	for i, arg := range args {
		if (arg == "--bundle" || arg == "-b") && i+1 < len(args) {
			return args[i+1]
		}
		if value, found := strings.CutPrefix(arg, "--bundle="); found {
			return value
		}
	}
	return "."
}

type object = map[string]any

func prepare(bundle, root string) error {
	path := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var spec object
	if err := json.Unmarshal(data, &spec); err != nil {
		return err
	}
	process, _ := spec["process"].(object)
	if process == nil {
		return fmt.Errorf("%s has no process", path)
	}
	env, _ := process["env"].([]any)
	process["env"] = append(env, started)
	visible := variable(spec, "NVIDIA_VISIBLE_DEVICES")
	if visible != "" && visible != "void" && visible != "none" && exists(filepath.Join(root, libDir, "libcuda.so.1")) {
		if err := addDriver(spec, root, visible); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	data, err = json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// addDriver adds the driver's files, and the devices that are to be visible.
func addDriver(spec object, root, visible string) error {
	mounts, _ := spec["mounts"].([]any)
	for _, file := range []string{libDir + "/libcuda.so.1", libDir + "/libnvidia-ml.so.1", "usr/bin/nvidia-smi"} {
		mounts = append(mounts, object{"type": "bind", "source": filepath.Join(root, file), "destination": "/" + file, "options": []any{"bind", "ro", "nosuid", "nodev"}})
	}
	spec["mounts"] = mounts
	linux, _ := spec["linux"].(object)
	if linux == nil {
		return fmt.Errorf("no linux section")
	}
	devices, _ := linux["devices"].([]any)
	resources, _ := linux["resources"].(object)
	if resources == nil {
		resources = object{}
	}
	rules, _ := resources["devices"].([]any)
	for _, name := range gpusIn(root) {
		if visible != "all" && !slices.Contains(strings.Split(visible, ","), uuidOf(name)) {
			continue
		}
		device := "/dev/" + name
		if slices.ContainsFunc(devices, func(d any) bool { return d.(object)["path"] == device }) {
			continue
		}
		major, minor := int64(1), int64(3)
		devices = append(devices, object{"path": device, "type": "c", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0})
		rules = append(rules, object{"allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm"})
	}
	linux["devices"], resources["devices"], linux["resources"] = devices, rules, resources
	return nil
}

func variable(spec object, name string) string {
	process, _ := spec["process"].(object)
	env, _ := process["env"].([]any)
	value := ""
	for _, entry := range env {
		if text, ok := entry.(string); ok {
			if found, is := strings.CutPrefix(text, name+"="); is {
				value = found
			}
		}
	}
	return value
}

// gpusIn lists the device files of a driver root: nvidia0, nvidia1, …
func gpusIn(root string) []string {
	paths, _ := filepath.Glob(filepath.Join(root, "dev", "nvidia[0-9]*"))
	names := make([]string, 0, len(paths))
	for _, path := range paths {
		names = append(names, filepath.Base(path))
	}
	return names
}

func uuidOf(device string) string { return "GPU-" + device }
