package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func init() { roles["readEach"] = readEach }

const cpuDir = "/sys/devices/system/cpu"

// entries lists a directory of CPUs whole, in its own order: name, type, mode, links, size, owner, and where a link leads. What root alone may read is
// left out, and so are the two files that are a container's own.
const entries = `cd %s && find . -type l -printf '%%P l %%l\n' -o -perm -o=r ! -path ./online ! -path ./offline -printf '%%P %%y %%m %%n %%s %%u:%%g\n'`

// bothMounts are the flags with which "lensfs run" binds the own view, and the shared tree.
func (d *daemon) bothMounts() map[string][]string {
	return map[string][]string{"own view": nil, "shared tree": {"--tree", d.tree}}
}

// The directory is the host's, entry by entry, with each one's mode, size, owner, target and place in the listing.
func TestCPUDirIsTheHosts(t *testing.T) {
	needRoot(t)
	d := serve(t)
	want := command(t, "sh", "-c", fmt.Sprintf(entries, cpuDir))
	order := command(t, "ls", "-U", cpuDir)
	if strings.Count(want, "\n") < 20 {
		t.Fatalf("the host has %s", want)
	}
	for name, flags := range d.bothMounts() {
		flags = append(flags, "--cpuset", list(hostCPUs(t)[:1]))
		if got := d.run(flags, "sh", "-c", fmt.Sprintf(entries, cpuDir)); got != want {
			t.Errorf("%s: %s\nthe host's:\n%s", name, got, want)
		}
		if got := d.run(flags, "ls", "-U", cpuDir); got != order {
			t.Errorf("%s: in the order %q, the host's is %q", name, got, order)
		}
		if got := d.run(flags, "sh", "-c", "cd "+cpuDir+" && stat -c '%A %U %h' online offline"); got != strings.Repeat("-r--r--r-- root 1\n", 2) {
			t.Errorf("%s: online and offline are %q", name, got)
		}
	}
	if got := command(t, "sh", "-c", fmt.Sprintf(entries, d.tree+cpuDir)); got != want {
		t.Errorf("the shared tree: %s\nthe host's:\n%s", got, want)
	}
}

// readEach reads every file of a directory that everybody may read, as a user, and prints what it is told by each: the text, or what went wrong.
func readEach(args []string) error {
	dir := args[0]
	uid, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(uid), syscall.Setuid(uid)); err != nil {
		return err
	}
	said := map[string]string{}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == "online" || e.Name() == "offline" {
			return err
		}
		if info, err := e.Info(); err != nil || info.Mode()&4 == 0 {
			return err
		}
		text, err := os.ReadFile(path)
		var errno syscall.Errno
		if errors.As(err, &errno) {
			text = []byte(readFailed + errno.Error())
		}
		said[strings.TrimPrefix(path, dir)] = string(text)
		return nil
	})
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(said)
	}
	return err
}

const readFailed = "failed: "

// Every file can be read by the container's root and by anybody there, to the same text or the same error as the host's.
func TestCPUDirReads(t *testing.T) {
	needRoot(t)
	d := serve(t)
	host := func() map[string]string {
		all := asRole("readEach", cpuDir, "0")
		return decode[map[string]string](t, command(t, all[0], all[1:]...))
	}
	before := host()
	for name, flags := range d.bothMounts() {
		for _, user := range []string{"0", "65534"} {
			got := decode[map[string]string](t, d.run(flags, asRole("readEach", cpuDir, user)...))
			after := host()
			if len(got) != len(before) || len(got) < 20 {
				t.Fatalf("%s, %v: %d files, the host has %d", name, user, len(got), len(before))
			}
			for file, text := range got {
				was, known := before[file]
				steady := was == after[file] // counters go on, and are to be read too
				if !known || steady && text != was || !steady && strings.HasPrefix(text, readFailed) {
					t.Errorf("%s, %v: %s: %q, the host's is %q", name, user, file, text, was)
				}
			}
			before = after
		}
	}
}

// What tools make of it: one CPU, of a machine that has the host's.
func TestCPUDirTools(t *testing.T) {
	needRoot(t)
	needCommand(t, "lscpu", "getconf", "nproc")
	d := serve(t)
	host := hostCPUs(t)
	shown, rest := host[:1], host[1:]
	for name, flags := range d.bothMounts() {
		out := d.run(append(flags, "--cpuset", list(shown)), "sh", "-c", `getconf _NPROCESSORS_ONLN; getconf _NPROCESSORS_CONF; nproc; nproc --all; LC_ALL=C lscpu`)
		lines := strings.SplitN(out, "\n", 5)
		all := strings.TrimSpace(command(t, "getconf", "_NPROCESSORS_CONF"))
		if want := []string{"1", all, "1", strings.TrimSpace(command(t, "nproc", "--all"))}; !slices.Equal(lines[:4], want) {
			t.Errorf("%s: getconf and nproc say %q, want %q", name, lines[:4], want)
		}
		says := map[string]string{}
		for line := range strings.Lines(lines[4]) {
			key, value, _ := strings.Cut(line, ":")
			says[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
		want := map[string]string{"CPU(s)": all, "On-line CPU(s) list": list(shown)}
		if len(rest) > 0 {
			want["Off-line CPU(s) list"] = ranges(t, rest)
		}
		for key, value := range want {
			if says[key] != value {
				t.Errorf("%s: lscpu says %s %q, not %q:\n%s", name, key, says[key], value, lines[4])
			}
		}
		if says["Model name"] == "" {
			t.Errorf("%s: lscpu knows no model:\n%s", name, lines[4])
		}
	}
}

// ranges is a set of CPUs as the kernel writes it.
func ranges(t *testing.T, cpus []int) string {
	t.Helper()
	return strings.TrimSpace(command(t, "python3", "-c", `
import sys
cpus, out = list(map(int, sys.argv[1].split(','))), []
for n in cpus:
    if out and out[-1][1] == n - 1: out[-1][1] = n
    else: out.append([n, n])
print(','.join(str(a) if a == b else '%d-%d' % (a, b) for a, b in out))`, list(cpus)))
}

// Nothing can be written, made or removed, also where the host's mode says so.
func TestCPUDirIsReadOnly(t *testing.T) {
	needRoot(t)
	d := serve(t)
	for name, flags := range d.bothMounts() {
		for _, cmd := range []string{"echo add >uevent", "echo 0 >cpu0/uevent", "echo 1 >online", "true >new", "mkdir new", "rm uevent", "rmdir power", "ln -s x new", "chmod 600 uevent", "mv uevent new"} {
			out := d.run(flags, "sh", "-c", "cd "+cpuDir+" && ! { "+cmd+"; } 2>&1")
			if !strings.Contains(out, "Read-only file system") && !strings.Contains(out, "Permission denied") && !strings.Contains(out, "busy") {
				t.Errorf("%s: %s: %q", name, cmd, out)
			}
		}
	}
	d.alive()
}

// LXC's hooks, Debian's and ours, bind the whole directory, and the container's own online and offline are in it.
func TestCPUDirInLXC(t *testing.T) {
	lockLXC(t)
	d := serveAt(t, lxcTree, tempDir(t))
	host := hostCPUs(t)
	forEachHook(t, func(t *testing.T, o lxcOptions) {
		o.cpuset = list(host[:1])
		c := newLXC(t, d, o)
		c.start()
		for cmd, want := range map[string]string{
			"cat online":          list(host[:1]) + "\n",
			"cat offline":         ranges(t, host[1:]) + "\n",
			"cat possible":        command(t, "cat", cpuDir+"/possible"),
			"ls -U":               command(t, "ls", "-U", cpuDir),
			"stat -f -c %t .":     "65735546\n", // FUSE
			"cat cpu0/topology/*": command(t, "sh", "-c", "cat "+cpuDir+"/cpu0/topology/*"),
		} {
			if got := trimBlank(c.attach("sh", "-c", "cd "+cpuDir+" && "+cmd)); got != want {
				t.Errorf("%s: %q, want %q", cmd, got, want)
			}
		}
	})
}
