package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3"
	"github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

// The devices that "lensfs cdi generate" describes.
const (
	viewAll  = "lensfs.dev/view=all"
	viewFull = "lensfs.dev/view=full"
)

// generateCDI has lensfs write its CDI spec for the views of a daemon, and gives its path.
func generateCDI(t *testing.T, d *daemon) string {
	t.Helper()
	dir, err := os.MkdirTemp(tempDir(t), "cdi")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "lensfs.json")
	command(t, binary, "cdi", "generate", "--views", d.views, "--program", binary, "--output", file)
	return file
}

func TestCDIGenerate(t *testing.T) {
	needRoot(t)
	d := serve(t)
	file := generateCDI(t, d)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := command(t, binary, "cdi", "generate", "--views", d.views, "--program", binary); got != string(text) {
		t.Errorf("the file has %s, standard output %s", text, got)
	}
	if left := namesIn(t, filepath.Dir(file)); !slices.Equal(left, []string{"lensfs.json"}) {
		t.Errorf("beside the spec there is %v", left)
	}
	spec, err := cdi.ReadSpec(file, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range spec.GetDevice("all").ContainerEdits.Mounts {
		if _, err := os.Stat(m.ContainerPath); err != nil { // a runtime would make it, and cannot in /proc
			t.Errorf("this kernel: %v", err)
		}
		if out := command(t, "head", "-c", "1", m.HostPath); len(out) != 1 {
			t.Errorf("%s: %q", m.HostPath, out)
		}
	}
	if out, err := tryCommand(binary, "cdi", "generate", "--views", "run/lensfs"); err == nil || !strings.Contains(err.Error(), "not an absolute path") {
		t.Errorf("relative views: %q, %v", out, err)
	}
	unread := filepath.Join(tempDir(t), "lensfs")
	if out, err := tryCommand(binary, "cdi", "generate", "--views", d.views, "--output", unread); err == nil || !strings.Contains(err.Error(), "end in .json") {
		t.Errorf("a name that no runtime reads: %q, %v", out, err)
	}
	if _, err := os.Stat(unread); err == nil {
		t.Errorf("%s was written", unread)
	}
}

// ociRuntimes are those that run on this host: crun refuses hybrid ones.
func ociRuntimes(t *testing.T) []string {
	t.Helper()
	runtimes := []string{"runc"}
	if cgroups.Mode() == cgroups.Unified {
		runtimes = append(runtimes, "crun")
	}
	needCommand(t, runtimes...)
	return runtimes
}

// withDevice is the configuration of a container that is given a device, made by the CDI's own library.
func (o *oci) withDevice(spec, device, name string, kb int, cmd ...string) (*specs.Spec, error) {
	s := o.spec(name, kb, cmd)
	s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "bind" })
	cache, err := cdi.NewCache(cdi.WithSpecDirs(filepath.Dir(spec)), cdi.WithAutoRefresh(false))
	if err != nil {
		return nil, err
	}
	if missing, err := cache.InjectDevices(s, device); err != nil {
		return nil, fmt.Errorf("%v: %w", missing, err)
	}
	// From its version 1.1.1 on the library asks for mounts with mapped ids where there is a user namespace, which this FUSE file system has not: crun
	// refuses that, runc 1.1 does not know it. Podman 5 and containerd 1.7 have older ones.
	for i := range s.Mounts {
		s.Mounts[i].Options = slices.DeleteFunc(s.Mounts[i].Options, func(o string) bool { return o == "idmap" })
	}
	return s, nil
}

func (o *oci) runDevice(spec, device string, kb int, cmd ...string) (string, error) {
	name := uniqueName()
	s, err := o.withDevice(spec, device, name, kb, cmd...)
	if err != nil {
		return "", err
	}
	out, err := o.runSpec(name, s)
	if err != nil && cgroups.Mode() == cgroups.Unified {
		os.Remove("/sys/fs/cgroup/" + name) // crun leaves it when it cannot start a container
	}
	return out, err
}

// looks has a container tell what it sees, and where its /proc/meminfo comes from.
const looks = `busybox grep MemTotal /proc/meminfo; busybox cat /sys/devices/system/cpu/online; busybox cut -d. -f1 /proc/uptime; busybox ls /sys/devices/system/cpu/cpu0 | busybox grep -c online
busybox grep ' /proc/meminfo ' /proc/self/mountinfo | busybox cut -d' ' -f4; busybox grep ' /proc/pressure/cpu ' /proc/self/mountinfo | busybox cut -d' ' -f4; busybox grep -c ' fuse.lxcfs ' /proc/mounts`

// A container that has one of the devices sees its own machine from its first command on: by the mounts of "all", by the hook of "full".
func TestCDIDevices(t *testing.T) {
	needRoot(t)
	needCommand(t, "busybox")
	d := serve(t)
	file := generateCDI(t, d)
	for _, runtime := range ociRuntimes(t) {
		for _, userNS := range []bool{false, true} {
			for _, device := range []string{viewAll, viewFull} {
				t.Run(fmt.Sprintf("%s, user namespace %v, %s", runtime, userNS, device), func(t *testing.T) {
					o := newOCI(t, runtime, d, userNS)
					inParallel(t, rounds(10, 2), func(n int) {
						kb := 100<<10 + 4*n
						out, err := o.runDevice(file, device, kb, "busybox", "cat", "/proc/meminfo")
						checkFirst(t, n, kb, out, err)
					})
					out, err := o.runDevice(file, device, 256<<10, "busybox", "sh", "-c", looks)
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("sees %q", strings.Fields(out))
					checkLooks(t, out, device, 256<<10)
				})
			}
		}
	}
}

// checkLooks judges what looks printed in a container with a quota of one CPU.
func checkLooks(t *testing.T, out, device string, kb int) {
	t.Helper()
	got := strings.Fields(out)
	if len(got) < 8 || got[1] != strconv.Itoa(kb) || got[3] != strconv.Itoa(hostCPUs(t)[0]) {
		t.Fatalf("it sees %q", got)
	}
	if up, err := strconv.Atoi(got[4]); err != nil || up > rounds(5, 60) {
		t.Errorf("it has been up for %s", got[4])
	}
	if !strings.HasSuffix(got[6], "/proc/meminfo") {
		t.Errorf("its /proc/meminfo comes from %q", got[6])
	}
	pressure := slices.ContainsFunc(got[7:], func(s string) bool { return strings.HasSuffix(s, "/proc/pressure/cpu") })
	if want := device == viewFull && cgroups.Mode() == cgroups.Unified; pressure != want {
		t.Errorf("does it have a view of /proc/pressure/cpu? %v: %q", pressure, got)
	}
}

// Without a daemon a container with the hook starts and sees the host; one with the mounts cannot.
func TestCDIWithoutDaemon(t *testing.T) {
	needRoot(t)
	needCommand(t, "busybox")
	d := serve(t)
	file := generateCDI(t, d)
	check := func(t *testing.T) {
		for _, runtime := range ociRuntimes(t) {
			for _, userNS := range []bool{false, true} {
				o := newOCI(t, runtime, d, userNS)
				out, err := o.runDevice(file, viewFull, 256<<10, "busybox", "sh", "-c", "busybox grep MemTotal /proc/meminfo; busybox grep -c lxcfs /proc/mounts || true")
				if err != nil {
					t.Errorf("%s, user namespace %v: it does not start: %v", runtime, userNS, err)
					continue
				}
				if got := strings.Fields(out); len(got) != 4 || got[1] == strconv.Itoa(256<<10) || got[3] != "0" {
					t.Errorf("%s, user namespace %v: nobody serves, but it sees %q", runtime, userNS, got)
				}
				if _, err := o.runDevice(file, viewAll, 256<<10, "busybox", "true"); err == nil {
					t.Errorf("%s, user namespace %v: nobody serves, but a container with mounts of views starts", runtime, userNS)
				}
			}
		}
	}
	d.kill()
	t.Run("killed", check)
	if out, err := tryCommand("umount", "-l", d.views); err != nil {
		t.Fatal(out, err)
	}
	t.Run("nothing mounted", check)
}
