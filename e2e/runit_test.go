package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The service for runit: the process that runsv starts is the keeper, which is in the pidfile and ends when it is told to.
func TestRunit(t *testing.T) {
	needRoot(t)
	dir := tempDir(t)
	text, err := os.ReadFile("../share/runit/run")
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, tree: filepath.Join(dir, "tree"), views: viewsIn(dir), dir: dir, log: newLogFile(t), done: make(chan error, 1)}
	script, pidfile := filepath.Join(dir, "run"), filepath.Join(dir, "pid")
	writeFile(t, script, strings.NewReplacer(
		"lensfs serve", fmt.Sprintf("%s serve --tree %s --views %s --runtime-dir %s", binary, d.tree, d.views, dir),
		"/run/lensfs.pid", pidfile,
	).Replace(string(text)))
	d.cmd = exec.Command("sh", script)
	d.cmd.Stdout = d.log.file
	d.start()
	if got, err := os.ReadFile(pidfile); err != nil || strings.TrimSpace(string(got)) != fmt.Sprint(d.cmd.Process.Pid) {
		t.Errorf("the pidfile has %q, and runsv watches %d: %v", got, d.cmd.Process.Pid, err)
	}
	d.alive()
}
