// Package oci is what OCI runtimes are told: which files to bind into a container, as a CDI spec, and the hook that binds them itself.
// It deals in paths; what is in the files it neither knows nor reads.
package oci

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	cdi "tags.cncf.io/container-device-interface/specs-go"
)

// Kind is what the devices are called: podman run --device lensfs.dev/view=all. The CDI wants VENDOR/CLASS and a domain for the vendor, which no
// other vendor's spec can have, and with which no path to a device can be confused.
const Kind = "lensfs.dev/view"

// The devices.
const (
	DeviceAll  = "all"  // what every runtime binds
	DeviceFull = "full" // all files there are, by a hook
)

// Options are those of each bind. A container with a user namespace of its own may not have less than the mount that is bound has: runc refuses a
// bind with "ro" alone there.
func Options() []string { return []string{"bind", "ro", "nosuid", "nodev"} }

// Bind is a file and where a container has it.
type Bind struct{ Source, Target string }

// runcAllows are the files in /proc over which runc lets anything be mounted (checkProcMount in libcontainer/rootfs_linux.go; these since 1.0.0-rc93).
// For any other the container does not start. /sys is free, and crun has no such list.
var runcAllows = map[string]bool{
	"proc/cpuinfo": true, "proc/diskstats": true, "proc/meminfo": true, "proc/stat": true, "proc/swaps": true, "proc/uptime": true,
	"proc/loadavg": true, "proc/slabinfo": true,
}

// Binds gives those of the files, as fs.Paths has them, that every runtime binds; views is the directory of the own views.
//
// The link in it leads every caller to his own. runc and crun follow it inside of the new container, so that it gets its own view. Should a runtime
// follow it outside, it comes to the shared tree, where a container sees the same.
func Binds(views string, files []string) []Bind {
	var binds []Bind
	for _, f := range files {
		if !strings.HasPrefix(f, "proc/") || runcAllows[f] {
			binds = append(binds, Bind{filepath.Join(views, "self", f), "/" + f})
		}
	}
	return binds
}

// Spec makes the CDI spec of this host. Program is where the runtime finds lensfs, for the hook.
func Spec(views, program string, files []string) ([]byte, error) {
	for _, path := range []string{views, program} {
		if !filepath.IsAbs(path) {
			return nil, fmt.Errorf("%q: not an absolute path", path)
		}
	}
	all := cdi.Device{Name: DeviceAll}
	for _, b := range Binds(views, files) {
		all.ContainerEdits.Mounts = append(all.ContainerEdits.Mounts, &cdi.Mount{HostPath: b.Source, ContainerPath: b.Target, Options: Options()})
	}
	full := cdi.Device{Name: DeviceFull}
	full.ContainerEdits.Hooks = []*cdi.Hook{{HookName: "createContainer", Path: program, Args: HookArgs(views)}}
	spec := &cdi.Spec{Kind: Kind, Devices: []cdi.Device{all, full}}
	var err error
	if spec.Version, err = cdi.MinimumRequiredVersion(spec); err != nil { // the lower, the older a runtime may be
		return nil, err
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetIndent("", "  ")
	if err := enc.Encode(spec); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

// HookArgs is the command line of the hook, its own name first.
func HookArgs(views string) []string { return []string{"lensfs", "hook", "oci", "--views", views} }

// WriteSpec writes a spec to a file that is never there by half: runtimes read it whenever a container starts.
func WriteSpec(path string, text []byte) error {
	if ext := filepath.Ext(path); ext != ".json" && ext != ".yaml" { // JSON is YAML too
		return fmt.Errorf("%q: runtimes read only files that end in .json or .yaml", path)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, ".lensfs-") // no name that runtimes look at
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Chmod(0o644), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, errors.Join(err, os.Remove(file.Name())))
	}
	return nil
}
