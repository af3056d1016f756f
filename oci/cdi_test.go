package oci

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

var someFiles = []string{"proc/meminfo", "proc/pressure/cpu", "sys/devices/system/cpu/online"}

// The CDI's own library, which runtimes use, takes the spec and puts into a container's configuration what was meant.
func TestSpec(t *testing.T) {
	text, err := Spec("/run/lensfs", "/usr/bin/lensfs", someFiles)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "lensfs.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	spec, err := cdi.ReadSpec(file, 0)
	if err != nil {
		t.Fatal(err)
	}
	if spec.Version > "0.5.0" {
		t.Errorf("version %s: Podman 4 knows versions up to 0.5.0", spec.Version)
	}

	all, full := specs.Spec{Mounts: []specs.Mount{{Destination: "/proc/meminfo", Source: "/dev/null"}, {Destination: "/proc", Type: "proc"}}}, specs.Spec{}
	for name, s := range map[string]*specs.Spec{DeviceAll: &all, DeviceFull: &full} {
		dev := spec.GetDevice(name)
		if dev == nil {
			t.Fatalf("no device %s in %s", name, text)
		}
		if err := dev.ApplyEdits(s); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, m := range all.Mounts[1:] {
		got = append(got, m.Source+" "+m.Destination+" "+strings.Join(m.Options, ","))
	}
	want := []string{
		"/run/lensfs/self/proc/meminfo /proc/meminfo bind,ro,nosuid,nodev",
		"/run/lensfs/self/sys/devices/system/cpu/online /sys/devices/system/cpu/online bind,ro,nosuid,nodev",
	}
	if all.Mounts[0].Destination != "/proc" || !slices.Equal(got, want) || all.Hooks != nil {
		t.Errorf("all comes to %+v", all)
	}
	if h := full.Hooks; len(full.Mounts) != 0 || h == nil || len(h.CreateContainer) != 1 || h.CreateContainer[0].Path != "/usr/bin/lensfs" ||
		!slices.Equal(h.CreateContainer[0].Args, []string{"lensfs", "hook", "oci", "--views", "/run/lensfs"}) {
		t.Errorf("full comes to %+v", full)
	}
}

func TestSpecWantsAbsolutePaths(t *testing.T) {
	if _, err := Spec("run/lensfs", "/usr/bin/lensfs", someFiles); err == nil {
		t.Error("a relative directory of views is taken")
	}
	if _, err := Spec("/run/lensfs", "lensfs", someFiles); err == nil {
		t.Error("a relative program is taken")
	}
}
