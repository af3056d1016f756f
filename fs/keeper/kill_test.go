package keeper

import (
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEndOf asks for processes that nobody has waited for, as one is whose thread waits in the kernel.
func TestEndOf(t *testing.T) {
	for _, c := range []struct {
		script, want string
		killed       bool
	}{
		{"exit 3", "exit status 3", false},
		{"kill -SEGV $$", "segmentation fault", false},
		{"kill -9 $$", "killed", true},
		{"sleep 1000", "killed", true}, // it has not ended: somebody kills it
	} {
		child := exec.Command("sh", "-c", "exec 2>&-; "+c.script)
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		if c.script != "sleep 1000" {
			var info unix.Siginfo
			if err := unix.Waitid(unix.P_PID, child.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
				t.Fatal(err)
			}
		}
		how := words(endOf(child.Process.Pid))
		if how != c.want || wasKilled(how) != c.killed || wasKilled(how+inKernel) != c.killed {
			t.Errorf("%s: %q, killed %v", c.script, how, wasKilled(how))
		}
		child.Process.Kill()
		child.Wait()
	}
}
