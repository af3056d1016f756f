package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/cgroups/v3"
	"golang.org/x/sys/unix"
)

// podman runs containers in a store of its own. Each command has a mount namespace of its own, in which the folder that podman looks into for CDI specs
// has ours alone: podman 4 cannot be told of another.
type podman struct {
	t      *testing.T
	o      *oci
	cdiDir string
	dir    string
	user   []string // a command line before podman's
}

func newPodman(t *testing.T, o *oci, specFile string) *podman {
	t.Helper()
	p := &podman{t: t, o: o, cdiDir: filepath.Dir(specFile), dir: tempDir(t)}
	if err := os.Mkdir("/etc/cdi", 0o755); err == nil {
		t.Cleanup(func() { os.Remove("/etc/cdi") }) // if nobody put anything there in the meantime
	}
	return p
}

// config writes a containers.conf, with the limits of this machine and what more there is for the section of containers.
func (p *podman) config(containers string) string {
	p.t.Helper()
	file, err := os.CreateTemp(p.dir, "conf")
	if err != nil {
		p.t.Fatal(err)
	}
	defer file.Close()
	// No limits of its own: a machine for tests may not let anybody raise them.
	_, err = fmt.Fprintf(file, "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n%s\n[engine]\ncgroup_manager = \"cgroupfs\"\nruntime = %q\nevents_logger = \"none\"\n",
		containers, p.o.runtime)
	if err == nil {
		err = file.Chmod(0o644)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return file.Name()
}

const podmanScript = `mount --make-rprivate / && mount --bind "$1" /etc/cdi && shift && exec "$@"`

func (p *podman) run(config string, flags []string, cmd ...string) (string, error) {
	args := append([]string{"-m", "sh", "-c", podmanScript, "sh", p.cdiDir}, p.user...)
	args = append(args, "env", "CONTAINERS_CONF="+config, "podman", "--root", p.dir+"/store", "--runroot", p.dir+"/runroot", "--tmpdir", p.dir+"/tmp",
		"run", "--rm", "--name", uniqueName(), "--network", "none")
	args = append(append(args, flags...), "--rootfs", p.o.rootfs)
	return tryCommand("unshare", append(args, cmd...)...)
}

// podmanRuntime is what podman would take here.
func podmanRuntime() string {
	if cgroups.Mode() == cgroups.Unified {
		return "crun"
	}
	return "runc"
}

func TestPodman(t *testing.T) {
	needRoot(t)
	needCommand(t, "podman", "busybox", podmanRuntime())
	d := serve(t)
	file := generateCDI(t, d)
	runtimes := []string{podmanRuntime()}
	if cgroups.Mode() == cgroups.Unified {
		runtimes = append(runtimes, "runc")
	}
	limits := []string{"--memory", "256m", "--cpus", "1"}
	for _, runtime := range runtimes {
		p := newPodman(t, newOCI(t, runtime, d, false), file)
		plain := p.config("")
		for _, device := range []string{viewAll, viewFull} {
			for _, mapped := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, mapped %v", runtime, device, mapped), func(t *testing.T) {
					flags := append([]string{"--device", device}, limits...)
					if mapped {
						flags = append(flags, "--uidmap", fmt.Sprintf("0:%d:%d", lxcIDs, lxcIDCount))
					}
					out, err := p.run(plain, flags, "busybox", "sh", "-c", looks)
					if mapped && device == viewFull && runtime == "crun" {
						// crun changes to the bundle before it runs a hook, and Podman keeps that where a mapped root may not look.
						if err == nil || !strings.Contains(err.Error(), "error executing hook") {
							t.Errorf("docs/oci.md says that it does not start: %q, %v", out, err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					t.Logf("sees %q", strings.Fields(out))
					checkLooks(t, out, device, 256<<10)
				})
			}
		}
		if podmanVersion(t) >= 4.4 { // before, it takes no CDI devices from containers.conf
			t.Run(runtime+", by default", func(t *testing.T) {
				out, err := p.run(p.config(`devices = ["`+viewAll+`"]`), limits, "busybox", "sh", "-c", looks)
				if err != nil {
					t.Fatal(err)
				}
				checkLooks(t, out, viewAll, 256<<10)
			})
		}
		t.Run(runtime+", the processes of the host", func(t *testing.T) {
			out, err := p.run(plain, append([]string{"--device", viewAll, "--pid", "host"}, limits...), "busybox", "grep", "MemTotal", "/proc/meminfo")
			if err != nil || totalOf(t, out) != strconv.Itoa(256<<10) {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
}

// podmanVersion is 4.3 for 4.3.1.
func podmanVersion(t *testing.T) float64 {
	t.Helper()
	parts := strings.Split(strings.TrimSpace(command(t, "podman", "version", "--format", "{{.Client.Version}}")), ".")
	if len(parts) < 2 {
		t.Fatalf("podman's version: %q", parts)
	}
	v, err := strconv.ParseFloat(parts[0]+"."+parts[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A user's own containers, without root's help.
func TestPodmanRootless(t *testing.T) {
	needRoot(t)
	needCommand(t, "podman", "busybox", podmanRuntime(), "setpriv")
	d := serve(t)
	p := newPodman(t, newOCI(t, podmanRuntime(), d, false), generateCDI(t, d))
	const user = 65534 // nobody, who is everywhere
	home, run := filepath.Join(p.dir, "home"), filepath.Join(p.dir, "run")
	for _, dir := range []string{home, run} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{p.dir, home, run, p.o.rootfs, p.o.rootfs + "/etc", p.o.rootfs + "/tmp", p.o.rootfs + "/dev"} {
		if err := os.Chown(dir, user, user); err != nil {
			t.Fatal(err)
		}
	}
	p.user = []string{"setpriv", "--reuid", strconv.Itoa(user), "--regid", strconv.Itoa(user), "--clear-groups",
		"env", "-i", "-C", p.dir, "PATH=" + os.Getenv("PATH"), "USER=nobody", "HOME=" + home, "XDG_RUNTIME_DIR=" + run}
	t.Cleanup(func() { endPause(t, p.dir) })
	conf := p.config("")
	for _, device := range []string{viewAll, viewFull} {
		out, err := p.run(conf, []string{"--device", device}, "busybox", "sh", "-c", "busybox cut -d. -f1 /proc/uptime; busybox grep -c lxcfs /proc/mounts")
		if err != nil {
			t.Errorf("%s: %v", device, err)
			continue
		}
		got := strings.Fields(out)
		if len(got) != 2 {
			t.Fatalf("%s: it sees %q", device, got)
		}
		up, upErr := strconv.Atoi(got[0])
		if n, err := strconv.Atoi(got[1]); err != nil || n < 10 || upErr != nil || up > rounds(5, 60) {
			t.Errorf("%s: %s views, up for %s s", device, got[1], got[0])
		}
	}
}

// endPause ends the process that keeps a user's namespaces for his next container.
func endPause(t *testing.T, dir string) {
	t.Helper()
	pids, _ := exec.Command("pgrep", "-u", "65534", "-x", "podman|podman pause|catatonit").Output()
	for _, pid := range strings.Fields(string(pids)) {
		env, _ := os.ReadFile("/proc/" + pid + "/environ")
		if !strings.Contains(string(env), dir) {
			continue // another's
		}
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Kill(n, unix.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}
