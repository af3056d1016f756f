package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

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
