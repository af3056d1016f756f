package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
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

// hook starts "lensfs hook oci" as a runtime would, in this mount namespace, and gives what it said. It may not fail, whatever it is given.
func hook(t *testing.T, d *daemon, state string, flags ...string) string {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"hook", "oci", "--views", d.views}, flags...)...)
	cmd.Stdin = strings.NewReader(state)
	o := finish(t, cmd)
	if o.status != 0 {
		t.Errorf("the hook failed with %d: %q", o.status, o.errs)
	}
	return o.errs
}

func bundleOf(t *testing.T, spec any) (state string) {
	t.Helper()
	dir := tempDir(t)
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"ociVersion":"1.0.2","id":"x","status":"creating","pid":1,"bundle":%q}`, dir)
}

func TestOCIHookNeverFails(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for _, bad := range []struct{ name, state, says string }{
		{"nothing", "", "EOF"},
		{"no JSON", "}", "invalid character"},
		{"no bundle", "{}", "an OCI runtime starts this command"},
		{"a bundle that is not there", `{"bundle":"/nonexistent"}`, "no such file"},
		{"a bundle without a root", bundleOf(t, specs.Spec{}), "names no root"},
		{"a root that is not there", bundleOf(t, specs.Spec{Root: &specs.Root{Path: "/nonexistent"}}), "no such file"},
	} {
		if said := hook(t, d, bad.state); !strings.Contains(said, bad.says) {
			t.Errorf("%s: it says %q", bad.name, said)
		}
	}
	for _, flags := range [][]string{{"--of-a-later-version"}, {"--of-a-later-version=1", "more"}, {"--views"}} {
		if said := hook(t, d, "{}", flags...); said == "" {
			t.Errorf("%v: it says nothing", flags)
		}
	}

	// Links that an image has where the kernel's files would be are followed nowhere, and nothing is bound over files of its own.
	root := tempDir(t)
	victim := filepath.Join(root, "victim")
	for _, dir := range []string{"proc", "sys/devices/system", "elsewhere/cpu"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, to := range map[string]string{"proc/meminfo": "/proc/meminfo", "proc/cpuinfo": "../victim", "proc/stat": victim, "sys/devices/system/cpu": "../../../elsewhere/cpu"} {
		if err := os.Symlink(to, filepath.Join(root, path)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"victim", "proc/uptime", "elsewhere/cpu/online"} {
		if err := os.WriteFile(filepath.Join(root, path), []byte("its own"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	said := hook(t, d, bundleOf(t, specs.Spec{Root: &specs.Root{Path: root}}))
	below, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
	if err != nil || len(below) != 0 {
		t.Errorf("it mounted something: %+v, %v", below, err)
	}
	for _, m := range []string{"/proc/meminfo", "/proc/cpuinfo", "/proc/stat"} { // where the links lead
		if on := mountedOn(t, m); on != "" {
			t.Errorf("on %s there is %s", m, on)
		}
	}
	for _, path := range []string{"/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/sys/devices/system/cpu"} {
		if !strings.Contains(said, path+" stays the host's: too many levels of symbolic links") {
			t.Errorf("of %s it says nothing: %q", path, said)
		}
	}
	if !strings.Contains(said, "/proc/uptime stays the host's: it is no file of the kernel's") {
		t.Errorf("of a file of the image's own it says nothing: %q", said)
	}
}

// A daemon that is there and does not answer keeps a container waiting for some seconds, not for ever, and leaves no process behind.
func TestOCIHookDoesNotWaitForADeadLock(t *testing.T) {
	needRoot(t)
	needCommand(t, "busybox", "runc")
	d := serve(t)
	file := generateCDI(t, d)
	o := newOCI(t, "runc", d, false)
	pids := []int{d.cmd.Process.Pid, d.worker()}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer unix.Kill(pid, unix.SIGCONT)
	}
	begin := time.Now()
	out, err := o.runDevice(file, viewFull, 256<<10, "busybox", "sh", "-c", "busybox grep -c lxcfs /proc/mounts || true")
	if err != nil || strings.TrimSpace(out) != "0" {
		t.Errorf("%q, %v", out, err)
	}
	if took := time.Since(begin); took < 5*time.Second {
		t.Errorf("it took %v: did the daemon answer?", took)
	}
}
