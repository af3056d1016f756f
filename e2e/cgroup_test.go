package e2e

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// makeCgroup makes a group at the top of every hierarchy that lensfs looks at, with the limits that are set for a process in it, and gives its
// path. The process leaves it again: on v2 a group has processes or groups beneath it.
func makeCgroup(t *testing.T, limit func(pid int)) string {
	t.Helper()
	path := "/" + uniqueName()
	var dirs []string
	for _, c := range []string{"memory", "cpu", "cpuacct", "cpuset"} {
		root := ""
		if _, v2 := cgroupDir(t, os.Getpid(), c); !v2 {
			root = hierarchy(t, c)
		} else if root = hierarchy(t, ""); c != "cpuacct" {
			writeFile(t, filepath.Join(root, "cgroup.subtree_control"), "+"+c)
		}
		if dir := filepath.Join(root, path); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleep.Wait()
	defer sleep.Process.Kill()
	t.Cleanup(func() {
		for _, dir := range dirs {
			poll(t, 10*time.Second, "the cgroup "+dir+" can be removed", func() bool {
				err := unix.Rmdir(dir)
				return err == nil || err == unix.ENOENT
			})
		}
	})
	for _, dir := range dirs {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // on v1 nothing may enter before they are filled in
			above, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(dir, file), string(above))
		}
		writeFile(t, filepath.Join(dir, "cgroup.procs"), strconv.Itoa(sleep.Process.Pid))
	}
	limit(sleep.Process.Pid)
	return path
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0); err != nil {
		t.Fatal(err)
	}
}
