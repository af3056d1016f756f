package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// What runc refuses to mount is given to its containers afterwards: everything.
func TestAttachOCI(t *testing.T) {
	needRoot(t)
	needCommand(t, "runc", "busybox")
	d := serve(t)
	for _, name := range []string{"runc", "crun"} {
		if _, err := exec.LookPath(name); err != nil || name == "crun" && cgroups.Mode() != cgroups.Unified { // crun refuses hybrid hosts
			continue
		}
		for _, userNS := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, user namespace %v", name, userNS), func(t *testing.T) {
				o := newOCI(t, name, d, userNS)
				id, pid := o.plain(200 << 10)
				if out := d.attached(pid); !strings.Contains(out, "put over the kernel's files") || strings.Contains(out, ";") {
					t.Errorf("it says %q", out)
				}
				d.servesAll(pid)
				inside := func(cmd ...string) string {
					return command(t, name, append([]string{"--root", filepath.Join(o.dir, "state"), "exec", id}, cmd...)...)
				}
				if got := totalOf(t, inside("cat", "/proc/meminfo")); got != strconv.Itoa(200<<10) {
					t.Errorf("it sees %s kB of memory", got)
				}
				if got := strings.TrimSpace(inside("cat", "/sys/devices/system/cpu/online")); got != strconv.Itoa(hostCPUs(t)[0]) {
					t.Errorf("with a quota of one CPU it sees the CPUs %s", got)
				}
				if out := d.attached(pid); !strings.Contains(out, "has them already") {
					t.Errorf("the second time it says %q", out)
				}
			})
		}
	}
	d.onHostOnce()
}

// plain starts a container without views, and gives its name and its first process.
func (o *oci) plain(kb int) (id string, pid int) {
	o.t.Helper()
	id = uniqueName()
	bundle := filepath.Join(o.dir, id)
	if err := os.Mkdir(bundle, 0o755); err != nil {
		o.t.Fatal(err)
	}
	s := o.spec(id, kb, []string{"busybox", "sleep", "600"})
	var kernels []specs.Mount
	for _, m := range s.Mounts {
		if m.Type != "bind" {
			kernels = append(kernels, m)
		}
	}
	s.Mounts = kernels
	// As Docker and Podman have them.
	s.Linux.MaskedPaths = []string{"/proc/kcore", "/proc/timer_list", "/sys/firmware"}
	s.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	config, err := json.Marshal(s)
	if err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), config, 0o644); err != nil {
		o.t.Fatal(err)
	}
	state := filepath.Join(o.dir, "state")
	o.t.Cleanup(func() { command(o.t, o.runtime, "--root", state, "delete", "--force", id) })
	log := newLogFile(o.t)
	run := exec.Command(o.runtime, "--root", state, "run", "--detach", "--bundle", bundle, id) // the container keeps its output: no pipe
	run.Stderr = log.file
	if err := run.Run(); err != nil {
		o.t.Fatalf("%v: %s", err, log)
	}
	var is struct{ Pid int }
	if err := json.Unmarshal([]byte(command(o.t, o.runtime, "--root", state, "state", id)), &is); err != nil {
		o.t.Fatal(err)
	}
	return id, is.Pid
}
