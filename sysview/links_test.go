package sysview

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Links are shown as they are, and never followed; what root alone may read is not there.
func TestLinksAndSecrets(t *testing.T) {
	d, c, root := newDir(t, hostOf(0, 1), "0-1", false)
	cpu := filepath.Join(root, "sys/devices/system/cpu")
	write(t, root, map[string]string{"outside/secret": "secret\n", "sys/devices/system/cpu/vulnerabilities/meltdown": "no\n"})
	for name, target := range map[string]string{
		"cpu1/cpufreq": "../cpufreq/policy1", "cpu1/subsystem": "../../../../bus/cpu", "cpu1/out": "../../../../../outside", "cpu1/root": "/",
	} {
		if err := os.Symlink(target, filepath.Join(cpu, name)); err != nil {
			t.Fatal(err)
		}
		n := d.mustFind(t, c, name)
		if got, err := d.Target(n); got != target || err != nil {
			t.Errorf("%s leads to %q, %v", name, got, err)
		}
		var st unix.Stat_t
		if err := d.Attr(n, &st); err != nil || st.Mode != unix.S_IFLNK|0o777 {
			t.Errorf("%s: mode %o, %v", name, st.Mode, err)
		}
		if got, err := d.Read(nil, n, c); err == nil {
			t.Errorf("%s is read: %q", name, got)
		}
		if _, err := d.List(n, c); err == nil {
			t.Errorf("%s is listed", name)
		}
	}
	for _, file := range []string{"cpu1/out/secret", "cpu1/cpufreq/scaling_cur_freq", "cpu1/root/etc"} {
		if n, err := d.Find(file, c); err == nil {
			t.Errorf("%s is found: %x", file, n)
		}
	}
	for name, mode := range map[string]os.FileMode{"probe": 0o200, "cpu1/crash_notes": 0o400, "cpu1/group": 0o640, "cpu1/all": 0o444} {
		write(t, cpu, map[string]string{name: "x\n"})
		if err := os.Chmod(filepath.Join(cpu, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(cpu, "cpu1/fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	list := append(d.names(t, c, Top), d.names(t, c, d.mustFind(t, c, "cpu1"))...)
	for _, name := range []string{"probe", "cpu1/crash_notes", "cpu1/group", "cpu1/fifo"} {
		if n, err := d.Find(name, c); err != unix.ENOENT {
			t.Errorf("%s is found: %x, %v", name, n, err)
		}
		if slices.Contains(list, filepath.Base(name)) {
			t.Errorf("%s is listed", name)
		}
		n, _ := number(name)
		if _, err := d.Path(n); err != unix.ENOENT {
			t.Errorf("%s is found by its number: %v", name, err)
		}
	}
	if d.mustFind(t, c, "cpu1/all"); !slices.Contains(list, "all") || !slices.Contains(list, "cpufreq") {
		t.Errorf("listed: %v", list)
	}
}
