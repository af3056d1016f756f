package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// faulty is a binary with faults, see fs/fault.go.
var faulty = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("LENSFS_FAULTY"); path != "" {
		return path, nil
	}
	path := filepath.Join(runDir, "lensfs-faulty")
	out, err := exec.Command("go", "build", "-tags", "faults", "-o", path, "lensfs/cmd/lensfs").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, err
})

// A request that no worker survives, or can answer, fails after some workers; nobody else's does.
func TestPoisonedRequest(t *testing.T) {
	needRoot(t)
	path, err := faulty()
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []struct {
		fault string
		most  int // workers that it may cost
	}{{"exit", 3}, {"hang", 2}} {
		t.Run(how.fault, func(t *testing.T) {
			dir := tempDir(t)
			tree := filepath.Join(dir, "tree")
			cmd := exec.Command(path, "serve", "--tree", tree, "--views", viewsIn(dir), "--runtime-dir", dir)
			cmd.Env = append(os.Environ(), "LENSFS_FAULT=proc/swaps "+how.fault)
			d := startDaemon(t, tree, dir, cmd)
			d.warnings = true
			c := d.container([]string{"--tree", d.tree}, "sh", "-c", "readlink "+d.views+"/self; read wait || :")
			for _, file := range []string{tree + "/proc/swaps", filepath.Join(d.views, c.line(), "proc/swaps")} {
				d.underLoad(2, loadPlan{Threads: 2, Pace: 5 * time.Millisecond, Shared: true}, func() {
					before := strings.Count(d.log.String(), "the worker is replaced")
					out, err := commandFor(2*time.Minute, "cat", file)
					if err == nil || !strings.Contains(err.Error(), "Input/output error") {
						t.Errorf("%s: %q, %v", file, out, err)
					}
					cost := strings.Count(d.log.String(), "the worker is replaced") - before
					t.Logf("%s cost %d workers", file, cost)
					if cost == 0 || cost > how.most {
						t.Errorf("%s cost %d workers:\n%s", file, cost, d.log)
					}
					time.Sleep(time.Second)
				})
			}
			c.close()
			d.alive()
		})
	}
}

func commandFor(limit time.Duration, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = errors.Join(err, ctx.Err(), errors.New(strings.TrimSpace(string(out))))
	}
	return string(out), err
}
